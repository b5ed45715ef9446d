"""Match boxes with the ground truth and sample positives and negatives for training. No weights, no state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import ops
from detector.types import Target
from ops.ranking import MAX_TOPK

MOST_RANKED = MAX_TOPK
"""Boxes that `rank` ranks of an object, at most."""


@dataclass
class Matches:
    """The match of each of N boxes (anchors or proposals); those neither positive nor negative are ignored."""

    index: Tensor
    """int64 [N]: the ground-truth object that a box is matched with (0 where there is none)"""
    positive: Tensor
    """bool [N]: matched with the object `index`"""
    negative: Tensor
    """bool [N]: background"""


Assigner = Callable[[Tensor, Target], Matches]
"""Label boxes [N, 4] by the ground truth of their image: `Matcher`, or another rule of configs/assignment."""


def all_negative(boxes: Tensor) -> Matches:
    """Label all boxes [N, 4] of an image without ground truth as negative."""
    index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return Matches(index, index > 0, index == 0)


def check_thresholds(measure: str, low_threshold: float, high_threshold: float) -> None:
    """Check the thresholds of a measure of how near boxes are, such as the IoU.

    Raises:
        ValueError: not 0 < `low_threshold` <= `high_threshold` <= 1.
    """
    if not 0 < low_threshold <= high_threshold <= 1:
        raise ValueError(
            f"{measure} thresholds must satisfy 0 < low_threshold <= high_threshold <= 1, got "
            f"{low_threshold=} {high_threshold=}"
        )


def rank(boxes: Tensor, target: Target, distance: str, topk: int) -> ops.BoxRanks:
    """Rank boxes [N, 4] for each object of their image, as `ops.rank_boxes` does."""
    return ops.rank_boxes(boxes, target.boxes.to(boxes.dtype), target.crowd, distance, topk)


def crowded(boxes: Tensor, target: Target) -> Tensor:
    """Compute the largest share of each of N boxes within a crowd region of their image, [N]."""
    return ops.match_boxes(boxes, target.boxes.to(boxes.dtype), target.crowd).covered


class Matcher:
    """Label boxes as positive, negative or ignored by their IoU with the ground truth (Faster R-CNN, section 3.1.2).

    Args:
        high_threshold: IoU >= this with a ground-truth box: positive.
        low_threshold: IoU < this with every ground-truth box: negative; in between: ignored.
        allow_low_quality_matches: also make positive, for each object, the boxes of highest IoU with it (ties
            included), however low that is, so that every object has a positive (the RPN's rule).
        crowd_threshold: a box of which at least this share lies within a crowd region is no negative.

    Raises:
        ValueError: not 0 < `low_threshold` <= `high_threshold` <= 1.
    """

    def __init__(
        self,
        high_threshold: float,
        low_threshold: float,
        allow_low_quality_matches: bool = False,
        crowd_threshold: float = 0.5,
    ) -> None:
        check_thresholds("IoU", low_threshold, high_threshold)
        self.high_threshold, self.low_threshold = high_threshold, low_threshold
        self.allow_low_quality_matches, self.crowd_threshold = allow_low_quality_matches, crowd_threshold

    def __call__(self, boxes: Tensor, target: Target) -> Matches:
        """Match boxes [N, 4] with the ground truth of their image."""
        if len(target) == 0:
            return all_negative(boxes)
        found = ops.match_boxes(boxes, target.boxes.to(boxes.dtype), target.crowd)
        positive, negative = found.iou >= self.high_threshold, found.iou < self.low_threshold
        if self.allow_low_quality_matches:
            positive, negative = positive | found.nearest, negative & ~found.nearest
        return Matches(found.matched, positive, negative & (found.covered < self.crowd_threshold))


@dataclass
class Sampled:
    """A sample of S among N boxes, positives first."""

    index: Tensor
    """int64 [S]"""
    positive: Tensor
    """bool [S]"""
    valid: Tensor
    """bool [S]: false for ignored boxes, which fill the sample where positives and negatives are too few"""


Sampler = Callable[[Tensor, Tensor], Sampled]
"""Sample boxes from two disjoint masks, of positives and of negatives, bool [N] each."""


class BalancedSampler:
    """Sample random positives up to a fraction, then random negatives (Fast R-CNN, section 2.3).

    Shapes do not depend on the data, so that nothing waits for the device.

    Args:
        batch_size_per_image: boxes sampled of each image; all, where there are fewer.
        positive_fraction: at most this share of `batch_size_per_image` is positive.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        if batch_size_per_image < 1 or not 0 <= positive_fraction <= 1:
            raise ValueError(
                "batch_size_per_image must be at least 1 and positive_fraction within 0..1, got "
                f"{batch_size_per_image=} {positive_fraction=}"
            )
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction

    def __call__(self, positive: Tensor, negative: Tensor) -> Sampled:
        """Sample from two disjoint masks, bool [N] each."""
        count = min(self.batch_size_per_image, len(positive))
        # Random order within each group: positives before negatives, ignored boxes last (0).
        key = 1 - torch.rand(len(positive), device=positive.device)
        most = int(self.positive_fraction * self.batch_size_per_image)
        chosen = torch.topk(torch.where(positive, key + 2, 0.0), min(most, count))
        kept = torch.zeros_like(key).scatter(0, chosen.indices, (chosen.values > 0).to(key.dtype))
        key = torch.where(kept > 0, key + 2, torch.where(negative, key + 1, 0.0))
        value, index = torch.topk(key, count)
        return Sampled(index, positive[index] & (value > 0), value > 0)


def take_all(positive: Tensor, negative: Tensor) -> Sampled:
    """Sample all boxes in their order, from two disjoint masks, bool [N] each (for hard example mining)."""
    return Sampled(torch.arange(len(positive), device=positive.device), positive, positive | negative)


def sample(sampler: Sampler, matches: Matches, target: Target, choice: int) -> Sampled:
    """Sample boxes that were matched with the ground truth of their image.

    Where that has a seed, torch's generators begin anew with it, so that the sample depends neither on the process that
    the image is in, nor on the other images of the batch but by their padded size.

    Args:
        choice: the number of this random choice for the image; others are drawn for another one.
    """
    if target.seed is not None:
        torch.manual_seed(target.seed + choice)
    return sampler(matches.positive, matches.negative)


IGNORED = -100
"""The label of an ignored RoI, over which no loss is taken (`cross_entropy`'s default)."""


@dataclass
class Rois:
    """The sampled RoIs of one image with their training targets, positives first; R RoIs."""

    boxes: Tensor
    """float32 [R, 4]"""
    labels: Tensor
    """int64 [R]: the class, C for the background, `IGNORED`"""
    index: Tensor
    """int64 [R]: the matched ground-truth object (0 where there is none)"""
    gt_boxes: Tensor
    """float32 [R, 4]: its box (the RoI itself where there is none)"""


def join_rois(rois: Sequence[Rois]) -> tuple[Tensor, Tensor, Tensor]:
    """Concatenate boxes [K, 4], labels [K] and matched ground-truth boxes [K, 4] over all images."""
    return (
        torch.cat([r.boxes for r in rois]),
        torch.cat([r.labels for r in rois]),
        torch.cat([r.gt_boxes for r in rois]),
    )


def label_rois(boxes: Tensor, matches: Matches, target: Target, background: int) -> Rois:
    """Label RoIs [R, 4] that were matched with the ground truth of their image; `background` is C."""
    index = matches.index
    classes = target.labels[index] if len(target) else torch.full_like(index, background)
    labels = torch.where(matches.positive, classes, torch.where(matches.negative, background, IGNORED))
    return Rois(boxes, labels, index, target.boxes[index] if len(target) else boxes)


@torch.no_grad()
def sample_rois(
    proposals: Sequence[Tensor],
    targets: Sequence[Target],
    matcher: Assigner,
    sampler: Sampler,
    background: int,
    proposal_append_gt: bool,
) -> list[Rois]:
    """Match the proposals [R, 4] of each image, sample among them and label the sample (Fast R-CNN, section 2.3).

    Args:
        background: its label, C.
        proposal_append_gt: add the ground-truth boxes to the proposals, so that there are positives from the start.
    """
    rois = []
    for boxes, target in zip(proposals, targets, strict=True):
        if proposal_append_gt:
            boxes = torch.cat((boxes, target.boxes[~target.crowd]))
        matches = matcher(boxes, target)
        chosen = sample(sampler, matches, target, 1)
        picked = Matches(matches.index[chosen.index], chosen.positive & chosen.valid, ~chosen.positive & chosen.valid)
        rois.append(label_rois(boxes[chosen.index], picked, target, background))
    return rois


def hardest(labels: Tensor, losses: Tensor, count: int) -> Tensor:
    """Keep the labels of the RoIs of highest loss (online hard example mining, Shrivastava et al. 2016).

    Args:
        labels: int64 [R], of the RoIs of one image; `IGNORED` ones are never kept.
        losses: [R], of each RoI.
        count: how many RoIs keep their label, at most.

    Returns:
        int64 [R]: the labels, `IGNORED` for all but the hardest.
    """
    chosen = torch.where(labels >= 0, losses, -torch.inf).topk(min(count, len(labels))).indices
    return torch.full_like(labels, IGNORED).scatter(0, chosen, labels[chosen])
