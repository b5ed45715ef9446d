"""Measure how well anchors cover a set of boxes, and fit their sizes and ratios to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detector.data.annotations import Floats

GROWTHS = tuple(np.linspace(1.4, 2.0, 7).round(2).tolist())
"""Factors from the sizes of one level to those of the next that are tried; 2 is FPN's."""

STEP = 2**0.125
"""Factor between the smallest sizes that are tried."""

RATIO_FACTORS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Factors from one ratio to the next that are tried."""

MATCHED, POSITIVE = 0.5, 0.7
"""IoU at which a detection counts in AP50, and from which an anchor is positive (Faster R-CNN, section 3.1.2)."""

SHAPES = ((1, 1), (1, 3), (2, 1), (2, 3), (2, 5))
"""Sizes of a level, and ratios, that are tried."""

ENOUGH = 0.01
"""Each further anchor of a cell must raise the score by this much."""


@dataclass(frozen=True)
class Boxes:
    """Boxes in pixels of the resized images. M boxes."""

    corners: Floats
    """x1, y1, x2, y2, [M, 4]"""
    image_sizes: Floats
    """height and width of each box's image, padded, [M, 2]"""
    weights: Floats
    """how much each counts, [M]; with the sum 1"""

    def sample(self, count: int, seed: int = 0) -> Boxes:
        """Return at most `count` boxes, drawn at random without repetition, in their order."""
        if len(self.corners) <= count:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.corners), count, replace=False))
        weights = self.weights[chosen]
        return Boxes(self.corners[chosen], self.image_sizes[chosen], weights / weights.sum())


@dataclass(frozen=True)
class AnchorSet:
    """The anchors of a pyramid, as of `detector.models.anchors.Anchors`."""

    strides: tuple[int, ...]
    """image pixels between cells, by level"""
    sizes: tuple[tuple[float, ...], ...]
    """square roots of the areas, in pixels, by level"""
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


def best_ious(boxes: Boxes, anchors: AnchorSet) -> Floats:
    """Compute the IoU of each box with the anchor that fits it best, of all in its image, [M].

    Only the anchor of each shape whose centre lies nearest need be looked at: it overlaps most along either axis.
    """
    best = np.zeros(len(boxes.corners))
    low, high = boxes.corners[:, :2], boxes.corners[:, 2:]
    sides = high - low
    areas = sides.prod(1)
    for stride, sizes in zip(anchors.strides, anchors.sizes, strict=True):
        last = np.ceil(boxes.image_sizes[:, ::-1] / stride) - 1
        cell = np.clip(np.rint((low + high) / 2 / stride - anchors.offset), 0, last)
        centre = (cell + anchors.offset) * stride
        for size in sizes:
            for ratio in anchors.ratios:
                half = size * np.array((ratio**-0.5, ratio**0.5)) / 2
                overlap = (np.minimum(high, centre + half) - np.maximum(low, centre - half)).clip(0).prod(1)
                np.maximum(best, overlap / (areas + size * size - overlap), out=best)
    return best


def recalls(boxes: Boxes, anchors: AnchorSet) -> tuple[float, float]:
    """Return the weight of the boxes that an anchor overlaps with an IoU of at least 0.5, and of 0.7."""
    ious = best_ious(boxes, anchors)
    return float(boxes.weights[ious >= MATCHED].sum()), float(boxes.weights[ious >= POSITIVE].sum())


def score(boxes: Boxes, anchors: AnchorSet) -> float:
    """Return the mean of the recalls, that at 0.5 counting twice: below it, an object has no good anchor at all."""
    low, high = recalls(boxes, anchors)
    return (2 * low + high) / 3


def fit(boxes: Boxes, present: AnchorSet) -> AnchorSet:
    """Fit sizes and ratios to boxes: the highest score, with as few anchors of a cell as reach it.

    Sizes grow by one factor from each to the next, ratios by one factor around the median.
    """
    several = len(present.sizes[0]) if len(present.strides) == 1 else 1
    fitted = [_fit(boxes, present, sizes * several, ratios) for sizes, ratios in SHAPES]
    return max((present, *fitted), key=lambda anchors: score(boxes, anchors) - ENOUGH * anchors.per_cell)


def _fit(boxes: Boxes, present: AnchorSet, sizes: int, ratios: int) -> AnchorSet:
    """Fit numbers of sizes of a level and of ratios, by turns."""
    anchors = _fit_sizes(boxes, present, sizes)
    for _ in range(2):
        anchors = _best(boxes, [replace(anchors, ratios=chosen) for chosen in _ratio_sets(boxes, ratios)])
        anchors = _fit_sizes(boxes, anchors, sizes)
    return anchors


def _best(boxes: Boxes, candidates: Iterable[AnchorSet]) -> AnchorSet:
    return max(candidates, key=lambda candidate: score(boxes, candidate))


def _fit_sizes(boxes: Boxes, anchors: AnchorSet, each: int) -> AnchorSet:
    side = np.sqrt((boxes.corners[:, 2:] - boxes.corners[:, :2]).prod(1))
    least, most = weighted_quantiles(side, boxes.weights, (0.02, 0.98))
    count, low = each * len(anchors.strides), max(least / 2, 4.0)
    bases = low * STEP ** np.arange(math.ceil(math.log(max(2 * most / low, 1), STEP)) + 1)
    growths = [growth ** (len(anchors.strides) / count) for growth in GROWTHS]
    ladders = [tuple(round(float(base) * growth**i) for i in range(count)) for growth in growths for base in bases]
    return _best(boxes, (anchors.spread(ladder) for ladder in dict.fromkeys(ladders)))


def _ratio_sets(boxes: Boxes, count: int) -> list[tuple[float, ...]]:
    """Return sets of ratios that grow by one factor, around the median."""
    sides = boxes.corners[:, 2:] - boxes.corners[:, :2]
    median = weighted_quantiles(sides[:, 1] / sides[:, 0], boxes.weights, (0.5,))[0]
    median = 1.0 if abs(math.log(median)) < math.log(1.15) else median
    powers = range(-(count // 2), count // 2 + 1)
    return list(dict.fromkeys(tuple(float(f"{median * f**p:.2g}") for p in powers) for f in RATIO_FACTORS))


def weighted_quantiles(values: Floats, weights: Floats, shares: Sequence[float]) -> list[float]:
    """Return the least values that, with all below them, have these shares of the weight."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    places = np.searchsorted(sums, np.asarray(shares) * sums[-1] * (1 - 1e-12))
    return [float(v) for v in values[order][np.minimum(places, len(values) - 1)]]
