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
from detector.types import DetectionDataset, Objects, Sample, Size, Target

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


def drawable(found: ImageDetections, kept: Integers, masks: bool = True) -> Objects | Target:
    """Convert an image's detections for `draw`; those with masks to a `Target`, which has masks of whole pixels.

    Args:
        found: detections.
        kept: the positions of those that are drawn.
        masks: false: boxes and scores, of detections with masks too.
    """
    boxes, labels = torch.from_numpy(found.boxes[kept].astype(np.float32)), torch.from_numpy(found.labels[kept])
    boxes[:, 2:] += boxes[:, :2]
    codes = found.shapes.get(MaskOutput.name) if masks else None
    if not codes:
        return Objects(boxes, torch.from_numpy(found.scores[kept].astype(np.float32)), labels)
    plain = torch.zeros(len(kept), dtype=torch.bool)
    height, width = codes[0]["size"]
    return Target(boxes, labels, plain, plain, decode([codes[i] for i in kept.tolist()], (height, width)))


def same_objects(target: Target, size: Size, boxes: Floats, labels: Integers) -> Bools:
    """Tell which of a sample's N objects are among M annotations, [N].

    Args:
        target: of the sample; boxes in pixels of the original image, cut at it.
        size: height and width of the image.
        boxes: [M, 4] of the annotations: x, y, width, height.
        labels: [M].
    """
    if not len(target) or not len(boxes):
        return np.zeros(len(target), bool)
    own = target.boxes.double().numpy()
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1).clip(0, [*size[::-1], *size[::-1]])
    sides = [np.concatenate((part[:, :2], part[:, 2:] - part[:, :2]), 1) for part in (own, corners)]
    same = coco_mask.iou(*sides, [0] * len(boxes)) >= SAME
    found: Bools = (same & (target.labels.numpy()[:, None] == labels)).any(1)
    return found
