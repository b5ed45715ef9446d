"""Measure how well anchors cover a set of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from detector.data.annotations import Floats

MATCHED, POSITIVE = 0.5, 0.7
"""IoU at which a detection counts in AP50, and from which an anchor is positive (Faster R-CNN, section 3.1.2)."""


@dataclass(frozen=True)
class Boxes:
    """Boxes in pixels of the resized images. M boxes."""

    corners: Floats
    """x1, y1, x2, y2, [M, 4]"""
    image_sizes: Floats
    """height and width of each box's image, padded, [M, 2]"""
    weights: Floats
    """how much each counts, [M]; their sum is 1"""

    def sample(self, count: int, seed: int = 0) -> Boxes:
        """Return about `count` boxes, drawn at random without repetition, in their order.

        Boxes of one weight, such as those of a class, are drawn alike, and weigh together what they weighed: a rare
        class, whose objects weigh much, keeps as many of them as there are, up to an equal share.
        """
        if len(self.corners) <= count:
            return self
        generator = np.random.default_rng(seed)
        groups = sorted((np.flatnonzero(self.weights == weight) for weight in np.unique(self.weights)), key=len)
        weights = np.zeros_like(self.weights)
        left = count
        for number, members in enumerate(groups):
            share = min(len(members), max(left // (len(groups) - number), 1))
            weights[generator.choice(members, share, replace=False)] = self.weights[members].sum() / share
            left -= share
        chosen = np.flatnonzero(weights)
        return Boxes(self.corners[chosen], self.image_sizes[chosen], weights[chosen])

    @property
    def sides(self) -> Floats:
        """Width and height, in pixels, [M, 2]."""
        sides: Floats = self.corners[:, 2:] - self.corners[:, :2]
        return sides


@dataclass(frozen=True)
class AnchorSet:
    """The anchors of a pyramid, as of `detector.models.anchors.Anchors`."""

    strides: tuple[int, ...]
    """image pixels between cells, by level"""
    sizes: tuple[tuple[float, ...], ...]
    """square roots of the areas, in pixels, by level; the same number for each"""
    ratios: tuple[float, ...]
    """height / width, of every size"""
    offset: float = 0.0
    """where in its cell an anchor is centred, in strides"""

    @property
    def per_cell(self) -> int:
        """Anchors of a cell."""
        return len(self.sizes[0]) * len(self.ratios)

    def spread(self, sizes: Sequence[float]) -> AnchorSet:
        """Return this set with other sizes, the same number for each level, in order."""
        each = len(sizes) // len(self.strides)
        return replace(self, sizes=tuple(tuple(sizes[i : i + each]) for i in range(0, len(sizes), each)))


def distances(boxes: Boxes, stride: int, offset: float) -> Floats:
    """Compute how far each box's centre is from the nearest anchors' of a level, along x and y, in pixels, [M, 2]."""
    centres = (boxes.corners[:, :2] + boxes.corners[:, 2:]) / 2
    last = np.ceil(boxes.image_sizes[:, ::-1] / stride) - 1
    nearest = (np.clip(np.rint(centres / stride - offset), 0, last) + offset) * stride
    found: Floats = np.abs(centres - nearest)
    return found


def shape_ious(sides: Floats, away: Floats, size: float, ratio: float) -> Floats:
    """Compute the IoU of boxes with the best anchors of one shape on a level, the nearest: they overlap most.

    Args:
        sides: width and height of the boxes, [M, 2].
        away: `distances` on that level, [M, 2].
        size: square root of the anchor's area.
        ratio: its height / width.
    """
    anchor = size * np.array((ratio**-0.5, ratio**0.5))
    along = np.minimum(np.minimum(sides, anchor), np.maximum((sides + anchor) / 2 - away, 0))
    overlap = along[:, 0] * along[:, 1]
    ious: Floats = overlap / (sides[:, 0] * sides[:, 1] + size * size - overlap)
    return ious


def best_ious(boxes: Boxes, anchors: AnchorSet) -> Floats:
    """Compute the IoU of each box with the anchor that fits it best, of all in its image, [M]."""
    best = np.zeros(len(boxes.corners))
    for stride, sizes in zip(anchors.strides, anchors.sizes, strict=True):
        away = distances(boxes, stride, anchors.offset)
        for size, ratio in product(sizes, anchors.ratios):
            np.maximum(best, shape_ious(boxes.sides, away, size, ratio), out=best)
    return best


def recalls(ious: Floats, weights: Floats) -> tuple[float, float]:
    """Return the weight of the boxes whose best IoU with an anchor is at least 0.5, and at least 0.7."""
    return float(weights[ious >= MATCHED].sum()), float(weights[ious >= POSITIVE].sum())


def weighted_quantiles(values: Floats, weights: Floats, shares: Sequence[float]) -> list[float]:
    """Return the least values that, with all below them, have these shares of the weight."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    places = np.searchsorted(sums, np.asarray(shares) * sums[-1] * (1 - 1e-12))
    return [float(v) for v in values[order][np.minimum(places, len(values) - 1)]]
