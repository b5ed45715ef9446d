"""The settings that are suggested, and those that they would replace."""

from __future__ import annotations

from dataclasses import dataclass

from detector.data.suggest.anchors import AnchorSet
from detector.data.suggest.sizes import InputSize

Value = int | float | list[int] | list[float] | list[list[float]]


@dataclass(frozen=True)
class Present:
    """The settings that are chosen now."""

    size: InputSize
    """of validation images"""
    train_short_sizes: tuple[int, ...] | None
    """shorter sides that training images are resized to, in pixels; None: they keep their size"""
    train_longest: int | None
    """limit of their longer side, in pixels; None: no limit"""
    anchors: AnchorSet | None
    """None: proposals are given"""
    canonical_size: float
    canonical_level: int
    strides: tuple[int, ...]
    """of the backbone's levels, ascending"""
    roi_strides: tuple[int, ...]
    """of the levels that RoIs are pooled from, ascending"""
    divisibility: int
    """images are padded to multiples of it"""
    detections: int
    rois: int
    positive_fraction: float
    """of the RoIs, at most"""
    train_topk: tuple[int, int]
    """proposals before and after NMS in training"""
    test_topk: tuple[int, int]
    """likewise at inference"""
    size_bins: tuple[float, float]
    batch_size: int
    val_batch_size: int
    crop: tuple[int, int] | None
    """height and width of the training's crops"""


@dataclass(frozen=True)
class Suggestion:
    """A setting of one or several keys, and why; it may be the present one."""

    keys: tuple[str, ...]
    present: Value | None
    value: Value | None
    reason: str

    @property
    def changes(self) -> bool:
        """Whether it is another setting than the present one."""
        return self.value != self.present
