"""Proposers that are not trained: proposals given with the images (Fast R-CNN, section 2), or a frozen RPN's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector import boxes as box_ops
from detector.models.heads import Proposer
from detector.models.rcnn import RCNN
from detector.models.rpn import RPN, Limits
from detector.types import Batch


class GivenProposals(Proposer):
    """Use the proposals that are given with the images.

    Args:
        train, test: proposals kept of each image, the first ones, in training and at inference.
        min_size: proposals with a side no longer than this, in pixels of the network's image, are dropped.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, train: int, test: int, min_size: float = 0.0) -> None:
        super().__init__()
        if train < 1 or test < 1 or min_size < 0:
            raise ValueError(
                f"train and test must be at least 1 and min_size at least 0, got {train=} {test=} {min_size=}"
            )
        self.most_in_training, self.most, self.min_size = train, test, min_size

    def forward(self, features: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """Clip the given proposals [R, 4] to their images and keep the first ones.

        Raises:
            ValueError: the batch has none.
        """
        del features
        return self._first(batch, self.most)

    def loss(self, features: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return no losses, and the proposals [R, 4] used in training, by image; errors as of `forward`."""
        del features
        return {}, self._first(batch, self.most_in_training)

    def _first(self, batch: Batch, most: int) -> list[Tensor]:
        if batch.proposals is None:
            raise ValueError(
                "the images come without proposals, and the model has no RPN: it needs proposals=FILE or "
                "proposals=RUN/checkpoints/last.ckpt"
            )
        kept = []
        for given, size in zip(batch.proposals, batch.sizes, strict=True):
            boxes = box_ops.clip(given, size)
            kept.append(boxes[(boxes[:, 2:] - boxes[:, :2] > self.min_size).all(1)][:most])
        return kept


class FrozenProposals(Proposer):
    """Propose regions by the frozen RPN of another trained detector: its parameters and norms' statistics stay.

    Its proposals depend on the images alone, not on the detector that uses them: it has its own backbone, and pads the
    images as in its own training.

    Args:
        normalize, backbone, rpn: parts of the other detector.
        size_divisibility: images are padded to sides that are multiples of it.

    Raises:
        ValueError: `size_divisibility` is below 1.
    """

    def __init__(self, normalize: nn.Module, backbone: nn.Module, rpn: RPN, size_divisibility: int) -> None:
        super().__init__()
        if size_divisibility < 1:
            raise ValueError(f"size_divisibility must be at least 1, got {size_divisibility}")
        self.normalize, self.backbone, self.rpn = normalize, backbone, rpn
        self.size_divisibility = size_divisibility
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the `mode`."""
        del mode
        return super().train(False)

    def forward(self, features: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """Propose boxes [R, 4] of each image, best first, within the RPN's limits at inference."""
        del features
        return [boxes for boxes, _ in self.scored(batch, self.rpn.test_limits)]

    def loss(self, features: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return no losses, and the proposals [R, 4] used in training, by image, within the RPN's train limits."""
        del features
        return {}, [boxes for boxes, _ in self.scored(batch, self.rpn.train_limits)]

    @torch.no_grad()
    def scored(self, batch: Batch, limits: Limits) -> list[tuple[Tensor, Tensor]]:
        """Propose boxes [R, 4] of each image, best first, with their objectness [R] as a probability."""
        own = replace(batch, images=self._padded(batch))
        return self.rpn.scored(self.backbone(self.normalize(own.images, own.sizes)), own, limits)

    def _padded(self, batch: Batch) -> Tensor:
        """Pad the images [B, 3, H, W] as in the other detector's training."""
        unit = self.size_divisibility
        height, width = (-(-max(side) // unit) * unit for side in zip(*batch.sizes, strict=True))
        images = batch.images[:, :, :height, :width]
        return F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))


def freeze(model: RCNN, size_divisibility: int) -> FrozenProposals:
    """Build a frozen proposer from a detector's backbone and RPN; an existing frozen one is returned unchanged.

    Args:
        model: a detector with an RPN, or with a `FrozenProposals`.
        size_divisibility: of the detector's backbone.
    """
    if isinstance(model.proposer, FrozenProposals):
        return model.proposer
    assert isinstance(model.proposer, RPN)
    return FrozenProposals(model.normalize, model.backbone, model.proposer, size_divisibility)
