"""Cascade R-CNN (Cai & Vasconcelos 2018): stages of box heads, each trained on the boxes of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from detector import boxes as box_ops
from detector.matching import Assigner, Rois, Sampler, join_rois, label_rois
from detector.models.box_head import BoxHead
from detector.models.heads import FurtherHead
from detector.models.pooler import Pooler
from detector.models.roi_heads import StandardHeads
from detector.models.selection import Select
from detector.types import Objects, Size, Target


class CascadeStage(nn.Module):
    """Matcher and box head of a later cascade stage.

    Args:
        matcher: labels the boxes regressed by the stage before, usually at a higher IoU.
        box_head: predicts classes and boxes.
    """

    def __init__(self, matcher: Assigner, box_head: BoxHead) -> None:
        super().__init__()
        self.matcher, self.box_head = matcher, box_head


class CascadeHeads(StandardHeads):
    """Run box heads one after the other, each on the boxes of the one before (section 4).

    In training RoIs are sampled once, for the first stage; each later stage matches the boxes that the one before
    refined. The gradient from each stage to the features is divided by the number of stages. Further heads are trained
    on the RoIs of the first stage and run on the detections of the last. (All as in Detectron2.)

    Args:
        box_pooler, select, further, proposal_append_gt, rois_at_once, detections_at_once: as of `StandardHeads`; the
            pooler serves all stages.
        box_head, matcher, sampler: of the first stage, as of `StandardHeads`.
        later: the stages after it.

    Raises:
        ValueError: a box head before the last is not class-agnostic: the next stage takes one box per RoI.
    """

    def __init__(
        self,
        box_pooler: Pooler,
        box_head: BoxHead,
        select: Select,
        matcher: Assigner,
        sampler: Sampler,
        later: Sequence[CascadeStage],
        further: Mapping[str, FurtherHead] | None = None,
        proposal_append_gt: bool = True,
        rois_at_once: int | None = None,
        detections_at_once: int | None = None,
    ) -> None:
        super().__init__(
            box_pooler,
            box_head,
            select,
            matcher,
            sampler,
            further,
            proposal_append_gt,
            rois_at_once,
            detections_at_once,
        )
        for number, head in enumerate([box_head, *(stage.box_head for stage in later)][:-1], 1):
            if head.regressors != 1:
                raise ValueError(
                    f"stage {number} of {1 + len(later)} must have cls_agnostic_bbox_reg=true: the next takes one box "
                    "of each RoI"
                )
        self.later: Sequence[CascadeStage] = nn.ModuleList(later)  # type: ignore[assignment]

    def loss(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Compute the losses, scalars: `class1`, `box1`, `class2`, ... of the stages and those of the further heads.

        Arguments and errors as of `StandardHeads.loss`.
        """
        rois = sampled = self._sample(proposals, targets)
        first = self.pool(features, [r.boxes for r in sampled])
        losses, boxes = self._stage(1, self.box_head, first, sampled)
        for number, stage in enumerate(self.later, 2):
            rois = [
                _rematch(box, r, size, stage.matcher, target, self.box_head.num_classes)
                for box, r, size, target in zip(boxes, rois, sizes, targets, strict=True)
            ]
            own, boxes = self._stage(number, stage.box_head, self.pool(features, [r.boxes for r in rois]), rois)
            losses |= own
        return self._with_further(losses, features, first, sampled, targets)

    def _stage(
        self, number: int, head: BoxHead, pooled: Tensor, rois: Sequence[Rois]
    ) -> tuple[dict[str, Tensor], Sequence[Tensor]]:
        """Compute the losses of a stage, and the regressed boxes [R, 4] of each image."""
        predicted = self.predict(head, _scale_gradient(pooled, 1 / (1 + len(self.later))))
        boxes, labels, gt_boxes = join_rois(rois)
        losses = head.loss(predicted, boxes, labels, gt_boxes)
        moved = head.boxes(predicted, boxes)[:, 0].detach()
        by_image = torch.split(moved, [len(r.boxes) for r in rois])
        return {f"{name}{number}": loss for name, loss in losses.items()}, by_image

    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """Detect the objects of each image, best first; arguments as of `Heads.forward`.

        Boxes are those of the last stage, scores the average of all stages' probabilities.
        """
        counts = [p.shape[0] for p in proposals]
        boxes, probabilities = list(proposals), []
        for head in (self.box_head, *(stage.box_head for stage in self.later)):
            predicted = self._predict(head, features, boxes)
            probabilities.append(predicted.probabilities)
            regress = predicted.regression(torch.cat(boxes), head.bbox_reg_weights)
            if head.regressors == 1:
                moved = torch.split(head.boxes(predicted, torch.cat(boxes))[:, 0], counts)
                boxes = [box_ops.clip(box, size) for box, size in zip(moved, sizes, strict=True)]
        return self._complete(features, self.select(torch.stack(probabilities).mean(0), regress, counts, sizes))


@torch.no_grad()
def _rematch(boxes: Tensor, before: Rois, size: Size, matcher: Assigner, target: Target, background: int) -> Rois:
    """Match the refined boxes again with the next stage's matcher.

    `boxes` [R, 4] are the RoIs `before` as this stage refined them. Ignored RoIs, which only fill the sample, and boxes
    without area are left out.
    """
    boxes = box_ops.clip(boxes, size)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1) & (before.labels >= 0)]
    return label_rois(boxes, matcher(boxes, target), target, background)


def _scale_gradient(features: Tensor, factor: float) -> Tensor:
    """Scale the gradient by `factor`; the forward pass is the identity."""
    if not features.requires_grad:
        return features
    view = features.view_as(features)
    view.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
    return view
