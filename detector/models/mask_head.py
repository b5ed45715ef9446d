"""The mask head: a small FCN on each RoI, one channel a class (Mask R-CNN, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector.models.pooler import Pooler
from detector.types import Objects


class FCN(nn.Sequential):
    """Four 3×3 convolutions, a deconvolution that doubles the side, and a 1×1 convolution to one logit a class.

    Args:
        channels: of the pooled features, D.
        width: of the layers between.
        num_classes: C.
        depth: number of 3×3 convolutions.
    """

    def __init__(self, channels: int, width: int, num_classes: int, depth: int = 4) -> None:
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Conv2d(channels if i == 0 else width, width, 3, padding=1), nn.ReLU()]
        layers += [nn.ConvTranspose2d(width, width, 2, stride=2), nn.ReLU(), nn.Conv2d(width, num_classes, 1)]
        super().__init__(*layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name == f"{len(layers) - 1}.weight":
                nn.init.normal_(parameter, std=0.001)
            else:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")


class MaskHead(nn.Module):
    """Predicts a mask for each class without competition among them, and reads the channel of the chosen class.

    Args:
        pooler: from features and boxes to [K, D, P, P].
        predictor: from there to logits [K, C, M, M].
        crop: `(masks [G, 1, H, W], rois [K, 5], side) -> [K, 1, side, side]`, such as `ops.roi_align` with the
            half-pixel shift: it cuts the true masks to the RoIs.
    """

    def __init__(self, pooler: Pooler, predictor: nn.Module, crop: Callable[..., Tensor]) -> None:
        super().__init__()
        self.pooler, self.predictor, self.crop = pooler, predictor, crop

    def loss(
        self,
        features: Sequence[Tensor],
        boxes: Sequence[Tensor],
        labels: Tensor,
        masks: Sequence[Tensor],
        match: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """The loss `mask`: binary cross-entropy on the true class's channel, averaged over RoIs and cells.

        Args:
            features: by level [B, D, H, W].
            boxes: the positive RoIs by image; K in all.
            labels: int64 [K].
            masks: the true masks by image, bool [G, H, W].
            match: by image, int64 [R]: the mask that each RoI is to learn.
        """
        logits = self.predictor(self.pooler(features, boxes)).float()
        logits = logits[torch.arange(len(labels), device=labels.device), labels]
        side = logits.shape[-1]
        wanted = torch.cat([self._target(*image, side) for image in zip(masks, match, boxes, strict=True)])
        # A sum, so that every parameter gets a (zero) gradient where no RoI is positive.
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return {"mask": loss / max(logits.numel(), 1)}

    def _target(self, masks: Tensor, match: Tensor, boxes: Tensor, side: int) -> Tensor:
        """The masks [R, side, side], 0 or 1, that the RoIs of one image are to learn."""
        rois = torch.cat((match[:, None].to(boxes.dtype), boxes), 1)
        return (self.crop(masks[:, None].to(boxes.dtype), rois, side)[:, 0] >= 0.5).to(boxes.dtype)

    def forward(self, features: Sequence[Tensor], objects: Sequence[Objects]) -> list[Objects]:
        """The same objects with masks: the probabilities of the channel that the box head chose."""
        logits = self.predictor(self.pooler(features, [o.boxes for o in objects])).float()
        labels = torch.cat([o.labels for o in objects])
        chosen = logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()
        masks = chosen.split([len(o) for o in objects])
        return [Objects(o.boxes, o.scores, o.labels, m) for o, m in zip(objects, masks, strict=True)]
