"""Measure COCO's AP and AR with pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from detector.evaluation.collector import BOX, Collector, ImageId
from detector.evaluation.metric import Metric
from detector.run_lengths import from_segmentation

Kind = Literal["box", "mask"]
"""Boxes, or the masks of the output with the key `segmentation`."""

Records = dict[tuple[int, int], list[dict[str, Any]]]
"""Annotations or detections in pycocotools' form, by (position of the image, category id)."""

Quantity = Callable[[Sequence[ImageId], NDArray[np.float64]], NDArray[np.float64]]
"""(the image of each of N boxes, boxes [N, 4] as x1, y1, x2, y2 in pixels of the original image) -> [N], at least 0"""

SAME_BOX = 0.5
"""From this IoU of their boxes on, a detection is of an object whose mask is not known."""

UNBOUNDED = 1e5**2
"""COCO's upper bound of an area, in square pixels."""


class Comparison(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """Run pycocotools' evaluation on records instead of files.

    pycocotools' own loading is not used: it overwrites `ignore` with `iscrowd`, takes a match with the annotation of id
    0 for no match, and fails without detections. Its matching and accumulation are used unchanged. `evalImgs` and
    `eval` are as pycocotools documents them; an `image_id` in them is a position in `images`. `truths` holds the
    ground-truth records in the order of the columns of `ious`. Where a record has `unknown`, its mask is not known: it
    overlaps entirely with detections whose box has at least `SAME_BOX` IoU with its own, and with no others.
    """

    def __init__(
        self,
        kind: Kind,
        images: list[ImageId],
        category_ids: list[int],
        areas: Mapping[str, tuple[float, float]],
        truths: Records,
        detections: Records,
    ) -> None:
        super().__init__(iouType="bbox" if kind == "box" else "segm")
        self.images = images
        self.truths = truths
        self._records = truths, detections
        self.params.imgIds = list(range(len(images)))
        self.params.catIds = category_ids
        self.params.areaRngLbl = list(areas)
        self.params.areaRng = [list(area) for area in areas.values()]
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()
            self.accumulate()

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Compute the IoU of detections, best first, and ground truth."""
        ious = super().computeIoU(imgId, catId)
        truths = self._gts[imgId, catId]
        unknown = [column for column, record in enumerate(truths) if record.get("unknown")]
        if unknown and len(ious):
            found = sorted(self._dts[imgId, catId], key=lambda record: -record["score"])[: len(ious)]
            boxes = [np.array([r["bbox"] for r in records], np.float64) for records in (found, truths)]
            same = coco_mask.iou(boxes[0], boxes[1][unknown], [0] * len(unknown)) >= SAME_BOX
            ious[:, unknown] = same
        return ious

    def _prepare(self) -> None:
        truths, detections = self._records
        self._gts = defaultdict(list, truths)
        self._dts = defaultdict(list, detections)


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
    `segmentation` (under that output's name). An object's size is that of its annotation's `area`; without one, the
    area of its mask, else of its box.

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

    def compare(
        self, kind: Kind, areas: Mapping[str, tuple[float, float]] | None = None, quantity: Quantity | None = None
    ) -> Comparison:
        """Match detections to ground truth per image, and accumulate precision by IoU, recall, class and area.

        Args:
            kind: boxes or masks.
            areas: named ranges of areas in square pixels; None: those of the size bins.
            quantity: replaces the area of ground truth and detections; None: the area.
        """
        images = self.collector.images
        truths, detections = self._ground_truth(kind, images), self._detections(kind, images)
        if quantity is not None:
            for records in (truths, detections):
                _replace_areas(records, images, quantity)
        return Comparison(kind, images, self.collector.category_ids, areas or self.areas(), truths, detections)

    def results(self) -> dict[str, float]:
        """Measure AP and AR; see `Metric.results`."""
        if not self.collector.images:
            return {}
        masks = self.collector.output("segmentation")
        values = self._summary("box", BOX) | ({} if masks is None else self._summary("mask", masks.name))
        return {name: value for name, value in values.items() if value is not None}

    def _summary(self, kind: Kind, prefix: str) -> dict[str, float | None]:
        comparison = self.compare(kind)
        precision: NDArray[np.float64] = comparison.eval["precision"]  # [IoU, recall, class, area, most detections]
        recall: NDArray[np.float64] = comparison.eval["recall"]  # [IoU, class, area, most detections]
        thresholds = comparison.params.iouThrs
        self.curves[prefix] = _curves(comparison, self.collector.category_ids)
        values = {
            "AP": mean(precision[..., 0, 2]),
            "AP50": mean(precision[thresholds == 0.5, ..., 0, 2]),
            "AP75": mean(precision[thresholds == 0.75, ..., 0, 2]),
            **{f"AP{size}": mean(precision[..., area, 2]) for area, size in enumerate("sml", 1)},
            **{f"AR{most}": mean(recall[..., 0, m]) for m, most in enumerate(comparison.params.maxDets)},
            **{f"AR{size}": mean(recall[..., area, 2]) for area, size in enumerate("sml", 1)},
        }
        places = {category: place for place, category in enumerate(comparison.params.catIds)}
        for name, category in zip(self.collector.classes, self.collector.category_ids, strict=True):
            values[f"AP/{name}"] = mean(precision[:, :, places[category], 0, 2])
        return {f"{prefix}/{name}": value for name, value in values.items()}

    def _ground_truth(self, kind: Kind, images: list[ImageId]) -> Records:
        records: Records = defaultdict(list)
        number = 0
        for position, image in enumerate(images):
            for annotation in self.collector.annotations(image):
                number += 1  # from 1: pycocotools takes a match with id 0 for no match
                crowd = int(bool(annotation.get("iscrowd", 0)))
                record = {
                    "id": number,
                    "bbox": annotation["bbox"],
                    "iscrowd": crowd,
                    "ignore": int(crowd or bool(annotation.get("ignore", 0))),
                }
                rle = self._segmentation(annotation) if kind == "mask" or "area" not in annotation else None
                record["area"] = annotation["area"] if "area" in annotation else _area(rle, annotation["bbox"])
                if kind == "mask":
                    record["segmentation"] = rle or self._rectangle(annotation)
                    record["unknown"] = rle is None and not crowd
                    record["ignore"] = int(record["ignore"] or rle is None)
                records[position, annotation["category_id"]].append(record)
        return records

    def _segmentation(self, annotation: Mapping[str, Any]) -> Any:
        """Return the run-length code of an annotation's polygons or run lengths; None if it has neither."""
        segmentation = annotation.get("segmentation")
        if not segmentation:
            return None
        image = self.collector.image(annotation["image_id"])
        size = image["height"], image["width"]
        if isinstance(segmentation, list):
            segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
            return from_segmentation(segmentation, size) if segmentation else None
        if tuple(segmentation["size"]) != size:
            raise ValueError(
                f"the mask of annotation {annotation.get('id')} has the size {segmentation['size']}, "
                f"but its image {image['id']!r} {list(size)} (height, width)"
            )
        return from_segmentation(segmentation, size)

    def _rectangle(self, annotation: Mapping[str, Any]) -> Any:
        image = self.collector.image(annotation["image_id"])
        box = np.array([annotation["bbox"]], dtype=np.float64)
        return coco_mask.frPyObjects(box, image["height"], image["width"])[0]

    def _detections(self, kind: Kind, images: list[ImageId]) -> Records:
        masks = self.collector.output("segmentation") if kind == "mask" else None
        records: Records = defaultdict(list)
        number = 0
        for position, image in enumerate(images):
            found = self.collector.detections(image)
            boxes = found.boxes.tolist()
            rles = [None] * len(boxes) if masks is None else found.shapes[masks.name]
            for box, rle, label, score in zip(boxes, rles, found.labels.tolist(), found.scores.tolist(), strict=True):
                number += 1
                record = {"id": number, "bbox": box, "score": score, "area": _area(rle, box), "segmentation": rle}
                records[position, self.collector.category_ids[label]].append(record)
        return records


def _curves(comparison: Comparison, category_ids: Sequence[int]) -> Curves:
    """Take the curves of the classes in the order of `category_ids`; pycocotools has sorted them."""
    half = int(np.flatnonzero(comparison.params.iouThrs == 0.5)[0])
    places = [list(comparison.params.catIds).index(category) for category in category_ids]
    precision, scores = (comparison.eval[name][half][:, places, 0, -1] for name in ("precision", "scores"))
    objects = dict.fromkeys(category_ids, 0)
    for (_, category), records in comparison.truths.items():
        if category in objects:
            objects[category] += sum(not record["ignore"] for record in records)
    return Curves(precision, scores, np.array(list(objects.values()), np.int64))


def _replace_areas(records: Records, images: list[ImageId], quantity: Quantity) -> None:
    own = [(images[position], record) for (position, _), group in records.items() for record in group]
    boxes = np.array([record["bbox"] for _, record in own], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    for (_, record), value in zip(own, quantity([image for image, _ in own], boxes), strict=True):
        record["area"] = float(value)


def _area(rle: Any, box: list[float]) -> float:
    return box[2] * box[3] if rle is None else float(coco_mask.area(rle))


def mean(values: NDArray[np.float64]) -> float | None:
    """Average without the -1 that pycocotools writes where there is no ground truth; None if nothing is left."""
    measured = values[values > -1]
    return float(np.mean(measured)) if len(measured) else None
