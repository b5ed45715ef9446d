"""Measure PASCAL VOC's mAP: average precision of boxes at IoU 0.5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.evaluation.metric import Metric
from detector.evaluation.records import Floats, Found, Integers, Record, detections, truths

PAIRS = 2**20
"""About how many pairs of a detection and an object are compared at once."""

MATCH = 0.5
"""A detection matches an object at an IoU >= this."""


class VocMetric(Metric):
    """Measure mean average precision as the VOC development kit (`VOCevaldet.m`) does.

    `voc/mAP` and `voc/AP/<class name>` are VOC 2007's: the mean, over the recalls 0, 0.1, ..., 1, of the highest
    precision at that recall or above. `voc/mAP_area` is VOC 2010's: the area under the monotone precision-recall curve.
    Classes without an object that counts are left out of the means.

    Detections of a class are taken by descending score; each is assigned to the object of its image with the highest
    IoU. It is a false positive below an IoU of 0.5, or if that object is already matched, and ignored if the object is
    difficult or a crowd.

    The kit's boxes are whole pixels, from 1, both ends included, of width x2 - x1 + 1. In this project's continuous
    coordinates the pixels xmin..xmax are the box (xmin - 1, xmax), whose plain width is that very number, so the plain
    IoU of continuous boxes is the kit's.
    """

    def results(self) -> dict[str, float]:
        """Measure mAP and the AP of each class; see `Metric.results`."""
        eleven: dict[str, float] = {}
        area: list[float] = []
        for name, curve in zip(self.collector.classes, self.curves(), strict=True):
            if curve is not None:
                eleven[f"voc/AP/{name}"] = eleven_points(*curve)
                area.append(area_under(*curve))
        if not eleven:
            return {}
        means = {"voc/mAP": float(np.mean(list(eleven.values()))), "voc/mAP_area": float(np.mean(area))}
        return means | eleven

    def curves(self) -> list[tuple[Floats, Floats] | None]:
        """Return each class's recall and precision [N] after each detection by descending score; None without objects.

        Detections that are ignored are left out.
        """
        found, objects = detections(self.collector, "box"), truths(self.collector, "box")
        categories = np.array([record["category_id"] for record in objects], np.int64)
        ignored = np.array([record["ignore"] for record in objects], bool)
        order = np.argsort(-found.scores, kind="stable")
        best, overlap = _best(found, objects, categories)
        best, matches, category = best[order], overlap[order] >= MATCH, found.categories[order]
        hits = np.zeros(len(order), bool)
        first = np.unique(best[matches], return_index=True)[1]  # of each object, the detection of the highest score
        hits[np.flatnonzero(matches)[first]] = True
        counts = ~matches
        counts[matches] = ~ignored[best[matches]]
        curves: list[tuple[Floats, Floats] | None] = []
        for own in self.collector.category_ids:
            total = np.count_nonzero(~ignored[categories == own])
            true = hits[counts & (category == own)].cumsum(dtype=np.float64)
            curves.append((true / total, true / np.arange(1, len(true) + 1)) if total else None)
        return curves


def _best(found: Found, objects: Sequence[Record], categories: Integers) -> tuple[Integers, Floats]:
    """Return which object of its image and class each detection overlaps most, and their IoU; -1 and 0 without one.

    Of several that it overlaps alike, the first one.
    """
    boxes = np.array([record["bbox"] for record in objects], np.float64).reshape(-1, 4)
    images = np.array([record["image_id"] for record in objects], np.int64)
    classes, number = np.unique(np.concatenate((categories, found.categories)), return_inverse=True)
    keys = np.concatenate((images, found.images)) * len(classes) + number
    order = np.argsort(keys[: len(objects)], kind="stable")
    sought = keys[len(objects) :]
    start, end = (np.searchsorted(keys[: len(objects)][order], sought, side) for side in ("left", "right"))
    pairs = np.cumsum(end - start)
    best, overlap = np.full(len(sought), -1), np.zeros(len(sought))
    low = 0
    while low < len(sought):  # a part of the detections at a time
        seen = pairs[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(pairs, seen + PAIRS, "right")))
        count = (end - start)[low:high]
        detection = np.repeat(np.arange(low, high), count)
        first = count.cumsum() - count
        candidate = order[start[detection] + np.arange(len(detection)) - np.repeat(first, count)]
        ious = _iou(found.boxes[detection], boxes[candidate])
        own = low + np.flatnonzero(count)
        if len(own):
            overlap[own] = np.maximum.reduceat(ious, first[count > 0])
            largest = np.where(ious == overlap[detection], np.arange(len(ious)), len(ious))
            best[own] = candidate[np.minimum.reduceat(largest, first[count > 0])]
        low = high
    return best, overlap


def _iou(boxes: Floats, others: Floats) -> Floats:
    """Compute the IoU [N] of N pairs of boxes, [N, 4] each: x, y, width, height."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=-1)
    union = np.prod(boxes[:, 2:], axis=-1) + np.prod(others[:, 2:], axis=-1) - inter
    ratio: Floats = np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
    return ratio


def eleven_points(recall: Floats, precision: Floats) -> float:
    """Compute VOC 2007's average precision.

    The recalls are multiples of 0.1 in double precision, of which 0.3, 0.6 and 0.7 lie one rounding above these
    numbers. How MATLAB's 0:0.1:1 rounds in the kit is not known here: where a recall is such a level, the next one's
    precision may count, which made a difference of 3.2 points in a class of few objects.
    """
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in np.arange(11) * 0.1]))


def area_under(recall: Floats, precision: Floats) -> float:
    """Compute VOC 2010's average precision: the area under the curve, made monotone from the right."""
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * monotone))
