"""The second stage: from features and proposals to losses, or to detections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from detector.matching import Matcher, Rois, Sampled, join_rois, sample_rois
from detector.models.box_head import BoxHead, Prediction
from detector.models.mask_head import MaskHead
from detector.models.pooler import Pooler
from detector.models.selection import Select
from detector.models.stages import Heads
from detector.types import Objects, Size, Target


class StandardHeads(Heads):
    """A box head and, if given, a mask head (Fast, Faster and Mask R-CNN).

    Args:
        box_pooler, box_head: what the RoIs' boxes and classes are predicted by.
        select: which of them are detections.
        matcher, sampler: which proposals learn.
        mask_pooler: what the mask head reads; None: what the box head reads (C4).
        mask_head: none, no masks.
        proposal_append_gt: the true boxes are added to the proposals in training.
        rois_at_once: at inference the box head sees at most so many RoIs at a time, which bounds the memory; None: all.
    """

    def __init__(
        self,
        box_pooler: Pooler,
        box_head: BoxHead,
        select: Select,
        matcher: Matcher,
        sampler: Callable[[Tensor, Tensor], Sampled],
        mask_pooler: Pooler | None = None,
        mask_head: MaskHead | None = None,
        proposal_append_gt: bool = True,
        rois_at_once: int | None = None,
    ) -> None:
        super().__init__()
        if rois_at_once is not None and rois_at_once < 1:
            raise ValueError(f"rois_at_once must be at least 1, or null for all, got {rois_at_once}")
        self.rois_at_once = rois_at_once
        self.box_pooler, self.box_head, self.select = box_pooler, box_head, select
        self.mask_pooler, self.mask_head = mask_pooler, mask_head
        self.matcher, self.sampler, self.proposal_append_gt = matcher, sampler, proposal_append_gt

    def loss(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """The heads' losses, scalars: `class`, `box` and, with a mask head, `mask`.

        Args:
            features: by level [B, D, H, W].
            proposals: by image [R, 4].
            sizes: of the images before padding.
            targets: the true objects by image.
        """
        del sizes
        classes = self.box_head.num_classes
        rois = sample_rois(proposals, targets, self.matcher, self.sampler, classes, self.proposal_append_gt)
        pooled = self.box_pooler(features, [r.boxes for r in rois])
        losses = self.box_head.loss(self.box_head(pooled), *join_rois(rois))
        if self.mask_head is not None:
            losses |= mask_head_loss(self.mask_head, self.mask_pooler, features, pooled, rois, targets, classes)
        return losses

    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """The detections of each image, best first, in pixels of the network's image; arguments as of `loss`."""
        predicted = self._predict(self.box_head, features, proposals)
        regress = predicted.regression(torch.cat(list(proposals)), self.box_head.bbox_reg_weights)
        objects = self.select(predicted.probabilities, regress, [len(p) for p in proposals], sizes)
        if self.mask_head is not None:
            pooler = self.box_pooler if self.mask_pooler is None else self.mask_pooler
            objects = self.mask_head(pooler(features, [o.boxes for o in objects]), objects)
        return objects

    def _predict(self, head: BoxHead, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Prediction:
        """What a box head says of all RoIs, a part of them at a time."""
        parts = [head(self.box_pooler(features, part)) for part in in_parts(boxes, self.rois_at_once)]
        return Prediction(torch.cat([p.logits for p in parts]), torch.cat([p.deltas for p in parts]))


def in_parts(boxes: Sequence[Tensor], size: int | None) -> Iterator[list[Tensor]]:
    """The boxes of B images [R, 4], at most `size` at a time, each time a list of B; in order, and at least once."""
    starts = [0, *accumulate(len(b) for b in boxes)]
    size = size or max(starts[-1], 1)
    for begin in range(0, max(starts[-1], 1), size):
        yield [b[max(begin - s, 0) : max(begin + size - s, 0)] for b, s in zip(boxes, starts, strict=False)]


def mask_head_loss(
    head: MaskHead,
    pooler: Pooler | None,
    features: Sequence[Tensor],
    pooled: Tensor,
    rois: Sequence[Rois],
    targets: Sequence[Target],
    num_classes: int,
) -> dict[str, Tensor]:
    """The loss of the mask head on the positive ones among the RoIs.

    Args:
        pooler: its own; None where it reads what the box head does.
        features: by level [B, D, H, W].
        pooled: [K, D, P, P], what the box head reads of all RoIs.
        rois, targets: by image.

    Raises:
        ValueError: an image has no masks to learn from.
    """
    masks = [target.masks for target in targets if target.masks is not None]
    if len(masks) < len(targets):
        raise ValueError("the mask head learns from masks, and this dataset gives none: use a model without masks")
    positive = [(r.labels >= 0) & (r.labels < num_classes) for r in rois]
    boxes = [r.boxes[p] for r, p in zip(rois, positive, strict=True)]
    labels = torch.cat([r.labels[p] for r, p in zip(rois, positive, strict=True)])
    match = [r.index[p] for r, p in zip(rois, positive, strict=True)]
    pooled = pooled[torch.cat(positive)] if pooler is None else pooler(features, boxes)
    return head.loss(pooled, boxes, labels, masks, match)
