"""Interfaces of a two-stage detector's parts: the proposer, the RoI heads, and the heads beside the box head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from detector.models.pooler import Pooler
from detector.types import Batch, Objects, Output, Size, Target


class Proposer(nn.Module, ABC):
    """Propose regions that may hold an object: those of an RPN, or those given with the images."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """Propose at inference: boxes [R, 4] of each image, in pixels of the network's image."""

    @abstractmethod
    def loss(self, features: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Compute the losses by name, scalars, and the proposals [R, 4] of each image that the heads are trained on."""


class Heads(nn.Module, ABC):
    """Predict objects from features and proposals: the second stage of a detector."""

    @property
    def outputs(self) -> list[Output]:
        """Return the outputs of the further heads; empty if there are none."""
        return []

    @abstractmethod
    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """Detect the objects of each image, best first, in pixels of the network's image.

        Args:
            features: by level, fine to coarse, [B, D, H, W].
            proposals: by image, [R, 4].
            sizes: of the images before padding.
        """

    @abstractmethod
    def loss(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Compute the losses by name, scalars.

        Args:
            features: by level, fine to coarse, [B, D, H, W].
            proposals: by image, [R, 4].
            sizes: of the images before padding.
            targets: the ground truth, by image.
        """


@dataclass
class Positives:
    """The positive RoIs of those sampled for the box head, K in the batch: further heads are trained on them."""

    boxes: list[Tensor]
    """by image float32 [R, 4]"""
    labels: Tensor
    """int64 [K]: the matched objects' classes"""
    match: list[Tensor]
    """by image int64 [R]: the matched object of the image's target"""
    targets: Sequence[Target]
    """the ground truth, by image"""


class FurtherHead(nn.Module, ABC):
    """Base class of heads that run after the box head, such as the mask head.

    A further head is trained on the positive RoIs; at inference it runs on the detections.

    Args:
        pooler: pools its features; None: use the box head's pooled features (C4).
        output: encodes its predictions for JSON files and metrics; None: they are neither written nor measured.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Required annotations: `masks`, or entries of `Target.extra`. A dataset that has them says so by an attribute
    `has_<name>`, such as `has_masks`; without it the head is refused at training, and not measured at evaluation."""

    def __init__(self, pooler: Pooler | None = None, output: Output | None = None) -> None:
        super().__init__()
        self.pooler, self.output = pooler, output

    @abstractmethod
    def loss(self, pooled: Tensor, positives: Positives) -> dict[str, Tensor]:
        """Compute the losses by name, scalars, from the pooled features [K, D, P, P] of the positive RoIs.

        K may be 0; every parameter should then still get a (zero) gradient, as distributed training expects. With
        `detector.models.losses.mean_count`, the losses do not depend on the number of processes. Their names are the
        same for any K.
        """

    @abstractmethod
    def forward(self, pooled: Tensor, objects: Sequence[Objects]) -> list[Objects]:
        """Add the predictions to the detections of each image, from their pooled features [K, D, P, P].

        Store predictions relative to the box (0 to 1): boxes are rescaled to the original image afterwards. Many
        detections come in parts (`detections_at_once`), so a prediction may depend on its own detection only.
        """

    def class_rows(self) -> dict[str, int]:
        """Return the layers with class-specific outputs, and the rows of each per class.

        When weights are loaded for classes in another order, these rows of the layer's weight are reordered; for other
        classes the layer keeps its initial weights. A layer with the rows of one class only is class-agnostic.
        """
        return {}
