"""Measure how well runs localise objects, by the quantisation error that RoIPool makes on each object."""

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
    """Objects of about the same error, and how well each run finds and localises them."""

    low: float
    high: float
    """smallest and largest error, as shares of the object's side"""
    median: float
    """the median error, likewise"""
    objects: int
    """their number"""
    threshold: float
    """the IoU of `recall`"""
    mean_iou: Mapping[str, Estimate]
    """by run: the mean IoU of the objects that are matched at IoU 0.5 with their detections"""
    recall: Mapping[str, Estimate]
    """by run: the share of the objects that are matched at IoU `threshold`"""
    ap: Mapping[str, Estimate] = field(default_factory=dict)
    """by run: COCO's box AP; empty where it was not measured"""


def measure_by_error(
    errors: Floats,
    images: Sequence[Hashable],
    ious: Mapping[str, Floats],
    parts: int = 10,
    threshold: float = 0.75,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Part]:
    """Sort objects by their error into parts of about equal number, and measure each run on each part.

    Objects of equal error stay in one part, so there may be fewer parts than asked for.

    Args:
        errors: [N], as shares of the object's side.
        images: [N], the image of each object; the bootstrap resamples images.
        ious: by run, [N]: the IoU with the detection that matches the object at IoU 0.5; NaN where none does.
        parts: number of parts.
        threshold: an object counts as found at an IoU >= this.
        resamples: number of bootstrap resamples; all runs and parts use the same ones.
        seed: seed of the bootstrap.

    Raises:
        ValueError: the lengths differ, or there are fewer objects than parts.
    """
    lengths = {"images": len(images)} | {name: len(values) for name, values in ious.items()}
    if any(length != len(errors) for length in lengths.values()):
        raise ValueError(f"there must be a value for each of {len(errors)} objects, but the lengths are {lengths}")
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
                median=float(np.median(share)),
                objects=len(chosen),
                threshold=threshold,
                mean_iou={r: _mean(v, ~np.isnan(v), place[chosen], weights) for r, v in own.items()},
                recall={
                    r: _mean((v >= threshold).astype(float), np.ones(len(v), bool), place[chosen], weights)
                    for r, v in own.items()
                },
            )
        )
    return result


def _mean(values: Floats, counted: NDArray[np.bool_], place: NDArray[np.int64], weights: Ints) -> Estimate:
    """Compute the mean of the counted values with its 95 % percentile interval.

    Args:
        values: [n].
        counted: [n].
        place: [n], the position of each value's image.
        weights: [resamples, images], how often each resample draws an image.
    """
    if not counted.any():
        return Estimate(math.nan, None, None)
    images = weights.shape[1]
    sums = np.bincount(place[counted], values[counted], images)
    drawn = weights @ np.bincount(place[counted], minlength=images)
    means = (weights @ sums)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(means, (0.025, 0.975)).tolist() if len(means) else (None, None)
    return Estimate(float(values[counted].mean()), low, high)
