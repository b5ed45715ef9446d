"""What the error costs: how well runs localise objects, by how far RoIPool would misplace them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.bootstrap import Floats, Ints, resample
from detector.evaluation.measure import Estimate


@dataclass(frozen=True)
class Part:
    """Objects of about the same error."""

    low: float
    high: float
    """of their errors, as shares of the object's side"""
    middle: float
    """the median"""
    objects: int
    threshold: float
    overlap: Mapping[str, Estimate]
    """by run: the mean IoU of the objects that were found at IoU 0.5"""
    found: Mapping[str, Estimate]
    """by run: the share of all objects that were found at IoU `threshold`"""
    precision: Mapping[str, Estimate] = field(default_factory=dict)
    """by run, where it was measured: AP"""


def by_error(
    errors: Floats,
    images: Sequence[Hashable],
    ious: Mapping[str, Floats],
    parts: int = 10,
    threshold: float = 0.75,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Part]:
    """Sort objects by their error into parts of about equal number, and measure each run on each.

    Objects of the same error are in the same part, so that there may be fewer parts.

    Args:
        errors: [N], as shares of the object's side.
        images: [N], the image of each object; images are what is resampled.
        ious: for each run [N]: the IoU of the object's match at IoU 0.5, NaN where it was not found.
        parts: their number.
        threshold: the IoU from which on an object counts as found.
        resamples: of the bootstrap; all runs and parts share them.
        seed: of the bootstrap.

    Raises:
        ValueError: the lengths differ; there are fewer objects than parts.
    """
    lengths = {"images": len(images)} | {name: len(values) for name, values in ious.items()}
    if any(length != len(errors) for length in lengths.values()):
        raise ValueError(f"there must be a value for each of {len(errors)} objects, not {lengths}")
    if not 1 <= parts <= len(errors):
        raise ValueError(f"{len(errors)} objects cannot be sorted into {parts} parts")
    names = {image: i for i, image in enumerate(dict.fromkeys(images))}
    place = np.array([names[image] for image in images])
    weights = resample(len(names), seed, resamples)
    result = []
    order = np.argsort(errors, kind="stable")
    lows = np.unique([errors[part[0]] for part in np.array_split(order, parts)])
    part_of = np.searchsorted(lows, errors[order], side="right") - 1
    for number in range(len(lows)):
        chosen = order[part_of == number]
        share = errors[chosen]
        own = {run: values[chosen] for run, values in ious.items()}
        result.append(
            Part(
                low=float(share.min()),
                high=float(share.max()),
                middle=float(np.median(share)),
                objects=len(chosen),
                threshold=threshold,
                overlap={r: _mean(v, ~np.isnan(v), place[chosen], weights) for r, v in own.items()},
                found={
                    r: _mean((v >= threshold).astype(float), np.ones(len(v), bool), place[chosen], weights)
                    for r, v in own.items()
                },
            )
        )
    return result


def _mean(values: Floats, counted: NDArray[np.bool_], place: NDArray[np.int64], weights: Ints) -> Estimate:
    """The mean of the counted values, with its 95 % percentile interval; `weights` [resamples, images]."""
    if not counted.any():
        return Estimate(math.nan, None, None)
    images = weights.shape[1]
    sums = np.bincount(place[counted], values[counted], images)
    drawn = weights @ np.bincount(place[counted], minlength=images)
    means = (weights @ sums)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(means, (0.025, 0.975)).tolist() if len(means) else (None, None)
    return Estimate(float(values[counted].mean()), low, high)
