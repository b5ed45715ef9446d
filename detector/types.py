"""The few types that travel between the parts: `Sample` → `Batch` → `Objects`.

Boxes are float32 xyxy in pixels of the image they belong to, continuous: pixel j covers [j, j+1), so a width is
x2 - x1. Labels are 0..C-1 in the order of the dataset's `classes`; the background is C, the last logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width, in pixels."""

T = TypeVar("T")


def _apply(value: T, method: str, *args: Any, **kwargs: Any) -> T:
    """A copy of `value` with a tensor's `method` called on each tensor in it, through dataclasses and lists."""
    if isinstance(value, Tensor):
        return getattr(value, method)(*args, **kwargs)  # type: ignore[no-any-return]
    if isinstance(value, list):
        return [_apply(v, method, *args, **kwargs) for v in value]  # type: ignore[return-value]
    if isinstance(value, _Movable):
        changes = {f.name: _apply(getattr(value, f.name), method, *args, **kwargs) for f in fields(value)}
        return replace(value, **changes)
    return value


@dataclass
class _Movable:
    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same on another device."""
        return _apply(self, "to", device, non_blocking=non_blocking)

    def pin_memory(self) -> Self:
        """The same in page-locked memory (called by the loader)."""
        return _apply(self, "pin_memory")


@dataclass
class Target(_Movable):
    """The true objects of one image; G objects."""

    boxes: Tensor
    """float32 [G, 4]"""
    labels: Tensor
    """int64 [G]"""
    crowd: Tensor
    """bool [G]: a region of many objects; it is neither learnt nor counted against anyone"""
    difficult: Tensor
    """bool [G]: VOC's flag; not counted at evaluation"""
    masks: Tensor | None = None
    """bool [G, H, W] at the size of the image, or None where the dataset has none"""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: Tensor) -> Target:
        """The objects chosen by `keep`: bool [G] or an index, int64."""
        masks = None if self.masks is None else self.masks[keep]
        return Target(self.boxes[keep], self.labels[keep], self.crowd[keep], self.difficult[keep], masks)


@dataclass
class Sample(_Movable):
    """One image with what is known of it."""

    image: Tensor
    """uint8 [3, H, W], RGB"""
    target: Target
    id: int | str
    """the dataset's own name for the image"""
    original_size: Size
    """the size of the image on disk; detections are reported in its pixels"""
    proposals: Tensor | None = None
    """float32 [R, 4]: given proposals, for training without an RPN"""

    @property
    def size(self) -> Size:
        """The size of `image`."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass
class Batch(_Movable):
    """B images padded at the right and at the bottom to one size H, W."""

    images: Tensor
    """uint8 [B, 3, H, W], zero where padded"""
    sizes: list[Size]
    """each image's size before padding"""
    original_sizes: list[Size]
    ids: list[int | str]
    targets: list[Target]
    proposals: list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Objects(_Movable):
    """The detections of one image, best first; N objects."""

    boxes: Tensor
    """float32 [N, 4]"""
    scores: Tensor
    """float32 [N] in 0..1"""
    labels: Tensor
    """int64 [N]"""
    masks: Tensor | None = None
    """float32 [N, M, M] in 0..1: the probability of the object over a grid that spans its box.
    `detector.masks.paste` lays it on the image"""

    def __len__(self) -> int:
        return len(self.labels)


class DetectionDataset(Protocol):
    """What every dataset offers. Images and boxes are as on disk; augmentation comes after."""

    classes: Sequence[str]
    """names by label"""
    category_ids: Sequence[int]
    """the dataset's own category ids by label, as written in results"""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    @property
    def has_masks(self) -> bool:
        """Whether samples carry masks."""

    def ground_truth(self) -> dict[str, Any]:
        """The truth for evaluation in COCO's format, straight from the annotation files.

        `images`, `annotations` and `categories`, in original pixels, with the dataset's own image and category ids; an
        annotation may carry `ignore: 1` (VOC's difficult).
        """


class Output(Protocol):
    """How what a further head adds to the detections is written and measured."""

    name: str
    """such as `mask`: written to predictions/mask.json, measured under mask/"""
    key: str
    """such as `segmentation`: its key in COCO's results format"""
    needs: str
    """such as `masks`: measured where the dataset has this ground truth (`has_masks`)"""

    def __call__(self, objects: Objects, size: Size) -> list[Any]:
        """One shape per object, as JSON can hold it, at the original image's size (height, width)."""
