"""Measure a run from its written predictions, with bootstrap intervals over the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.accumulate import Accumulated, accumulate_records
from detector.evaluation.bootstrap import Floats, Ints, average_precisions, mean_of_known, resample
from detector.evaluation.coco import UNBOUNDED, CocoMetric, mean
from detector.evaluation.collector import Collector, ImageId
from detector.evaluation.comparison import LIMITS
from detector.evaluation.matching import Matches, match
from detector.evaluation.predictions import detections_of
from detector.evaluation.records import Integers, Kind, detections, objects_of
from detector.masks import MaskOutput

SIDES = (0, 8, 16, 32, 64, 128, math.inf)
"""The edges of the fine size bins: the square root of an object's area, in pixels of the original image."""

Quantity = Callable[[Sequence[ImageId], Floats], Floats]
"""(the image of each of N boxes, boxes [N, 4] as x1, y1, x2, y2 in pixels of the original image) -> [N], at least 0"""


def bins() -> dict[str, tuple[float, float]]:
    """Return the fine size bins by name: two sides in pixels, the second excluded."""
    return {f"[{low:g},{high:g})": (low, high) for low, high in pairwise(SIDES)}


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval over the images."""

    value: float
    low: float | None
    high: float | None
    """None if the metric is NaN on every resample"""


@dataclass(frozen=True)
class Measured:
    """The metrics of one run: fractions in 0..1. Metrics without ground-truth objects are omitted.

    `AP AP50 AP75 APs APm APl` are COCO's, `AP@0.50` to `AP@0.95` AP at one IoU threshold, `AP[8,16)` and `AP50[8,16)`
    those of the objects of one size bin. `IoU` and `IoU[8,16)` are the mean IoU of matched objects with the detections
    that match them at IoU 0.5; which objects are matched depends on the run.
    """

    kind: Kind
    images: tuple[ImageId, ...]
    """the images measured, in order"""
    seed: int
    """of the resamples"""
    values: dict[str, float]
    samples: dict[str, Floats]
    """for each metric [B]: its value on each resample of the images; NaN where it would be omitted"""

    def estimates(self, confidence: float = 0.95) -> dict[str, Estimate]:
        """Return each metric with its percentile interval."""
        return {name: _estimate(value, self.samples[name], confidence) for name, value in self.values.items()}


@dataclass(frozen=True)
class MatchedObjects:
    """The N ground-truth objects that count (neither crowds nor ignored), with the IoU of their matches."""

    images: list[ImageId]
    categories: NDArray[np.int64]
    """[N]: the dataset's category ids"""
    areas: Floats
    """[N]: in square pixels of the original image"""
    boxes: Floats
    """[N, 4]: x1, y1, x2, y2 in pixels of the original image"""
    ious: Floats
    """[N]: the IoU with the detection that matches it at IoU 0.5; NaN without a match"""

    def __len__(self) -> int:
        return len(self.images)


def measure(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    kind: Kind = "box",
    size_bins: tuple[float, float] = (32, 96),
    seed: int = 0,
    resamples: int = 1000,
    limit: int = LIMITS[-1],
) -> Measured:
    """Measure every metric of one kind, on the images as they are and on bootstrap resamples of them.

    Resampling with replacement makes the precision curve noisier, and AP takes its upper envelope, so resampled APs are
    biased slightly upward; in paired differences the bias mostly cancels.

    Args:
        ground_truth: COCO's `images`, `annotations` and `categories`, as `DetectionDataset.ground_truth` returns them.
            All its images are measured.
        predictions: COCO's results format, as `read_predictions` returns it.
        kind: boxes or masks.
        size_bins: two sides in pixels, as `Collector` takes them.
        seed: of the resamples; runs are compared on the same ones.
        resamples: their number.
        limit: detections of an image and class that count, the best; COCO's 100 if it is less.

    Raises:
        ValueError: there are no images, or the predictions do not fit the ground truth.
    """
    collector = _collector(ground_truth, predictions, kind, size_bins)
    max_dets = [*LIMITS[:-1], max(limit, LIMITS[-1])]
    return measure_collected(collector, kind, seed, resamples, max_dets)


def measure_collected(
    collector: Collector,
    kind: Kind = "box",
    seed: int = 0,
    resamples: int = 1000,
    max_dets: Sequence[int] = LIMITS,
) -> Measured:
    """Measure every metric of one kind of a collector's detections; see `measure`.

    Args:
        collector, kind, seed, resamples: as there.
        max_dets: ascending numbers of detections of an image and class; AP is that of the last.
    """
    fine = {name: (low**2, _below(high)) for name, (low, high) in bins().items()}
    areas = CocoMetric(collector).areas() | fine
    known, found = objects_of(collector, kind), detections(collector, kind)
    precision = accumulate_records(collector, kind, areas, max_dets, known, found)
    matches = match(kind, known, found, list(areas.values()), max_dets[-1])
    images = collector.images
    repeats = resample(len(images), seed, resamples)
    resampled = average_precisions(matches, precision.category_ids, repeats)
    values, samples = _precisions(precision, list(areas), resampled)
    more_values, more_samples = _overlaps(_matched_objects(matches, images), images, repeats)
    return Measured(kind, tuple(images), seed, values | more_values, samples | more_samples)


def match_objects(
    ground_truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]], kind: Kind = "box"
) -> MatchedObjects:
    """Match ground-truth objects to detections at IoU 0.5; arguments and errors are those of `measure`.

    Where masks are matched, objects without a mask are left out.
    """
    collector = _collector(ground_truth, predictions, kind)
    known, found = objects_of(collector, kind), detections(collector, kind)
    return _matched_objects(match(kind, known, found, [(0, UNBOUNDED)]), collector.images)


def precision_by(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    quantity: Quantity,
    edges: Sequence[float],
    seed: int = 0,
    resamples: int = 1000,
) -> list[Estimate | None]:
    """Measure COCO's box AP in each of N ranges of a quantity of boxes, as COCO does in ranges of area.

    As with areas, an unmatched detection is a false positive in the range of its own box.

    Args:
        ground_truth, predictions, seed, resamples: as of `measure`, also the errors.
        quantity: computed for objects and detections.
        edges: N + 1, ascending; the upper edge of a range is excluded.

    Returns:
        N estimates; None for a range without an object.
    """
    collector = _collector(ground_truth, predictions, "box")
    images = collector.images
    known, found = objects_of(collector, "box"), detections(collector, "box")
    boxes = np.array([record["bbox"] for record in known], np.float64).reshape(-1, 4)
    places = np.array([record["image_id"] for record in known], np.int64)
    known = [r | {"area": float(q)} for r, q in zip(known, _quantities(quantity, images, places, boxes), strict=True)]
    found = replace(found, areas=_quantities(quantity, images, found.images, found.boxes))
    ranges = {str(i): (low, float(np.nextafter(high, 0))) for i, (low, high) in enumerate(pairwise(edges))}
    precision = accumulate_records(collector, "box", ranges, LIMITS, known, found)
    matches = match("box", known, found, list(ranges.values()))
    repeats = resample(len(images), seed, resamples)
    resampled = average_precisions(matches, precision.category_ids, repeats)
    estimates: list[Estimate | None] = []
    for place in range(len(ranges)):
        value = mean(precision.precision[..., place, -1])
        known_value = (
            None if value is None else _estimate(value, mean_of_known(resampled[..., place].mean(axis=1)), 0.95)
        )
        estimates.append(known_value)
    return estimates


def _quantities(quantity: Quantity, images: Sequence[ImageId], places: Integers, boxes: Floats) -> Floats:
    """Compute the quantity of boxes [N, 4] as x, y, width, height, of images by their places [N]."""
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)
    return quantity([images[place] for place in places.tolist()], corners)


def difference(a: Measured, b: Measured, confidence: float = 0.95) -> dict[str, Estimate]:
    """Subtract `b` from `a`, for each metric that both have, with the percentile interval of the paired bootstrap.

    Both are measured on the same resamples, so variation that the images cause in both cancels.

    Raises:
        ValueError: they differ in kind, images or resamples.
    """
    if a.images != b.images:
        only = sorted({str(i) for i in set(a.images) ^ set(b.images)})
        raise ValueError(f"runs can be compared on the same images only; one of them lacks {only[:5]} ({len(only)})")
    sizes = [len(next(iter(m.samples.values()), ())) for m in (a, b) if m.samples]
    if a.kind != b.kind or a.seed != b.seed or len(set(sizes)) > 1:
        one, other = ((m.kind, m.seed) for m in (a, b))
        raise ValueError(f"runs must be measured alike, but kind, seed and resamples are {one}, {other} and {sizes}")
    return {
        name: _estimate(value - b.values[name], a.samples[name] - b.samples[name], confidence)
        for name, value in a.values.items()
        if name in b.values
    }


def _estimate(value: float, samples: Floats, confidence: float) -> Estimate:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95, but is {confidence}")
    known = samples[~np.isnan(samples)]
    if not len(known):
        return Estimate(value, None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail]).tolist()
    return Estimate(value, low, high)


def _collector(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    kind: Kind,
    size_bins: tuple[float, float] = (32, 96),
) -> Collector:
    images = [image["id"] for image in ground_truth["images"]]
    if not images:
        raise ValueError("the ground truth has no images to measure on")
    category_ids = [category["id"] for category in ground_truth["categories"]]
    collector = Collector(ground_truth, category_ids, size_bins, [MaskOutput()] if kind == "mask" else [])
    collector.merge([detections_of(kind, predictions, images, category_ids)])
    return collector


def _below(side: float) -> float:
    """Return the largest area below the square of `side`, since pycocotools includes both ends of a range."""
    return float(np.nextafter(side**2, 0)) if side < math.inf else UNBOUNDED


def _precisions(
    accumulated: Accumulated, areas: Sequence[str], resampled: Floats
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Return APs by name, and on resamples.

    Args:
        accumulated: precision by IoU, recall, class, range of areas and number of detections, of which the last counts.
        areas: names of the ranges.
        resampled: [resample, IoU, class, range].
    """
    precision, thresholds = accumulated.precision[..., -1], accumulated.thresholds
    place = {name: area for area, name in enumerate(areas)}
    every = np.ones(len(thresholds), dtype=bool)
    metrics = {
        "AP": (every, "all"),
        "AP50": (thresholds == 0.5, "all"),
        "AP75": (thresholds == 0.75, "all"),
        **{f"AP{size[0]}": (every, size) for size in ("small", "medium", "large")},
        **{f"AP@{threshold:.2f}": (thresholds == threshold, "all") for threshold in thresholds},
        **{f"AP{name}": (every, name) for name in bins()},
        **{f"AP50{name}": (thresholds == 0.5, name) for name in bins()},
    }
    values: dict[str, float] = {}
    samples: dict[str, Floats] = {}
    for name, (chosen, area) in metrics.items():
        value = mean(precision[..., place[area]][chosen])
        if value is not None:
            values[name] = value
            samples[name] = mean_of_known(resampled[..., place[area]][:, chosen].mean(axis=1))
    return values, samples


def _overlaps(
    objects: MatchedObjects, images: Sequence[ImageId], repeats: Ints
) -> tuple[dict[str, float], dict[str, Floats]]:
    position = {image: i for i, image in enumerate(images)}
    own_image = np.array([position[image] for image in objects.images], dtype=np.int64)
    values: dict[str, float] = {}
    samples: dict[str, Floats] = {}
    for name, (low, high) in {"": (0.0, math.inf), **bins()}.items():
        own = ~np.isnan(objects.ious) & (objects.areas >= low**2) & (objects.areas < high**2)
        if not own.any():
            continue
        sums = np.bincount(own_image[own], objects.ious[own], minlength=len(position))
        counts = np.bincount(own_image[own], minlength=len(position))
        number = repeats @ counts
        values[f"IoU{name}"] = float(objects.ious[own].mean())
        nothing = np.full(len(repeats), np.nan)
        samples[f"IoU{name}"] = np.divide(repeats @ sums, number, out=nothing, where=number > 0)
    return values, samples


def _matched_objects(matches: Matches, images: Sequence[ImageId]) -> MatchedObjects:
    """Take the objects that count in the first range of areas, with their IoUs at the lowest threshold."""
    ious = np.full(len(matches.objects), math.nan)
    ious[matches.object[matches.object >= 0]] = matches.iou[matches.object >= 0]
    own = np.flatnonzero(~matches.ignored[0])
    records = [matches.objects[i] for i in own]
    boxes = np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return MatchedObjects(
        [images[record["image_id"]] for record in records],
        np.array([record["category_id"] for record in records], dtype=np.int64),
        np.array([record["area"] for record in records], dtype=np.float64),
        boxes,
        ious[own],
    )
