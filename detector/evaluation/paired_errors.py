"""Compare the errors of two runs on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.bootstrap import resample
from detector.evaluation.collector import Collector
from detector.evaluation.errors import KINDS, MISSED, NO_ERROR, Bools, Errors, find_errors
from detector.evaluation.measure import Estimate, Measured, difference
from detector.evaluation.records import Integers, Kind

SIZES = ("small", "medium", "large")

LOSING = ("classification", "localisation", "missed")
"""The kinds of error that keep an object from being found."""


@dataclass(frozen=True)
class PairedErrors:
    """The errors that two runs make on the same G objects."""

    first: Errors
    second: Errors
    differences: dict[str, Estimate]
    """for each kind of error: its cost in AP50 in the second run minus that in the first, a fraction, with the 95 %
    interval of the paired image bootstrap"""


@dataclass(frozen=True)
class FoundBy:
    """Numbers of objects by which of two runs find them."""

    both: int
    first: int
    """the first run only"""
    second: int
    """the second run only"""
    neither: int

    @property
    def objects(self) -> int:
        """The number of all objects."""
        return self.both + self.first + self.second + self.neither


def pair_errors(first: Collector, second: Collector, kind: Kind, seed: int = 0, resamples: int = 1000) -> PairedErrors:
    """Find the errors of two runs, and by how much the costs of each kind differ.

    Both are measured on the same resamples of the images, as by `detector.evaluation.measure.difference`.

    Args:
        first, second: the detections of each run, with the same ground truth.
        kind: boxes or masks.
        seed: of the resamples.
        resamples: their number.

    Raises:
        ValueError: there are no images, or the runs differ in images or in the objects that count.
    """
    one, other = find_errors(first, kind), find_errors(second, kind)
    if _places(one) != _places(other):
        counts = len(one.objects), len(other.objects)
        raise ValueError(f"the errors of two runs can be compared on the same objects only; these have {counts}")
    repeats = resample(len(first.images), seed, resamples)
    costs = [
        Measured(kind, tuple(collector.images), seed, errors.costs(), errors.resampled_costs(repeats))
        for collector, errors in ((first, one), (second, other))
    ]
    return PairedErrors(one, other, difference(costs[1], costs[0]))


def _places(errors: Errors) -> list[tuple[int, int, list[float]]]:
    return [(record["image_id"], record["category_id"], list(record["bbox"])) for record in errors.objects]


def outcomes(errors: Errors) -> Integers:
    """Return for each of the G objects NO_ERROR where a detection matches it, else the kind of error: int64 [G].

    That is the error of the detection that would match the object without it, of several the one with the highest
    score; MISSED where there is none.
    """
    result = np.full(len(errors.objects), MISSED)
    decisive = (errors.kind == NO_ERROR) | errors.mended
    result[errors.object[decisive]] = errors.kind[decisive]
    return result


def found_by(paired: PairedErrors, size_bins: tuple[float, float]) -> dict[str, FoundBy]:
    """Count the objects that both runs find, one of them, and neither: `all`, and by size.

    Args:
        paired: the errors of both.
        size_bins: two sides in pixels; an object on an edge is in the larger range, so that each is counted once.
    """
    first, second = (outcomes(errors) == NO_ERROR for errors in (paired.first, paired.second))
    areas = np.array([record["area"] for record in paired.first.objects], np.float64)
    size = np.searchsorted(np.square(size_bins), areas, side="right")
    counted = {"all": _found_by(first, second)}
    for place, name in enumerate(SIZES):
        counted[name] = _found_by(first[size == place], second[size == place])
    return counted


def _found_by(first: Bools, second: Bools) -> FoundBy:
    parts = (first & second, first & ~second, ~first & second, ~first & ~second)
    return FoundBy(*(int(np.count_nonzero(part)) for part in parts))


def errors_of_other(finder: Errors, other: Errors) -> dict[str, int]:
    """Count by kind the errors, as of `outcomes`, of another run on the objects that only `finder` finds."""
    kinds = outcomes(other)[outcomes(finder) == NO_ERROR]
    return {name: int(np.count_nonzero(kinds == KINDS.index(name))) for name in LOSING}
