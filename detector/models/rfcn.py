"""R-FCN (Dai et al. 2016): position-sensitive maps of the whole image; after pooling only a vote."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector import boxes as box_ops
from detector.boxes import BoxRegWeights
from detector.matching import Assigner, Sampler, hardest, join_rois, sample_rois, take_all
from detector.models.box_head import Prediction, box_head_loss, loss_by_roi
from detector.models.heads import Heads
from detector.models.losses import BoxLoss
from detector.models.pooler import Pooler
from detector.models.selection import Select
from detector.types import Objects, Size, Target


class PositionSensitiveMaps(nn.Module):
    """Compute a score map of each class, and a map of each delta, for each bin of an RoI (section 2).

    Args:
        channels: of the features, D, of all levels.
        num_classes: C, without the background.
        size: k, the side of the grid of bins.
        width: channels between the features and the maps.
        cls_agnostic_bbox_reg: one regression for all classes, instead of one for each.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(
        self, channels: int, num_classes: int, size: int = 7, width: int = 1024, cls_agnostic_bbox_reg: bool = True
    ) -> None:
        super().__init__()
        if min(channels, num_classes, size, width) < 1:
            raise ValueError(f"must be at least 1, got {channels=} {num_classes=} {size=} {width=}")
        self.num_classes, self.size = num_classes, size
        self.regressors = 1 if cls_agnostic_bbox_reg else num_classes
        self.reduce = nn.Conv2d(channels, width, 1)
        self.classify = nn.Conv2d(width, size**2 * (num_classes + 1), 1)
        self.regress = nn.Conv2d(width, size**2 * 4 * self.regressors, 1)
        nn.init.kaiming_uniform_(self.reduce.weight, a=1)
        for layer in (self.classify, self.regress):
            nn.init.normal_(layer.weight, std=0.01)
        for layer in (self.reduce, self.classify, self.regress):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """Compute maps [B, (C + 1 + 4R) · k², H, W] from [B, D, H, W], the k² of an output together; R regressions."""
        hidden = F.relu(self.reduce(feature), inplace=True)
        return torch.cat((self.classify(hidden), self.regress(hidden)), 1)

    def vote(self, pooled: Tensor) -> Prediction:
        """Average the bins [K, C + 1 + 4R, k, k] of each RoI to its prediction."""
        votes = box_ops.precise(pooled).mean((2, 3))
        logits, deltas = votes.tensor_split([self.num_classes + 1], 1)
        return Prediction(logits, deltas.reshape(-1, self.regressors, 4))


class RFCNHeads(Heads):
    """Pool position-sensitive maps and let the bins of each RoI vote.

    Args:
        maps: computes them from the features of a level.
        pooler: with a position-sensitive operator, such as `ops.multiscale_ps_roi_align`.
        select: postprocesses the predictions into detections.
        matcher: labels proposals by the ground truth.
        sampler: samples among them for training.
        box_loss: on the deltas, such as `detector.models.losses.smooth_l1`.
        bbox_reg_weights: factors of the deltas (dx, dy, dw, dh).
        hard_examples: RoIs of each image in the loss, those of highest loss among all proposals, instead of those that
            `sampler` takes (OHEM, section 2); None: the sampler's.
        proposal_append_gt: add the ground-truth boxes to the proposals in training.

    Raises:
        ValueError: the pooler has no position-sensitive operator or pools to another size than the maps', or
            `hard_examples` is below 1.
    """

    def __init__(
        self,
        maps: PositionSensitiveMaps,
        pooler: Pooler,
        select: Select,
        matcher: Assigner,
        sampler: Sampler,
        box_loss: BoxLoss,
        bbox_reg_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        hard_examples: int | None = None,
        proposal_append_gt: bool = True,
    ) -> None:
        super().__init__()
        if pooler.operator is None:
            raise ValueError(
                "R-FCN pools each bin from maps of its own, and this pooler has no position-sensitive operator: use "
                "pooler=roialign, roialign_adaptive or roipool with their default mode, aligned and quantization (or "
                "pooler.quantization=rfcn)"
            )
        if pooler.output_size != maps.size:
            raise ValueError(f"the maps are of {maps.size} bins a side, and the pooler pools {pooler.output_size}")
        if hard_examples is not None and hard_examples < 1:
            raise ValueError(f"hard_examples must be at least 1, or null for none, got {hard_examples}")
        self.maps, self.pooler, self.select = maps, pooler, select
        self.matcher, self.proposal_append_gt = matcher, proposal_append_gt
        self.sampler = sampler if hard_examples is None else take_all
        self.hard_examples, self.box_loss = hard_examples, box_loss
        self.bbox_reg_weights: BoxRegWeights = tuple(bbox_reg_weights)  # type: ignore[assignment]

    def loss(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Compute the losses `class` and `box`, scalars, averaged over the RoIs; arguments as of `Heads.loss`."""
        del sizes
        classes = self.maps.num_classes
        rois = sample_rois(proposals, targets, self.matcher, self.sampler, classes, self.proposal_append_gt)
        predicted = self._predict(features, [r.boxes for r in rois])
        boxes, labels, gt_boxes = join_rois(rois)
        if self.hard_examples is not None:
            with torch.no_grad():
                losses = loss_by_roi(predicted, boxes, labels, gt_boxes, self.box_loss, self.bbox_reg_weights)
            by_image = zip(rois, torch.split(losses, [len(r.labels) for r in rois]), strict=True)
            labels = torch.cat([hardest(r.labels, part, self.hard_examples) for r, part in by_image])
        return box_head_loss(
            predicted, boxes, labels, gt_boxes, self.box_loss, self.bbox_reg_weights, training=self.training
        )

    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """Detect the objects of each image, best first; arguments as of `Heads.forward`."""
        predicted = self._predict(features, proposals)
        regress = predicted.regression(torch.cat(list(proposals)), self.bbox_reg_weights)
        return self.select(predicted.probabilities, regress, [p.shape[0] for p in proposals], sizes)

    def _predict(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Prediction:
        maps = [self.maps(feature) for feature in features[: len(self.pooler.scales)]]
        return self.maps.vote(self.pooler(maps, boxes))
