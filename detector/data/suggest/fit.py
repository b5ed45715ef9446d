"""Fit the sizes and ratios of anchors to a set of boxes.

Not by k-means, whose clusters know neither the levels nor their strides: an anchor of a coarse level is rarely centred
on a small object. All ladders of sizes within a range are tried on the real grid instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from detector.data.suggest.anchors import MATCHED, POSITIVE, AnchorSet, Boxes, distances, shape_ious, weighted_quantiles

SHAPES = ((1, 1), (1, 3), (2, 1), (2, 3), (2, 5))
"""Sizes of a level, and ratios, that are tried."""

GROWTHS = (1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0)
"""Factors from the sizes of one level to those of the next that are tried; 2 is FPN's."""

RATIO_FACTORS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Factors from one ratio to the next that are tried."""

SINGLE_LEVEL = 5
"""Steps of a ladder whose sizes are all on one level, as of C4."""

STEP = 2**0.125
"""Factor between the smallest sizes that are tried."""

ENOUGH = 0.01
"""Each further anchor of a cell must raise the score by this much."""


def fit(boxes: Boxes, present: AnchorSet) -> AnchorSet:
    """Fit sizes and ratios to boxes: the highest score, with as few anchors of a cell as reach it.

    The score is the mean of the recalls at 0.5 and 0.7, that at 0.5 counting twice: below it, an object has no good
    anchor at all. Sizes grow by one factor from each to the next, ratios by one factor around the median. The present
    anchors are returned where no others are better.
    """
    coverage = Coverage(boxes, present.strides, present.offset)
    fitted = [_fit(coverage, present, sizes, ratios) for sizes, ratios in SHAPES]
    return _best(coverage, present, *fitted)


def better(boxes: Boxes, present: AnchorSet, fitted: AnchorSet) -> AnchorSet:
    """Return the anchors with the higher score, by more boxes than they were fitted to."""
    return _best(Coverage(boxes, present.strides, present.offset), present, fitted)


def _best(coverage: Coverage, *candidates: AnchorSet) -> AnchorSet:
    """Return the anchors with the highest score, less what each anchor of a cell must bring."""
    return max(candidates, key=lambda anchors: coverage.score(anchors) - ENOUGH * anchors.per_cell)


class Coverage:
    """Score anchors on the same boxes; each shape is measured once.

    Args:
        boxes: the objects.
        strides: image pixels between cells, by level.
        offset: where in its cell an anchor is centred, in strides.
    """

    def __init__(self, boxes: Boxes, strides: Sequence[int], offset: float) -> None:
        self.boxes, self._sides = boxes, boxes.sides
        self._away = [distances(boxes, stride, offset) for stride in strides]
        self._known: dict[tuple[int, float, float], NDArray[np.bool_]] = {}

    def score(self, anchors: AnchorSet) -> float:
        """Return the mean of the recalls at 0.5, counting twice, and at 0.7."""
        shapes = (
            self._covered(level, size, ratio)
            for level, sizes in enumerate(anchors.sizes)
            for size, ratio in product(sizes, anchors.ratios)
        )
        matched, positive = np.logical_or.reduce(list(shapes))
        return float(2 * self.boxes.weights[matched].sum() + self.boxes.weights[positive].sum()) / 3

    def best(self, candidates: Iterable[AnchorSet]) -> AnchorSet:
        """Return the first of the anchors with the highest score."""
        return max(candidates, key=self.score)

    def _covered(self, level: int, size: float, ratio: float) -> NDArray[np.bool_]:
        """Return which boxes an anchor of this shape overlaps by `MATCHED`, and by `POSITIVE`, [2, M]."""
        shape = level, size, ratio
        if shape not in self._known:
            ious = shape_ious(self._sides, self._away[level], size, ratio)
            self._known[shape] = np.array((ious >= MATCHED, ious >= POSITIVE))
        return self._known[shape]


def _fit(coverage: Coverage, present: AnchorSet, sizes: int, ratios: int) -> AnchorSet:
    """Fit numbers of sizes of a level and of ratios, by turns."""
    anchors = _fit_sizes(coverage, present, sizes)
    for _ in range(2):
        anchors = coverage.best(replace(anchors, ratios=chosen) for chosen in _ratio_sets(coverage.boxes, ratios))
        anchors = _fit_sizes(coverage, anchors, sizes)
    return anchors


def _fit_sizes(coverage: Coverage, anchors: AnchorSet, each: int) -> AnchorSet:
    """Try all ladders of sizes in the range of the objects' sides.

    Args:
        coverage: of the objects.
        anchors: whose levels and ratios are kept. Where there is one level, it has all sizes of the ladder.
        each: sizes after which the ladder has grown by one of `GROWTHS`: those of a level.
    """
    boxes = coverage.boxes
    least, most = weighted_quantiles(np.sqrt(boxes.sides.prod(1)), boxes.weights, (0.02, 0.98))
    low = max(least / 2, 4.0)
    bases = low * STEP ** np.arange(math.ceil(math.log(max(2 * most / low, 1), STEP)) + 1)
    count = each * (len(anchors.strides) if len(anchors.strides) > 1 else SINGLE_LEVEL)
    ladders = {tuple(round(float(base) * g ** (i / each)) for i in range(count)) for g in GROWTHS for base in bases}
    return coverage.best(anchors.spread(ladder) for ladder in sorted(ladders))


def _ratio_sets(boxes: Boxes, count: int) -> list[tuple[float, ...]]:
    """Return sets of ratios that grow by one factor, around the median; around 1 where that is near."""
    median = weighted_quantiles(boxes.sides[:, 1] / boxes.sides[:, 0], boxes.weights, (0.5,))[0]
    median = 1.0 if abs(math.log(median)) < math.log(1.15) else median
    powers = range(-(count // 2), count // 2 + 1)
    return list(dict.fromkeys(tuple(float(f"{median * f**p:.2g}") for p in powers) for f in RATIO_FACTORS))
