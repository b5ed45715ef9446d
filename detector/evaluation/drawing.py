"""Take what is drawn from a dataset and from written detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detector.evaluation.collector import ImageDetections, ImageId
from detector.evaluation.records import Floats, Integers
from detector.masks import MaskOutput
from detector.run_lengths import decode
from detector.types import DetectionDataset, Objects, Sample, Target

Bools = NDArray[np.bool_]

SAME = 0.9
"""IoU of an object's box in a sample, which may be cut at the image, with its annotation's."""


def samples_of(dataset: DetectionDataset, images: Sequence[ImageId]) -> Iterator[Sample]:
    """Read the samples of these images, one by one.

    Most datasets have the order of their ground truth; others are searched, once.

    Raises:
        ValueError: an image is in the ground truth, but not in the dataset.
    """
    order = {image["id"]: index for index, image in enumerate(dataset.ground_truth()["images"])}
    places: dict[ImageId, int] = {}
    for image in images:
        index = places.get(image, order[image])
        sample = dataset[index] if index < len(dataset) else None
        if sample is None or sample.id != image:
            places = _search(dataset, images)
            sample = dataset[places[image]]
        yield sample


def _search(dataset: DetectionDataset, images: Sequence[ImageId]) -> dict[ImageId, int]:
    """Find the indices of these images by reading the dataset."""
    places: dict[ImageId, int] = {}
    for index in range(len(dataset)):
        name = dataset[index].id
        if name in images:
            places[name] = index
        if len(places) == len(images):
            return places
    missing = [image for image in images if image not in places]
    raise ValueError(f"images {missing} are in the ground truth, but not in the dataset")


def drawable(found: ImageDetections, threshold: float | Sequence[float]) -> Objects | Target:
    """Convert an image's detections for `draw`; those with masks to a `Target`, which has masks of whole pixels.

    Args:
        found: detections.
        threshold: the lowest score that is drawn, of all or of each label.
    """
    kept = kept_from(found, threshold)
    boxes, labels = torch.from_numpy(found.boxes[kept].astype(np.float32)), torch.from_numpy(found.labels[kept])
    boxes[:, 2:] += boxes[:, :2]
    masks = found.shapes.get(MaskOutput.name)
    if not masks:
        return Objects(boxes, torch.from_numpy(found.scores[kept].astype(np.float32)), labels)
    plain = torch.zeros(len(kept), dtype=torch.bool)
    height, width = masks[0]["size"]
    return Target(boxes, labels, plain, plain, decode([masks[i] for i in kept.tolist()], (height, width)))


def kept_from(found: ImageDetections, threshold: float | Sequence[float]) -> Integers:
    """Return the positions of the detections that are drawn, ascending; the arguments are those of `drawable`."""
    least = threshold if isinstance(threshold, float | int) else np.asarray(threshold, np.float64)[found.labels]
    return np.flatnonzero(found.scores >= least)


def overlapping(boxes: Floats, others: Floats) -> Bools:
    """Tell which of N boxes have an IoU of 0.9 at least with one of M others, [N]; each is x, y, width, height."""
    if not len(boxes) or not len(others):
        return np.zeros(len(boxes), bool)
    same: Bools = (coco_mask.iou(boxes, others, [0] * len(others)) >= SAME).any(1)
    return same
