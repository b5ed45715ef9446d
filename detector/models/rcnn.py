"""The two-stage detector: backbone, proposer, heads. The loss of each part is its method `loss`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from detector.convolution import fast_convolutions
from detector.models.heads import Heads, Proposer
from detector.types import Batch, Objects, Size


class Normalize(nn.Module):
    """Normalise images; padding is zero *after* normalising.

    Args:
        mean, std: of each channel, in 0..255.

    Raises:
        ValueError: they are not of equally many channels.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean and std must have a number for each channel, not {len(mean)} and {len(std)}")
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Normalise uint8 or float [B, D, H, W] of given sizes before padding to float [B, D, H, W], channels_last.

        Raises:
            ValueError: the images have another number of channels.
        """
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"the images have {images.shape[1]} channels, but model.normalize.mean and std have {len(self.mean)} "
                "numbers; dataset.channels must be the number of channels"
            )
        normal = (images.to(self.mean.dtype) - self.mean) / self.std
        if torch.compiler.is_exporting():  # a graph does not write into slices whose length it does not know
            normal = torch.stack([_cleared(image, size) for image, size in zip(normal, sizes, strict=True)])
            return normal.contiguous(memory_format=torch.channels_last)
        for image, (height, width) in zip(normal, sizes, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return normal.contiguous(memory_format=torch.channels_last)


def _cleared(image: Tensor, size: Size) -> Tensor:
    """Set what lies outside of `size` in an image [D, H, W] to zero."""
    rows, columns = (torch.arange(length, device=image.device) for length in image.shape[1:])
    return torch.where((rows < size[0])[:, None] & (columns < size[1]), image, 0.0)


def fit_to_channels(values: Sequence[float], channels: int) -> list[float]:
    """Fit RGB's three means or deviations to other channels: averaged for one, else repeated, as a stem's filters."""
    return [sum(values) / 3] if channels == 1 else [values[d % 3] for d in range(channels)]


class RCNN(nn.Module):
    """Detect objects in two stages.

    Args:
        normalize: `(images, sizes) -> input of the backbone`, such as `Normalize`.
        backbone: computes features by level, a list of [B, D, H, W].
        proposer: proposes regions, such as an RPN.
        heads: predict objects from features and proposals.
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
        fast_convolutions(self)

    def features(self, batch: Batch) -> list[Tensor]:
        """Compute the backbone's features by level, [B, D, H, W], fine to coarse."""
        features: list[Tensor] = self.backbone(self.normalize(batch.images, batch.sizes))
        return features

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses by name, scalars; their sum is minimised."""
        return self._losses(self.features(batch), batch)

    def forward(self, batch: Batch) -> list[Objects]:
        """Detect the objects of each image, best first, in pixels of the original image."""
        return self._detect(self.features(batch), batch)

    def detect_and_loss(self, batch: Batch) -> tuple[list[Objects], dict[str, Tensor]]:
        """Compute what `forward` and `loss` do, from the same features."""
        features = self.features(batch)
        return self._detect(features, batch), self._losses(features, batch)

    def _losses(self, features: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        losses, proposals = self.proposer.loss(features, batch)
        return losses | self.heads.loss(features, proposals, batch.sizes, batch.targets)

    def _detect(self, features: list[Tensor], batch: Batch) -> list[Objects]:
        objects: list[Objects] = self.heads(features, self.proposer(features, batch), batch.sizes)
        return [
            _rescale(found, size, original)
            for found, size, original in zip(objects, batch.sizes, batch.original_sizes, strict=True)
        ]


def _rescale(objects: Objects, size: Size, original: Size) -> Objects:
    """Scale the boxes of an image of `size` to its `original` size."""
    if size == original:
        return objects
    y, x = original[0] / size[0], original[1] / size[1]
    return replace(objects, boxes=objects.boxes * objects.boxes.new_tensor([x, y, x, y]))
