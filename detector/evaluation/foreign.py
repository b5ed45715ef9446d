"""Read detections that another program has written, and check each of them."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from detector.evaluation.collector import ImageDetections, ImageId, State
from detector.masks import MaskOutput
from detector.run_lengths import filled_pixels

log = logging.getLogger(__name__)

LARGEST = 1e9
"""of a number in pixels"""

FORM = '{"image_id": ..., "category_id": ..., "bbox": [x, y, width, height], "score": ...}'
"""A row of COCO's results format."""

BEYOND = 0.5
"""The least share of boxes that reach beyond their image at which they are remarked on."""


def have_masks(predictions: Sequence[Any]) -> bool:
    """Return whether the first of these detections has a mask."""
    return bool(predictions) and isinstance(predictions[0], dict) and bool(predictions[0].get(MaskOutput.key))


def foreign_detections(
    predictions: Sequence[Any],
    ground_truth: Mapping[str, Any],
    category_ids: Sequence[int],
    masks: bool,
    partial: bool = False,
) -> State:
    """Group another program's detections by image into a `State`, for `Collector.merge`.

    Args:
        predictions: COCO's results format: `image_id` and `category_id` of the ground truth, `score` in 0..1, `bbox` as
            x, y, width and height in pixels of the original image, `segmentation` as a compressed run-length code. With
            masks, a missing `bbox` is that of the mask. Names or stems of the images' files are taken for their ids.
        ground_truth: COCO's `images` and `categories`; an image without detections has none.
        category_ids: the dataset's category id of each label.
        masks: whether each detection has a mask.
        partial: whether the ground truth leaves out images or classes of the predictions, which are then left out, too,
            with a warning.

    Raises:
        ValueError: a detection is of another form, or of an unknown image or category, or its mask is broken or of
            another size than its image; the message names it by its place in the file, from 0.
    """
    images = {image["id"]: image for image in ground_truth["images"]}
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    labels = {category: label for label, category in enumerate(category_ids)}
    rows: dict[ImageId, list[Mapping[str, Any]]] = defaultdict(list)
    for place, row in enumerate(predictions):
        _check(place, row, masks)
    predictions, total = _with_ids(predictions, images), len(predictions)
    if partial:
        predictions = [row for row in predictions if row["image_id"] in images and row["category_id"] in labels]
        if left := total - len(predictions):
            log.warning("%d of %d detections are of images or classes that are left out", left, total)
    for place, row in enumerate(predictions):
        if row["image_id"] not in images:
            some = ", ".join(repr(image) for image in list(images)[:3])
            raise ValueError(
                f"detection {place} is on image {row['image_id']!r}, which is none of the {len(images)} images of the "
                f"dataset ({some}, ...): give the detections of this very dataset, with its ids of images"
            )
        if row["category_id"] not in labels:
            known = ", ".join(f"{category}: {names[category]}" for category in list(labels)[:5])
            raise ValueError(
                f"detection {place} has the category {row['category_id']!r}; there are {known}"
                f"{', ...' if len(labels) > 5 else ''}: give the dataset's ids, not labels that count from 0"
            )
        rows[row["image_id"]].append(row)
    if masks:
        _check_masks(predictions, images)
    state = {image: _detections(rows[image], labels, masks) for image in images}
    _doubt(state, images)
    return state


def _with_ids(predictions: Sequence[Any], images: Mapping[ImageId, Mapping[str, Any]]) -> Sequence[Any]:
    """Replace names or stems of the images' files by the images' ids, where all detections have such."""
    given = {row["image_id"] for row in predictions}
    if given <= set(images):
        return predictions
    for short in (lambda name: name, lambda name: PurePosixPath(name).name, lambda name: PurePosixPath(name).stem):
        ids = {short(str(image["file_name"])): i for i, image in images.items() if "file_name" in image}
        if given <= set(ids) and len(ids) == len(images):
            return [{**row, "image_id": ids[row["image_id"]]} for row in predictions]
    return predictions


def _check(place: int, row: Any, masks: bool) -> None:
    """Check the form of one detection."""
    if not isinstance(row, dict):
        raise ValueError(f"detection {place} is {row!r:.80}; each is {FORM}")
    for key in ("image_id", "category_id", "score"):
        if key not in row:
            raise ValueError(f"detection {place} has no {key}; each is {FORM}")
    for key in ("image_id", "category_id"):
        if not isinstance(row[key], int | str):
            raise ValueError(f"detection {place}: {key} must be an id, not {row[key]!r:.80}")
    if not _are_numbers([row["score"]]) or not 0 <= row["score"] <= 1:
        raise ValueError(f"detection {place}: score must be a number from 0 to 1, not {row['score']!r}")
    if bool(row.get(MaskOutput.key)) is not masks:
        raise ValueError(
            f"detection {place} has {'no mask' if masks else 'a mask'}, unlike detection 0: give a mask "
            f"({MaskOutput.key!r}) to each or to none"
        )
    box = row.get("bbox")
    if box is None and masks:
        return
    if not isinstance(box, list) or len(box) != 4 or not _are_numbers(box) or min(box[2:]) < 0:
        raise ValueError(f"detection {place}: bbox must be [x, y, width, height] in pixels, not {box!r:.80}")


def _are_numbers(values: Sequence[Any]) -> bool:
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return plain and all(abs(v) <= LARGEST for v in values)


def _check_masks(predictions: Sequence[Mapping[str, Any]], images: Mapping[ImageId, Mapping[str, Any]]) -> None:
    for place, row in enumerate(predictions):
        mask, image = row[MaskOutput.key], images[row["image_id"]]
        if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
            raise ValueError(
                f"detection {place}: segmentation must be a compressed run-length code, as pycocotools.mask.encode "
                f'writes it ({{"size": [height, width], "counts": "..."}}), not {mask!r:.80}'
            )
        if mask.get("size") != [image["height"], image["width"]]:
            raise ValueError(
                f"detection {place}: its mask has the size {mask.get('size')}, but its image {image['id']!r} "
                f"{[image['height'], image['width']]} (height, width)"
            )
    sizes = np.array([row[MaskOutput.key]["size"] for row in predictions], np.int64).reshape(-1, 2)
    filled_pixels([row[MaskOutput.key]["counts"] for row in predictions], sizes, lambda place: f"detection {place}")


def _detections(rows: Sequence[Mapping[str, Any]], labels: Mapping[Any, int], masks: bool) -> ImageDetections:
    codes = [dict(row[MaskOutput.key]) for row in rows] if masks else []
    boxes = [row["bbox"] if row.get("bbox") else coco_mask.toBbox(row[MaskOutput.key]) for row in rows]
    return ImageDetections(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([row["score"] for row in rows], np.float64),
        np.array([labels[row["category_id"]] for row in rows], np.int64),
        {MaskOutput.name: codes} if masks else {},
    )


def _doubt(state: State, images: Mapping[ImageId, Mapping[str, Any]]) -> None:
    """Warn where the boxes look like corners, or like shares of their image."""
    found = [
        (own.boxes, [images[i].get("width", math.inf), images[i].get("height", math.inf)]) for i, own in state.items()
    ]
    boxes = np.concatenate([np.zeros((0, 4)), *(own for own, _ in found)])
    sizes = np.concatenate([np.zeros((0, 2)), *(np.tile(size, (len(own), 1)) for own, size in found)])
    if not len(boxes):
        return
    beyond = (boxes[:, :2] + boxes[:, 2:] > sizes + 2).any(1)
    if beyond.mean() >= BEYOND:
        log.warning(
            "%d of %d boxes reach beyond their image: bbox is x, y, width, height, and these may be corners x1, y1, "
            "x2, y2",
            beyond.sum(),
            len(boxes),
        )
    elif boxes.max() <= 1:
        log.warning("all boxes lie in 0..1: bbox is in pixels of the original image, and these may be shares of it")
