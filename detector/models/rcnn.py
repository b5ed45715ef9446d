"""The two-stage detector: backbone, proposals, second stage. Each part's loss is its own method `loss`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from detector.models.stages import Heads, Proposer
from detector.types import Batch, Objects, Size


class Normalize(nn.Module):
    """From uint8 RGB to what the backbone was made for; padding is zero *after* normalising.

    Args:
        mean, std: of the channels, in 0..255.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        """From uint8 [B, 3, H, W] and the sizes before padding to float [B, 3, H, W], channels last."""
        normal = (images.to(self.mean.dtype) - self.mean) / self.std
        for image, (height, width) in zip(normal, sizes, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return normal.contiguous(memory_format=torch.channels_last)


class RCNN(nn.Module):
    """A two-stage detector.

    Args:
        normalize: from the batch's images to the backbone's input.
        backbone: from there to features, a list by level [B, D, H, W].
        proposer: the first stage.
        heads: the second stage.
    """

    def __init__(
        self,
        normalize: nn.Module,
        backbone: nn.Module,
        proposer: Proposer,
        heads: Heads,
    ) -> None:
        super().__init__()
        self.normalize, self.backbone = normalize, backbone
        self.proposer, self.heads = proposer, heads
        self.to(memory_format=torch.channels_last)

    def features(self, batch: Batch) -> list[Tensor]:
        """The backbone's features by level, [B, D, H, W], fine to coarse."""
        features: list[Tensor] = self.backbone(self.normalize(batch.images, batch.sizes))
        return features

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The losses by name, scalars; their sum is what is minimised."""
        features = self.features(batch)
        losses, proposals = self.proposer.loss(features, batch)
        return losses | self.heads.loss(features, proposals, batch.sizes, batch.targets)

    def forward(self, batch: Batch) -> list[Objects]:
        """The detections of each image, best first, in pixels of its original."""
        features = self.features(batch)
        objects: list[Objects] = self.heads(features, self.proposer(features, batch), batch.sizes)
        return [
            _rescale(found, size, original)
            for found, size, original in zip(objects, batch.sizes, batch.original_sizes, strict=True)
        ]


def _rescale(objects: Objects, size: Size, original: Size) -> Objects:
    """Objects of an image of `size` in the pixels of its `original`."""
    if size == original:
        return objects
    y, x = original[0] / size[0], original[1] / size[1]
    return replace(objects, boxes=objects.boxes * objects.boxes.new_tensor([x, y, x, y]))
