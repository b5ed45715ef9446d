"""Which reference box learns which true object, and which references are sampled. No weights, no state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.boxes import coverage, iou
from detector.types import Target


@dataclass
class Matches:
    """What each of N reference boxes is to learn."""

    index: Tensor
    """int64 [N]: the true object of highest IoU (0 where there is none to choose from)"""
    positive: Tensor
    """bool [N]: learns `index`"""
    negative: Tensor
    """bool [N]: learns the background; neither positive nor negative is left alone"""


class Matcher:
    """Assignment by IoU (Faster R-CNN, section 3.1.2).

    Args:
        positive: a reference learns the object of highest IoU from this IoU on.
        negative: below this IoU with every object, a reference learns the background.
        low_quality: each object also keeps the references that come nearest to it (ties included), however low
            their IoU, so that none stays unlearnt (the RPN's rule).
        crowd: a reference of which at least this share lies in a crowd region learns nothing.
    """

    def __init__(self, positive: float, negative: float, low_quality: bool = False, crowd: float = 0.5) -> None:
        if not 0 < negative <= positive <= 1:
            raise ValueError(f"IoU thresholds must satisfy 0 < negative <= positive <= 1, got {negative=} {positive=}")
        self.positive, self.negative, self.low_quality, self.crowd = positive, negative, low_quality, crowd

    def __call__(self, boxes: Tensor, target: Target) -> Matches:
        """Match `boxes` [N, 4] with the true objects of one image."""
        if len(target) == 0:
            index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            return Matches(index, index > 0, index == 0)
        overlap = iou(target.boxes, boxes).masked_fill(target.crowd[:, None], -1.0)  # [G, N]
        best, index = overlap.max(0)
        positive, negative = best >= self.positive, best < self.negative
        if self.low_quality:
            nearest = overlap.max(1, keepdim=True).values
            forced = ((overlap == nearest) & (nearest > 0)).any(0)
            positive, negative = positive | forced, negative & ~forced
        in_crowd = coverage(boxes, target.boxes).masked_fill(~target.crowd, 0.0).max(1).values >= self.crowd
        negative = negative & ~in_crowd
        return Matches(index, positive, negative)


@dataclass
class Sampled:
    """A choice among N references, positives first; S = the sampler's count, or N where that is less."""

    index: Tensor
    """int64 [S]"""
    positive: Tensor
    """bool [S]"""
    valid: Tensor
    """bool [S]: false where there were too few references to fill the sample"""


class BalancedSampler:
    """Random positives up to a fraction, filled up with random negatives (Fast R-CNN, section 2.3).

    Shapes do not depend on the data, so nothing waits for the device.

    Args:
        count: references sampled of an image.
        fraction: at most this share of them is positive.
    """

    def __init__(self, count: int, fraction: float) -> None:
        if count < 1 or not 0 <= fraction <= 1:
            raise ValueError(f"count must be >= 1 and fraction within 0..1, got {count=} {fraction=}")
        self.count, self.fraction = count, fraction

    def __call__(self, positive: Tensor, negative: Tensor) -> Sampled:
        """Sample from two disjoint masks, bool [N] each."""
        count = min(self.count, len(positive))
        # Random order within each group: positives before negatives, the rest 0.
        key = 1 - torch.rand(len(positive), device=positive.device)
        most = int(self.fraction * self.count)
        chosen = torch.topk(torch.where(positive, key + 2, 0.0), min(most, count))
        kept = torch.zeros_like(key).scatter(0, chosen.indices, (chosen.values > 0).to(key.dtype))
        key = torch.where(kept > 0, key + 2, torch.where(negative, key + 1, 0.0))
        value, index = torch.topk(key, count)
        return Sampled(index, positive[index] & (value > 0), value > 0)


def take_all(positive: Tensor, negative: Tensor) -> Sampled:
    """The sampler that leaves nothing out of its two disjoint masks, bool [N] each; N of them, in their order."""
    return Sampled(torch.arange(len(positive), device=positive.device), positive, positive | negative)


IGNORED = -100
"""The label of an RoI that learns nothing (`cross_entropy`'s default)."""


@dataclass
class Rois:
    """The regions of one image that the second stage learns from, positives first."""

    boxes: Tensor
    """float32 [R, 4]"""
    labels: Tensor
    """int64 [R]: the class, C for the background, `IGNORED` for those that are there only to fill the sample"""
    index: Tensor
    """int64 [R]: the true object (0 where there is none)"""
    truth: Tensor
    """float32 [R, 4]: its box; the region itself where there is none"""


def join_rois(rois: Sequence[Rois]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [K, 4], labels [K] and true boxes [K, 4] of all images, one after the other."""
    return (
        torch.cat([r.boxes for r in rois]),
        torch.cat([r.labels for r in rois]),
        torch.cat([r.truth for r in rois]),
    )


def label_rois(boxes: Tensor, matches: Matches, target: Target, background: int) -> Rois:
    """What regions [R, 4] learn that were matched with the true objects of their image."""
    index = matches.index
    labels = target.labels[index] if len(target) else torch.full_like(index, background)
    learns = torch.where(matches.positive, labels, torch.where(matches.negative, background, IGNORED))
    return Rois(boxes, learns, index, target.boxes[index] if len(target) else boxes)


@torch.no_grad()
def sample_rois(
    proposals: Sequence[Tensor],
    targets: Sequence[Target],
    matcher: Matcher,
    sampler: Callable[[Tensor, Tensor], Sampled],
    background: int,
    append_truth: bool,
) -> list[Rois]:
    """The regions of each image that learn, chosen among its proposals [R, 4] (Fast R-CNN, section 2.3).

    Args:
        background: its label, C.
        append_truth: the true boxes are added to the proposals, so that there are positives from the start.
    """
    rois = []
    for boxes, target in zip(proposals, targets, strict=True):
        if append_truth:
            boxes = torch.cat((boxes, target.boxes[~target.crowd]))
        matches = matcher(boxes, target)
        chosen = sampler(matches.positive, matches.negative)
        picked = Matches(matches.index[chosen.index], chosen.positive & chosen.valid, ~chosen.positive & chosen.valid)
        rois.append(label_rois(boxes[chosen.index], picked, target, background))
    return rois


def hardest(labels: Tensor, losses: Tensor, count: int) -> Tensor:
    """Online hard example mining (Shrivastava et al. 2016, as in R-FCN, section 2): RoIs of high loss learn.

    Args:
        labels: int64 [R], of the RoIs of one image; negative for those that learn nothing anyway.
        losses: [R], theirs.
        count: so many at most keep their label.

    Returns:
        The labels, `IGNORED` but for the `count` of highest loss.
    """
    chosen = torch.where(labels >= 0, losses, -torch.inf).topk(min(count, len(labels))).indices
    return torch.full_like(labels, IGNORED).scatter(0, chosen, labels[chosen])
