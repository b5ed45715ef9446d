"""The mask head: a mask for each RoI and class (Mask R-CNN, section 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector.boxes import precise
from detector.models.box_head import FullyConnected, conv_block
from detector.types import Objects


class FCN(nn.Sequential):
    """3×3 convolutions, a deconvolution that doubles the side, and a 1×1 convolution to the logits.

    Args:
        channels: of the pooled features, D.
        width: of the layers between.
        outputs: logits of a cell.
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
    """Fully connected layers from the pooled features to all cells at once (Mask R-CNN, table 2e).

    Args:
        channels, size: of the pooled features, D and P.
        width: of the layers between.
        outputs: logits of a cell.
        depth: number of layers before the last.
        side: M, the side of the mask.
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
    """How logits become a mask of a class, and what they minimise."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
        """The sum over RoIs and cells, a scalar.

        Args:
            logits: [K, outputs, M, M].
            labels: int64 [K].
            wanted: [K, M, M], the share of each cell that the object fills, 0..1.
        """

    @abstractmethod
    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The probability [K, M, M] of the class that `labels` [K] name."""


def _of_class(logits: Tensor, labels: Tensor) -> Tensor:
    return logits[torch.arange(len(labels), device=labels.device), labels]


class Sigmoid(MaskLoss):
    """Each class for itself: only the channel of the RoI's class is read (Mask R-CNN, section 3)."""

    def loss(self, logits: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
        """See `MaskLoss`."""
        return F.binary_cross_entropy_with_logits(_of_class(logits, labels), wanted, reduction="sum")

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `MaskLoss`."""
        return _of_class(logits, labels).sigmoid()


class Softmax(MaskLoss):
    """The classes and the background, whose logit is 0, compete for each cell (Mask R-CNN, table 2b)."""

    def loss(self, logits: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
        """See `MaskLoss`; a cell is the object's where it fills at least half of it."""
        classes = torch.where(wanted >= 0.5, labels[:, None, None], logits.shape[1])
        return F.cross_entropy(self._with_background(logits), classes, reduction="sum")

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `MaskLoss`."""
        return _of_class(self._with_background(logits).softmax(1), labels)

    @staticmethod
    def _with_background(logits: Tensor) -> Tensor:
        return torch.cat((logits, torch.zeros_like(logits[:, :1])), 1)


class ClassAgnostic(MaskLoss):
    """One mask, whatever the class (Mask R-CNN, section 4.2)."""

    def loss(self, logits: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
        """See `MaskLoss`."""
        del labels
        return F.binary_cross_entropy_with_logits(logits[:, 0], wanted, reduction="sum")

    def probability(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `MaskLoss`."""
        del labels
        return logits[:, 0].sigmoid()


class MaskHead(nn.Module):
    """Predicts the masks of pooled RoIs.

    Args:
        predictor: from pooled features [K, D, P, P] to logits [K, outputs, M, M].
        loss: how the logits are read, and what they minimise.
        crop: `(masks [G, 1, H, W], rois [K, 5], side) -> [K, 1, side, side]`, such as `ops.roi_align` with the
            half-pixel shift: it cuts the true masks to the RoIs.
        threshold: a cell is the object's where it fills at least this share of it; None: the share itself is learnt
            (torchvision).
    """

    def __init__(
        self, predictor: nn.Module, loss: MaskLoss, crop: Callable[..., Tensor], threshold: float | None = 0.5
    ) -> None:
        super().__init__()
        self.predictor, self.mask_loss, self.crop, self.threshold = predictor, loss, crop, threshold

    def loss(
        self, pooled: Tensor, boxes: Sequence[Tensor], labels: Tensor, masks: Sequence[Tensor], match: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The loss `mask`, averaged over RoIs and cells.

        Args:
            pooled: [K, D, P, P] of the positive RoIs.
            boxes: these by image; K in all.
            labels: int64 [K].
            masks: the true masks by image, bool [G, H, W].
            match: by image, int64 [R]: the mask that each RoI is to learn.
        """
        logits = precise(self.predictor(pooled))
        side = logits.shape[-1]
        wanted = torch.cat([self._target(*image, side) for image in zip(masks, match, boxes, strict=True)])
        # A sum, so that every parameter gets a (zero) gradient where no RoI is positive.
        return {"mask": self.mask_loss.loss(logits, labels, wanted) / max(wanted.numel(), 1)}

    def _target(self, masks: Tensor, match: Tensor, boxes: Tensor, side: int) -> Tensor:
        """What the RoIs of one image are to learn, [R, side, side] in 0..1."""
        rois = torch.cat((match[:, None].to(boxes.dtype), boxes), 1)
        share = self.crop(masks[:, None].to(boxes.dtype), rois, side)[:, 0]
        return share if self.threshold is None else (share >= self.threshold).to(boxes.dtype)

    def forward(self, pooled: Tensor, objects: Sequence[Objects]) -> list[Objects]:
        """The same objects with masks, from their pooled features [K, D, P, P]: those of the classes they have."""
        labels = torch.cat([o.labels for o in objects])
        chosen = self.mask_loss.probability(precise(self.predictor(pooled)), labels)
        masks = torch.split(chosen, [len(o) for o in objects])
        return [Objects(o.boxes, o.scores, o.labels, m) for o, m in zip(objects, masks, strict=True)]
