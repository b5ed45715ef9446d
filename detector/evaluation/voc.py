"""Measure PASCAL VOC's mAP: average precision of boxes at IoU 0.5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.collector import ImageId
from detector.evaluation.metric import Metric

Floats = NDArray[np.float64]

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
        for label, name in enumerate(self.collector.classes):
            curve = self.curve(label)
            if curve is not None:
                eleven[f"voc/AP/{name}"] = eleven_points(*curve)
                area.append(area_under(*curve))
        if not eleven:
            return {}
        means = {"voc/mAP": float(np.mean(list(eleven.values()))), "voc/mAP_area": float(np.mean(area))}
        return means | eleven

    def curve(self, label: int) -> tuple[Floats, Floats] | None:
        """Return a class's recall and precision [N] after each detection by descending score; None without objects."""
        scores: list[float] = []
        hits: list[bool] = []
        counted = 0
        for image in self.collector.images:
            found = self.collector.detections(image)
            own = found.labels == label
            objects, difficult = self._ground_truth(image, label)
            counted += int((~difficult).sum())
            order = np.argsort(-found.scores[own], kind="stable")
            for detection, hit in zip(order, _assign(found.boxes[own][order], objects, difficult), strict=True):
                if hit is not None:
                    scores.append(found.scores[own][detection])
                    hits.append(hit)
        if not counted:
            return None
        true = np.array(hits, dtype=bool)[np.argsort(-np.array(scores), kind="stable")].cumsum(dtype=np.float64)
        return true / counted, true / np.arange(1, len(true) + 1)

    def _ground_truth(self, image: ImageId, label: int) -> tuple[Floats, NDArray[np.bool_]]:
        category = self.collector.category_ids[label]
        own = [a for a in self.collector.annotations(image) if a["category_id"] == category]
        boxes = np.array([a["bbox"] for a in own], dtype=np.float64).reshape(-1, 4)
        return boxes, np.array([bool(a.get("ignore", 0) or a.get("iscrowd", 0)) for a in own], dtype=bool)


def _iou(boxes: Floats, others: Floats) -> Floats:
    """Compute the IoU [N, M] of boxes [N, 4] and [M, 4], as x, y, width, height."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    inter = np.prod(np.maximum(high - low, 0), axis=-1)
    union = np.prod(boxes[:, 2:], axis=-1)[:, None] + np.prod(others[:, 2:], axis=-1)[None] - inter
    ratio: Floats = np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
    return ratio


def _assign(detections: Floats, objects: Floats, difficult: NDArray[np.bool_]) -> Sequence[bool | None]:
    """Label the detections of one image and class, best first: true positive, false positive, or None for ignored."""
    if not len(objects):
        return [False] * len(detections)
    overlaps = _iou(detections, objects)
    found = np.zeros(len(objects), dtype=bool)
    hits: list[bool | None] = []
    for overlap, best in zip(overlaps.max(1), overlaps.argmax(1), strict=True):
        if overlap < MATCH:
            hits.append(False)
        elif difficult[best]:
            hits.append(None)
        else:
            hits.append(not found[best])
            found[best] = True
    return hits


def eleven_points(recall: Floats, precision: Floats) -> float:
    """Compute VOC 2007's average precision; the recalls are 0:0.1:1 in double precision, as in the kit."""
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in np.arange(11) * 0.1]))


def area_under(recall: Floats, precision: Floats) -> float:
    """Compute VOC 2010's average precision: the area under the curve, made monotone from the right."""
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * monotone))
