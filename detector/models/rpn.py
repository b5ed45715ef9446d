"""The region proposal network (Faster R-CNN, section 3.1; over a pyramid: FPN, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector import boxes as box_ops
from detector.boxes import BoxRegWeights
from detector.matching import Assigner, Sampler, sample
from detector.models.anchors import Anchors
from detector.models.heads import Proposer
from detector.models.losses import BoxLoss
from detector.types import Batch, Size, Target


class RPNHead(nn.Module):
    """Predict objectness and deltas of every anchor by 3×3 convolutions and two 1×1 ones, shared by all levels.

    Args:
        channels: of the features, D.
        anchors: anchors of a cell, A.
        depth: number of 3×3 convolutions.

    Raises:
        ValueError: `depth` is below 1.
    """

    def __init__(self, channels: int, anchors: int, depth: int = 1) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth counts 3x3 convolutions, at least 1, got {depth}")
        self.anchors = anchors
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, 1)
        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter, std=0.01) if name.endswith("weight") else nn.init.zeros_(parameter)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Predict logits [B, H*W*A] and deltas [B, H*W*A, 4] from [B, D, H, W], in the order of `Anchors`."""
        hidden = feature
        for conv in self.convs:
            hidden = F.relu(conv(hidden), inplace=True)
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.deltas(hidden).permute(0, 2, 3, 1)
        return logits, deltas.reshape(len(feature), -1, 4)


@dataclass
class Limits:
    """Limit the number of proposals.

    Attributes:
        pre_nms_topk: kept of each level before NMS.
        post_nms_topk: kept of each image after NMS.

    Raises:
        ValueError: a number below 1.
    """

    pre_nms_topk: int
    post_nms_topk: int

    def __post_init__(self) -> None:
        if self.pre_nms_topk < 1 or self.post_nms_topk < 1:
            raise ValueError(f"at least one proposal must be kept, got {self.pre_nms_topk=} {self.post_nms_topk=}")


@dataclass
class _Prediction:
    anchors: list[Tensor]  # by level [n, 4]
    logits: list[Tensor]  # by level [B, n]
    deltas: list[Tensor]  # by level [B, n, 4]


class RPN(Proposer):
    """Propose regions by a region proposal network.

    Args:
        head: predicts on each level.
        anchors: makes the reference boxes.
        train, test: limits of the number of proposals in training and at inference.
        nms_thresh: NMS, by level, drops proposals whose IoU with a better one exceeds this.
        matcher: labels anchors by the ground truth.
        sampler: samples among them for the loss.
        box_loss: on the deltas, such as `detector.models.losses.smooth_l1`.
        bbox_reg_weights: factors of the deltas (dx, dy, dw, dh).
        min_size: proposals with a side no longer than this, in pixels of the network's image, are dropped.

    Raises:
        ValueError: head and anchors have different numbers of anchors per cell.
    """

    def __init__(
        self,
        head: RPNHead,
        anchors: Anchors,
        train: Limits,
        test: Limits,
        nms_thresh: float,
        matcher: Assigner,
        sampler: Sampler,
        box_loss: BoxLoss,
        bbox_reg_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        min_size: float = 0.0,
    ) -> None:
        super().__init__()
        if anchors.per_cell != head.anchors:
            raise ValueError(f"the head predicts {head.anchors} anchors a cell, and there are {anchors.per_cell}")
        self.head, self.anchors = head, anchors
        self.train_limits, self.test_limits = train, test
        self.nms_thresh, self.min_size, self.box_loss = nms_thresh, min_size, box_loss
        self.matcher, self.sampler = matcher, sampler
        self.bbox_reg_weights: BoxRegWeights = tuple(bbox_reg_weights)  # type: ignore[assignment]

    def forward(self, features: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """Propose at inference: boxes [R, 4] of each image, best first."""
        return [boxes for boxes, _ in self._propose(self._predict(features, batch), batch.sizes, self.test_limits)]

    def loss(self, features: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Compute the losses `rpn_objectness` and `rpn_box`, scalars, and the proposals [R, 4] of each image."""
        prediction = self._predict(features, batch)
        losses = self._loss(prediction, batch.targets)
        return losses, [boxes for boxes, _ in self._propose(prediction, batch.sizes, self.train_limits)]

    def scored(self, features: Sequence[Tensor], batch: Batch, limits: Limits) -> list[tuple[Tensor, Tensor]]:
        """Propose boxes [R, 4] of each image, best first, with their objectness [R] as a probability."""
        found = self._propose(self._predict(features, batch), batch.sizes, limits)
        return [(boxes, logits.sigmoid()) for boxes, logits in found]

    def _predict(self, features: Sequence[Tensor], batch: Batch) -> _Prediction:
        logits, deltas = zip(*(self.head(feature) for feature in features), strict=True)
        padded = (batch.images.shape[-2], batch.images.shape[-1])
        return _Prediction(self.anchors(features, padded), list(logits), list(deltas))

    def _loss(self, prediction: _Prediction, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute equation 1 of the paper, both terms averaged over all anchors of the sample."""
        anchors = torch.cat(prediction.anchors)
        logits, deltas = (box_ops.precise(torch.cat(x, 1)) for x in (prediction.logits, prediction.deltas))
        objectness, box, count = logits.new_zeros(()), logits.new_zeros(()), 0
        for image, target in enumerate(targets):
            matches = self.matcher(anchors, target)
            chosen = sample(self.sampler, matches, target, 0)
            count += len(chosen.index)
            term = F.binary_cross_entropy_with_logits(
                logits[image, chosen.index], chosen.positive.to(logits.dtype), reduction="none"
            )
            objectness = objectness + (term * chosen.valid).sum()
            references = anchors[chosen.index]
            gt_boxes = target.boxes[matches.index[chosen.index]] if len(target) else references
            # Anchors that are not positive get deltas of 0 to themselves: no loss, without waiting for the device.
            positive = chosen.positive[:, None]
            predicted = torch.where(positive, deltas[image, chosen.index], 0.0)
            matched = torch.where(positive, gt_boxes, references)
            box = box + self.box_loss(predicted, references, matched, self.bbox_reg_weights).sum()
        return {"rpn_objectness": objectness / count, "rpn_box": box / count}

    @torch.no_grad()
    def _propose(
        self, prediction: _Prediction, sizes: Sequence[Size], limits: Limits
    ) -> list[tuple[Tensor, Tensor]]:  # by image [R, 4] and the logits [R]
        scores, proposals, levels = [], [], []
        for level, (anchors, logits, deltas) in enumerate(
            zip(prediction.anchors, prediction.logits, prediction.deltas, strict=True)
        ):
            best, index = box_ops.precise(logits).topk(torch.sym_min(limits.pre_nms_topk, logits.shape[1]), dim=1)
            chosen = box_ops.precise(deltas).gather(1, index[..., None].expand(-1, -1, 4))
            proposals.append(box_ops.decode(chosen, anchors[index], self.bbox_reg_weights))
            scores.append(best)
            levels.append(torch.full_like(index, level))
        all_scores, all_boxes, all_levels = torch.cat(scores, 1), torch.cat(proposals, 1), torch.cat(levels, 1)
        kept = []
        for score, box, level_of, size in zip(all_scores, all_boxes, all_levels, sizes, strict=True):
            box = box_ops.clip(box, size)
            side = box[:, 2:] - box[:, :2]
            good = (side > self.min_size).all(1) & score.isfinite()
            box, score, level_of = box[good], score[good], level_of[good]
            keep = box_ops.batched_nms(box, score, level_of, self.nms_thresh, limits.post_nms_topk)
            kept.append((box[keep], score[keep]))
        return kept
