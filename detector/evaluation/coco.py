"""Measure COCO's AP and AR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.accumulate import Accumulated, accumulate, limits
from detector.evaluation.collector import BOX, Collector
from detector.evaluation.comparison import LIMITS
from detector.evaluation.metric import Metric
from detector.evaluation.records import Kind

UNBOUNDED = 1e5**2
"""COCO's upper bound of an area, in square pixels."""


@dataclass(frozen=True)
class Curves:
    """The precision-recall curves of C classes at an IoU of 0.5, at the 101 recalls 0, 0.01, ..., 1."""

    precision: NDArray[np.float64]
    """[101, C]: interpolated, as COCO's AP averages it; 0 beyond the recall that is reached, -1 without objects"""
    scores: NDArray[np.float64]
    """[101, C]: the score from which on detections reach the recall"""
    objects: NDArray[np.int64]
    """[C]: objects that count, neither crowds nor ignored"""


class CocoMetric(Metric):
    """Measure AP and AR over IoU 0.5:0.95, by object size and by class, of boxes and of masks.

    The metrics are `box/AP box/AP50 box/AP75 box/APs box/APm box/APl box/AR1 box/AR10 box/AR100 box/ARs box/ARm
    box/ARl`, `box/AP/<class name>`, and the same under `mask/`, where the collector has an output with the key
    `segmentation` (under that output's name). COCO counts the 100 best detections of an image and class; where the
    collector's `limit` is higher, such as 500, `box/AP@500`, its kin up to `box/ARl@500`, and `box/AR@500` stand beside
    them. An object's size is that of its annotation's `area`; without one, the area of its mask, else of its box.

    In the mask metrics an object without a `segmentation` is ignored, as its mask is unknown: a detection of its box is
    neither a true nor a false positive.

    Attributes:
        curves: of the last `results`, under `box` and, where masks are measured, under the name of their output.
    """

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.curves: dict[str, Curves] = {}

    def areas(self) -> dict[str, tuple[float, float]]:
        """Return the ranges of areas of all, small, medium and large objects, in square pixels."""
        small, large = (side**2 for side in self.collector.size_bins)
        return {"all": (0, UNBOUNDED), "small": (0, small), "medium": (small, large), "large": (large, UNBOUNDED)}

    def results(self) -> dict[str, float]:
        """Measure AP and AR; see `Metric.results`."""
        if not self.collector.images:
            return {}
        masks = self.collector.output("segmentation")
        values = self._summary("box", BOX) | ({} if masks is None else self._summary("mask", masks.name))
        return {name: value for name, value in values.items() if value is not None}

    def _summary(self, kind: Kind, prefix: str) -> dict[str, float | None]:
        max_dets = limits(self.collector)
        found = accumulate(self.collector, kind, self.areas(), max_dets)
        self.curves[prefix] = _curves(found, self.collector.category_ids)
        values = {
            f"AR{limit}" if limit <= LIMITS[-1] else f"AR@{limit}": mean(found.recall[..., 0, m])
            for m, limit in enumerate(max_dets)
        }
        for place in range(max_dets.index(LIMITS[-1]), len(max_dets)):
            at = "" if max_dets[place] == LIMITS[-1] else f"@{max_dets[place]}"
            precision, recall = found.precision[..., place], found.recall[..., place]  # [IoU, (recall,) class, area]
            values |= {
                f"AP{at}": mean(precision[..., 0]),
                f"AP50{at}": mean(precision[found.thresholds == 0.5, ..., 0]),
                f"AP75{at}": mean(precision[found.thresholds == 0.75, ..., 0]),
                **{f"AP{size}{at}": mean(precision[..., area]) for area, size in enumerate("sml", 1)},
                **{f"AR{size}{at}": mean(recall[..., area]) for area, size in enumerate("sml", 1)},
            }
        precision = found.precision[..., 0, max_dets.index(LIMITS[-1])]
        for name, category in zip(self.collector.classes, self.collector.category_ids, strict=True):
            values[f"AP/{name}"] = mean(precision[..., found.category_ids.index(category)])
        return {f"{prefix}/{name}": value for name, value in values.items()}


def _curves(found: Accumulated, category_ids: Sequence[int]) -> Curves:
    """Take the curves of the classes in the order of `category_ids`."""
    half = int(np.flatnonzero(found.thresholds == 0.5)[0])
    places = [found.category_ids.index(category) for category in category_ids]
    precision, scores = (array[half][:, places, 0, -1] for array in (found.precision, found.scores))
    return Curves(precision, scores, found.objects[places])


def mean(values: NDArray[np.float64]) -> float | None:
    """Average without the -1 that pycocotools writes where there is no ground truth; None if nothing is left."""
    measured = values[values > -1]
    return float(np.mean(measured)) if len(measured) else None
