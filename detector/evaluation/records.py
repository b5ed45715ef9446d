"""Read a collector's objects and detections as the records that pycocotools compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detector.evaluation.collector import Collector
from detector.run_lengths import from_segmentation

Kind = Literal["box", "mask"]
"""Boxes, or the masks of the output with the key `segmentation`."""

Record = dict[str, Any]
"""An annotation or a detection in pycocotools' form; its `image_id` is the image's position in the collector's."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def truths(collector: Collector, kind: Kind) -> list[Record]:
    """List the ground-truth objects of a collector's images, numbered from 1.

    Where masks are compared, `unknown` tells that an object has none: it is ignored.
    """
    found: list[Record] = []
    for position, image in enumerate(collector.images):
        for annotation in collector.annotations(image):
            crowd = int(bool(annotation.get("iscrowd", 0)))
            record = {
                "id": len(found) + 1,  # pycocotools takes a match with id 0 for no match
                "image_id": position,
                "category_id": annotation["category_id"],
                "bbox": annotation["bbox"],
                "iscrowd": crowd,
                "ignore": int(crowd or bool(annotation.get("ignore", 0))),
            }
            code = _segmentation(collector, annotation) if kind == "mask" or "area" not in annotation else None
            record["area"] = annotation["area"] if "area" in annotation else _area(code, annotation["bbox"])
            if kind == "mask":
                record["segmentation"] = code or _rectangle(collector, annotation)
                record["unknown"] = code is None and not crowd
                record["ignore"] = int(record["ignore"] or code is None)
            found.append(record)
    return found


def objects_of(collector: Collector, kind: Kind) -> list[Record]:
    """List the `truths` that are of the collector's classes."""
    known = set(collector.category_ids)
    return [record for record in truths(collector, kind) if record["category_id"] in known]


@dataclass(frozen=True)
class Found:
    """The N detections of a collector's images, image by image, as columns."""

    images: Integers
    """[N]: the position of each detection's image in the collector's"""
    boxes: Floats
    """[N, 4]: x, y, width, height in pixels of the original image"""
    scores: Floats
    """[N]"""
    categories: Integers
    """[N]: the dataset's category ids"""
    areas: Floats
    """[N]: of the box or, where masks are compared, of the mask, in square pixels"""
    codes: list[Any] | None
    """[N]: the masks' run-length codes; None where boxes are compared"""

    def take(self, chosen: Integers) -> Found:
        """Return the detections at these positions, in their order."""
        codes = None if self.codes is None else [self.codes[i] for i in chosen]
        images, boxes, scores = self.images[chosen], self.boxes[chosen], self.scores[chosen]
        return Found(images, boxes, scores, self.categories[chosen], self.areas[chosen], codes)

    def records(self) -> list[Record]:
        """List them as pycocotools takes them, numbered from 1."""
        codes = self.codes or [None] * len(self.images)
        columns = (self.images, self.boxes, self.scores, self.categories, self.areas)
        names = ("image_id", "bbox", "score", "category_id", "area")
        return [
            {"id": number, **dict(zip(names, row, strict=True)), "segmentation": code}
            for number, (*row, code) in enumerate(zip(*(c.tolist() for c in columns), codes, strict=True), 1)
        ]


def detections(collector: Collector, kind: Kind) -> Found:
    """Return the detections of a collector's images."""
    found = [collector.detections(image) for image in collector.images]
    boxes = np.concatenate([np.zeros((0, 4)), *(own.boxes for own in found)])
    labels = np.concatenate([np.zeros(0, np.int64), *(own.labels for own in found)])
    masks = collector.output("segmentation") if kind == "mask" else None
    codes = None if masks is None else [code for own in found for code in own.shapes[masks.name]]
    return Found(
        np.repeat(np.arange(len(found)), [len(own.labels) for own in found]),
        boxes,
        np.concatenate([np.zeros(0), *(own.scores for own in found)]),
        np.array(collector.category_ids, np.int64)[labels],
        boxes[:, 2] * boxes[:, 3] if codes is None else np.array([coco_mask.area(code) for code in codes], np.float64),
        codes,
    )


def _segmentation(collector: Collector, annotation: Mapping[str, Any]) -> Any:
    """Return the run-length code of an annotation's polygons or run lengths; None if it has neither."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return None
    image = collector.image(annotation["image_id"])
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


def _rectangle(collector: Collector, annotation: Mapping[str, Any]) -> Any:
    image = collector.image(annotation["image_id"])
    box = np.array([annotation["bbox"]], dtype=np.float64)
    return coco_mask.frPyObjects(box, image["height"], image["width"])[0]


def _area(code: Any, box: list[float]) -> float:
    return box[2] * box[3] if code is None else float(coco_mask.area(code))
