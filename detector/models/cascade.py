"""Cascade R-CNN (Cai & Vasconcelos 2018): each stage learns from the boxes of the one before, at a higher IoU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from detector import boxes as box_ops
from detector.matching import Matcher, Rois, Sampled, join_rois, label_rois, sample_rois
from detector.models.box_head import BoxHead
from detector.models.mask_head import MaskHead
from detector.models.pooler import Pooler
from detector.models.roi_heads import StandardHeads, mask_head_loss
from detector.models.selection import Select
from detector.types import Objects, Size, Target


class CascadeStage(nn.Module):
    """What a later stage has of its own.

    Args:
        matcher: which boxes of the stage before learn what.
        box_head: predicts classes and boxes.
    """

    def __init__(self, matcher: Matcher, box_head: BoxHead) -> None:
        super().__init__()
        self.matcher, self.box_head = matcher, box_head


class CascadeHeads(StandardHeads):
    """Box heads one after the other, all but the first on the boxes of the one before (section 4).

    In training the RoIs are sampled once, and each later stage matches all of them again where they have got to. The
    gradient that the stages send to the features is divided by their number. The mask head learns from the first
    stage's RoIs and is asked about the last one's detections. (As in Detectron2.)

    Args:
        box_pooler, select, mask_pooler, mask_head, proposal_append_gt, rois_at_once: as of `StandardHeads`.
        box_head, matcher, sampler: of the first stage, as of `StandardHeads`.
        later: the stages after it.

    Raises:
        ValueError: the pooler has a stage behind it, or one of the stages gives each class a box of its own, so that
            the next would not know which to take.
    """

    def __init__(
        self,
        box_pooler: Pooler,
        box_head: BoxHead,
        select: Select,
        matcher: Matcher,
        sampler: Callable[[Tensor, Tensor], Sampled],
        later: Sequence[CascadeStage],
        mask_pooler: Pooler | None = None,
        mask_head: MaskHead | None = None,
        proposal_append_gt: bool = True,
        rois_at_once: int | None = None,
    ) -> None:
        super().__init__(
            box_pooler, box_head, select, matcher, sampler, mask_pooler, mask_head, proposal_append_gt, rois_at_once
        )
        if box_pooler.stage is not None:
            raise ValueError(
                "the RoIs of this backbone go through a stage that all box heads would share (backbone.stage), and a "
                "cascade wants a head of its own for each of its stages: use a backbone with FPN, C5 or DC5, or VGG16"
            )
        for number, head in enumerate([box_head, *(stage.box_head for stage in later)][:-1], 1):
            if head.regressors != 1:
                raise ValueError(
                    f"stage {number} of {1 + len(later)} must be cls_agnostic_bbox_reg, as the next needs one box"
                )
        self.later: Sequence[CascadeStage] = nn.ModuleList(later)  # type: ignore[assignment]

    def loss(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """The losses, scalars: `class1`, `box1`, `class2`, ... of the stages and, with a mask head, `mask`.

        The arguments are those of `StandardHeads.loss`.
        """
        classes = self.box_head.num_classes
        rois = sampled = sample_rois(proposals, targets, self.matcher, self.sampler, classes, self.proposal_append_gt)
        first = self.box_pooler(features, [r.boxes for r in sampled])
        losses, boxes = self._stage(1, self.box_head, first, sampled)
        for number, stage in enumerate(self.later, 2):
            rois = [
                _rematch(box, r, size, stage.matcher, target, classes)
                for box, r, size, target in zip(boxes, rois, sizes, targets, strict=True)
            ]
            pooled = self.box_pooler(features, [r.boxes for r in rois])
            own, boxes = self._stage(number, stage.box_head, pooled, rois)
            losses |= own
        if self.mask_head is not None:
            losses |= mask_head_loss(self.mask_head, self.mask_pooler, features, first, sampled, targets, classes)
        return losses

    def _stage(
        self, number: int, head: BoxHead, pooled: Tensor, rois: Sequence[Rois]
    ) -> tuple[dict[str, Tensor], Sequence[Tensor]]:
        """The losses of a stage, and by image the boxes that it makes of its RoIs."""
        predicted = head(_scale_gradient(pooled, 1 / (1 + len(self.later))))
        boxes, labels, truth = join_rois(rois)
        losses = head.loss(predicted, boxes, labels, truth)
        moved = head.boxes(predicted, boxes)[:, 0].detach()
        by_image = torch.split(moved, [len(r.boxes) for r in rois])
        return {f"{name}{number}": loss for name, loss in losses.items()}, by_image

    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """The detections of each image, best first, in pixels of the network's image; arguments as of `loss`.

        They are the last stage's boxes, of the probability that the stages give on average.
        """
        counts = [len(p) for p in proposals]
        boxes, probabilities = list(proposals), []
        for head in (self.box_head, *(stage.box_head for stage in self.later)):
            predicted = self._predict(head, features, boxes)
            probabilities.append(predicted.probabilities)
            regress = predicted.regression(torch.cat(boxes), head.bbox_reg_weights)
            if head.regressors == 1:
                moved = torch.split(head.boxes(predicted, torch.cat(boxes))[:, 0], counts)
                boxes = [box_ops.clip(box, size) for box, size in zip(moved, sizes, strict=True)]
        objects = self.select(torch.stack(probabilities).mean(0), regress, counts, sizes)
        if self.mask_head is not None:
            pooler = self.box_pooler if self.mask_pooler is None else self.mask_pooler
            objects = self.mask_head(pooler(features, [o.boxes for o in objects]), objects)
        return objects


@torch.no_grad()
def _rematch(boxes: Tensor, before: Rois, size: Size, matcher: Matcher, target: Target, background: int) -> Rois:
    """The RoIs of the next stage: the boxes [R, 4] that this one made of `before`.

    Those that learnt nothing (they only fill the sample) and those without an area do not go on.
    """
    boxes = box_ops.clip(boxes, size)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1) & (before.labels >= 0)]
    return label_rois(boxes, matcher(boxes, target), target, background)


def _scale_gradient(features: Tensor, factor: float) -> Tensor:
    """The same features, which pass on only this part of their gradient."""
    if not features.requires_grad:
        return features
    view = features.view_as(features)
    view.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
    return view
