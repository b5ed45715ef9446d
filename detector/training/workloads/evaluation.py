"""Measure the metrics of many detections: COCO's of boxes and of masks, and VOC's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from detector.evaluation import CocoMetric, Collector, VocMetric
from detector.evaluation.collector import ImageDetections
from detector.masks import MaskOutput

HEIGHT, WIDTH, CLASSES, DETECTIONS = 480, 640, 80, 100


def codes(boxes: np.ndarray) -> list[Any]:
    """Encode an ellipse in each box [N, 4], of x, y, width, height."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = np.stack((np.cos(angles), np.sin(angles)), 1) / 2 + 0.5
    polygons = boxes[:, None, :2] + circle * boxes[:, None, 2:]
    encoded: list[Any] = coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], HEIGHT, WIDTH)
    return encoded


def drawn(images: int, masks: bool) -> tuple[dict[str, list[dict[str, Any]]], dict[int | str, ImageDetections]]:
    """Draw COCO's truth, 7.3 objects an image of which a hundredth are crowds, and 100 detections of each image."""
    draw = np.random.default_rng(0)
    truth: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(images)],
        "annotations": [],
        "categories": [{"id": label + 1, "name": str(label)} for label in range(CLASSES)],
    }
    found: dict[int | str, ImageDetections] = {}
    for image in range(images):
        count = draw.poisson(7.3)
        boxes = np.concatenate((draw.uniform(0, 280, (count, 2)), draw.uniform(5, 200, (count, 2))), 1)
        labels = draw.integers(0, CLASSES, count)
        shapes = codes(boxes) if masks and count else [None] * count
        for box, label, shape in zip(boxes.tolist(), labels.tolist(), shapes, strict=True):
            one = {"id": len(truth["annotations"]) + 1, "image_id": image, "category_id": label + 1, "bbox": box}
            one |= {"iscrowd": int(draw.random() < 0.01), "area": box[2] * box[3]}
            truth["annotations"].append(one | ({"segmentation": shape} if masks else {}))
        near = draw.integers(0, max(count, 1), DETECTIONS)
        moved = boxes[near] if count else draw.uniform(5, 100, (DETECTIONS, 4))
        moved = moved + draw.normal(0, 8, moved.shape)
        moved[:, 2:] = np.maximum(moved[:, 2:], 4)
        own = (draw.random(DETECTIONS) < 0.3) & (count > 0)
        given = np.where(own, labels[near] if count else 0, draw.integers(0, CLASSES, DETECTIONS))
        outputs = {"mask": codes(moved)} if masks else {}
        found[image] = ImageDetections(moved, draw.random(DETECTIONS), given, outputs)
    return truth, found


def collected(images: int, masks: bool) -> tuple[dict[str, list[dict[str, Any]]], Collector]:
    """Collect the detections, and return the truth beside them."""
    truth, found = drawn(images, masks)
    collector = Collector(truth, list(range(1, CLASSES + 1)), (32, 96), [MaskOutput()] if masks else [])
    collector.merge([found])
    return truth, collector


def ours(metric: type[CocoMetric | VocMetric], images: int, masks: bool, device: torch.device) -> Callable[[], object]:
    """Prepare a metric of this project, from detections in memory to its values."""
    del device  # it is the CPU's work
    _, collector = collected(images, masks)
    return lambda: metric(collector).results()


def pycocotools(images: int, masks: bool, device: torch.device) -> Callable[[], object]:
    """Prepare pycocotools' evaluation of boxes, and of masks, too, from detections in memory to AP by kind."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    del device
    truth, collector = collected(images, masks)
    rows = {name: list(collector.rows(name, key)) for name, key in collector.written()}

    def call() -> dict[str, float]:
        values = {}
        with redirect_stdout(StringIO()):
            known = COCO()
            known.dataset = truth
            known.createIndex()
            for name, kind in (("box", "bbox"), ("mask", "segm")):
                if name in rows:
                    evaluation = COCOeval(known, known.loadRes([dict(row) for row in rows[name]]), kind)
                    evaluation.evaluate()
                    evaluation.accumulate()
                    evaluation.summarize()
                    values[f"{name}/AP"] = float(evaluation.stats[0])
        return values

    return call


CASES = {
    f"COCO's AP of boxes, {images} images, 100 detections": {
        "ours": partial(ours, CocoMetric, images, False),
        "pycocotools": partial(pycocotools, images, False),
    }
    for images in (500, 5000)
} | {
    "COCO's AP of boxes and masks, 500 images, 100 detections": {
        "ours": partial(ours, CocoMetric, 500, True),
        "pycocotools": partial(pycocotools, 500, True),
    },
    "VOC's mAP, 5000 images, 100 detections": {"ours": partial(ours, VocMetric, 5000, False)},
}
