"""The mask head: predict a mask for each object and class (Mask R-CNN, section 3)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector.boxes import precise
from detector.models.box_head import FullyConnected, conv_block
from detector.models.heads import FurtherHead, Positives
from detector.models.losses import mean_count
from detector.models.pooler import Pooler
from detector.types import Masks, Objects, Output


class FCN(nn.Sequential):
    """Predict mask logits by 3×3 convolutions, a deconvolution that doubles the side, and a 1×1 convolution.

    Args:
        channels: of the pooled features, D.
        width: of the layers between.
        outputs: logits of each cell: C, or 1 for class-agnostic masks.
        depth: number of 3×3 convolutions.
        norm: makes the normalisation layer of each of them; None for none.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        outputs: int,
        depth: int = 4,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += conv_block(channels if i == 0 else width, width, norm)
        double = nn.ConvTranspose2d(width if depth else channels, width, 2, stride=2)
        nn.init.kaiming_normal_(double.weight, mode="fan_out", nonlinearity="relu")
        last = nn.Conv2d(width, outputs, 1)
        nn.init.normal_(last.weight, std=0.001)
        for layer in (double, last):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        super().__init__(*layers, double, nn.ReLU(), last)


class MLP(nn.Sequential):
    """Predict mask logits of all cells at once by fully connected layers (Mask R-CNN, table 2e).

    Args:
        channels, size: of the pooled features, D and P.
        width: of the layers between.
        outputs: logits of each cell: C, or 1 for class-agnostic masks.
        depth: number of layers before the last.
        side: M, the side of the mask.

    Raises:
        ValueError: `depth` is below 1.
    """

    def __init__(self, channels: int, size: int, width: int, outputs: int, depth: int = 2, side: int = 28) -> None:
        if depth < 1:
            raise ValueError(f"depth counts the layers before the last, at least 1, got {depth}")
        layers: list[nn.Module] = [FullyConnected(channels, size, width), nn.ReLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.ReLU()]
        last = nn.Linear(width, outputs * side * side)
        nn.init.normal_(last.weight, std=0.001)
        nn.init.zeros_(last.bias)
        super().__init__(*layers, last, nn.Unflatten(1, (outputs, side, side)))


class MaskLoss(ABC):
    """Select the mask logits of a class, and compute their loss."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss, summed over RoIs and cells, a scalar.

        Args:
            logits: [K, outputs, M, M].
            labels: int64 [K], the classes.
            targets: [K, M, M], the share of each cell that the object fills, 0..1.
        """

    @abstractmethod
    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mask probabilities [K, M, M] of the classes `labels`, int64 [K]."""


def _of_class(logits: Tensor, labels: Tensor) -> Tensor:
    return logits[torch.arange(labels.shape[0], device=labels.device), labels]


class Sigmoid(MaskLoss):
    """Per-class sigmoid loss: only the channel of the ground-truth class contributes (Mask R-CNN, section 3)."""

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Compute binary cross-entropy; see `MaskLoss`."""
        return F.binary_cross_entropy_with_logits(_of_class(logits, labels), targets, reduction="sum")

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the sigmoid of the class's channel; see `MaskLoss`."""
        return _of_class(logits, labels).sigmoid()


class Softmax(MaskLoss):
    """Softmax loss of each cell over the classes and the background, whose logit is 0 (Mask R-CNN, table 2b)."""

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Compute cross-entropy: a cell with a share >= 0.5 is the RoI's class, else background; see `MaskLoss`."""
        classes = torch.where(targets >= 0.5, labels[:, None, None], logits.shape[1])
        return F.cross_entropy(self._with_background(logits), classes, reduction="sum")

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the softmax of the class's channel; see `MaskLoss`."""
        return _of_class(self._with_background(logits).softmax(1), labels)

    @staticmethod
    def _with_background(logits: Tensor) -> Tensor:
        return torch.cat((logits, torch.zeros_like(logits[:, :1])), 1)


class ClassAgnostic(MaskLoss):
    """Class-agnostic sigmoid loss: one channel for all classes (Mask R-CNN, section 4.2)."""

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Compute binary cross-entropy; see `MaskLoss`."""
        del labels
        return F.binary_cross_entropy_with_logits(logits[:, 0], targets, reduction="sum")

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the sigmoid of the only channel; see `MaskLoss`."""
        del labels
        return logits[:, 0].sigmoid()


class MaskHead(FurtherHead):
    """Predict the mask of each object (Mask R-CNN, section 3).

    Args:
        pooler, output: as of `FurtherHead`; the output is usually a `detector.masks.MaskOutput`.
        predictor: from pooled features [K, D, P, P] to logits [K, outputs, M, M].
        loss: selects the logits of each RoI's class, and computes their loss.
        crop: `(pixels, windows, offsets, size, boxes [R, 4], index [R], side) -> [R, side, side]`, such as
            `ops.roi_align_masks` with the half-pixel shift: crops the ground-truth masks, held as in
            `detector.types.Masks`, to the RoIs.
        threshold: a cell of the target is 1 where the object fills at least this share of it, else 0; None: the target
            is the share itself (torchvision).
    """

    needs: ClassVar[tuple[str, ...]] = ("masks",)

    def __init__(
        self,
        predictor: nn.Module,
        loss: MaskLoss,
        crop: Callable[..., Tensor],
        threshold: float | None = 0.5,
        pooler: Pooler | None = None,
        output: Output | None = None,
    ) -> None:
        super().__init__(pooler, output)
        self.predictor, self.mask_loss, self.crop, self.threshold = predictor, loss, crop, threshold

    def loss(self, pooled: Tensor, positives: Positives) -> dict[str, Tensor]:
        """Compute the loss `mask`, averaged over cells and over RoIs whose mask is known; see `FurtherHead.loss`."""
        masks = [target.masks for target in positives.targets if target.masks is not None]
        known = [m.known[match] for m, match in zip(masks, positives.match, strict=True)]
        chosen, labels, boxes, matches = (
            torch.cat(known).nonzero()[:, 0],
            positives.labels,
            positives.boxes,
            positives.match,
        )
        if len(chosen) < len(labels):
            pooled, labels = pooled[chosen], labels[chosen]
            boxes = [box[k] for box, k in zip(boxes, known, strict=True)]
            matches = [match[k] for match, k in zip(matches, known, strict=True)]
        logits = precise(self.predictor(pooled))
        side = logits.shape[-1]
        images = zip(masks, matches, boxes, strict=True)
        targets = torch.cat([self.target(*image, side) for image in images])
        # A sum, so that every parameter gets a (zero) gradient when no RoI is positive, or no mask of one known.
        total = self.mask_loss.loss(logits, labels, targets)
        return {"mask": total / mean_count(targets.numel(), logits, self.training)}

    def target(self, masks: Masks, match: Tensor, boxes: Tensor, side: int) -> Tensor:
        """Crop the matched ground-truth masks to the RoIs of one image.

        Args:
            masks: of the G objects.
            match: int64 [R], the mask of each RoI.
            boxes: [R, 4], the RoIs.
            side: M.

        Returns:
            [R, M, M] in 0..1.
        """
        share = self.crop(masks.pixels, masks.windows, masks.offsets, masks.size, boxes, match, side).to(boxes.dtype)
        return share if self.threshold is None else (share >= self.threshold).to(boxes.dtype)

    def forward(self, pooled: Tensor, objects: Sequence[Objects]) -> list[Objects]:
        """Add the masks of the detected classes to the objects of each image, from pooled features [K, D, P, P]."""
        labels = torch.cat([o.labels for o in objects])
        chosen = self.mask_loss.probability(precise(self.predictor(pooled)), labels)
        masks = torch.split(chosen, [o.labels.shape[0] for o in objects])
        return [replace(o, masks=m) for o, m in zip(objects, masks, strict=True)]

    def class_rows(self) -> dict[str, int]:
        """Return the predictor's last layer and its rows per class: 1, or M · M for the MLP."""
        if not isinstance(self.predictor, nn.Sequential):
            return {}
        last = self.predictor[-1]
        name = [name for name, layer in self.predictor.named_children() if list(layer.parameters())][-1]
        return {f"predictor.{name}": math.prod(last.unflattened_size[1:]) if isinstance(last, nn.Unflatten) else 1}
