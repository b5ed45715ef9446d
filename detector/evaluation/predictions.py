"""Read written predictions back into a collector."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from detector.evaluation.collector import ImageDetections, ImageId, State
from detector.evaluation.records import Kind
from detector.masks import MaskOutput


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read a file in COCO's results format, such as a run's `predictions/box.json`.

    Raises:
        ValueError: the file is missing or is not a JSON list.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"there are no predictions at {path}; those of a run are written by evaluate.py "
            "checkpoint=RUN/checkpoints/last.ckpt hydra.run.dir=RUN"
        ) from error
    except ValueError as error:  # of JSON or UTF-8
        raise ValueError(f"{path} is no JSON ({error}): write it again, in COCO's results format") from error
    if not isinstance(rows, list):
        kind = type(rows).__name__
        raise ValueError(f"{path} must hold a list of detections, COCO's results format, but holds a {kind}")
    return rows


def detections_of(
    kind: Kind,
    predictions: Sequence[Mapping[str, Any]],
    images: Sequence[ImageId],
    category_ids: Sequence[int],
) -> State:
    """Group predictions by image into a `State`, for `Collector.merge`.

    Args:
        kind: boxes, each prediction with a `bbox`, or masks, each with a `segmentation` (a run-length code).
        predictions: COCO's results format, in pixels of the original images; in any order of the images.
        images: the ids of all evaluated images; one without a prediction has no detections.
        category_ids: the dataset's category id of each label.

    Raises:
        ValueError: a prediction has an unknown image or category, lacks its shape, or has numbers that are not finite.
    """
    labels = {category: label for label, category in enumerate(category_ids)}
    key = "bbox" if kind == "box" else MaskOutput.key
    rows: dict[ImageId, list[Mapping[str, Any]]] = defaultdict(list)
    known = set(images)
    for row in predictions:
        if row["image_id"] not in known:
            raise ValueError(f"a prediction is for image {row['image_id']!r}, which is none of the {len(known)} images")
        if row["category_id"] not in labels:
            raise ValueError(f"a prediction has the category {row['category_id']!r}; there are {sorted(labels)}")
        if key not in row:
            raise ValueError(f"a prediction on image {row['image_id']!r} has no {key}, but the {kind} is measured")
        rows[row["image_id"]].append(row)
    return {image: _image_detections(kind, rows[image], labels) for image in images}


def _image_detections(kind: Kind, rows: list[Mapping[str, Any]], labels: dict[int, int]) -> ImageDetections:
    masks = [dict(row[MaskOutput.key]) for row in rows] if kind == "mask" else []
    boxes = [coco_mask.toBbox(mask) for mask in masks] if kind == "mask" else [row["bbox"] for row in rows]
    found = ImageDetections(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array([row["score"] for row in rows], dtype=np.float64),
        np.array([labels[row["category_id"]] for row in rows], dtype=np.int64),
        {MaskOutput.name: masks} if kind == "mask" else {},
    )
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise ValueError(f"the predictions on image {rows[0]['image_id']!r} hold NaN or infinite numbers")
    return found
