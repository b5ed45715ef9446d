"""What was found in an image, and its conversion to plain data and to annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detector.data.annotations import Annotations
from detector.data.outlines import joined, pixel_rings
from detector.data.packed import Ids, Strings, starts_of
from detector.data.segmentations import Segmentations
from detector.run_lengths import decode
from detector.types import Objects, Output, Size

MASK = "segmentation"
"""The key of an object's mask in plain data, a run-length code of COCO."""

TOLERANCE = 1.0
"""How far the polygon of a mask may lie beside it, in pixels: corners of pixels are left out."""


@dataclass(frozen=True)
class Found:
    """What was found in one image."""

    name: str
    """of the image, its path below the input"""
    stem: str
    """names what is written of it, see `detector.inference.inputs.Input`"""
    number: int
    """of the image, from 1 on"""
    size: Size
    """height and width"""
    objects: Objects
    drawn: Tensor
    """bool [N]: which objects reach the threshold of their class"""
    rows: list[dict[str, Any]]
    """the objects as plain data, see `plain_detections`"""


def plain_detections(
    objects: Objects, classes: Sequence[str], size: Size, outputs: Sequence[Output] = ()
) -> list[dict[str, Any]]:
    """Convert detections to plain data: class, score, box (x, y, width, height), and the outputs of further heads.

    Args:
        objects: the detections of one image.
        classes: class names by label.
        size: (height, width) of the image.
        outputs: outputs of the model's further heads, such as masks as COCO's run-length codes.
    """
    xywh = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in objects.boxes.tolist()]
    rows: list[dict[str, Any]] = [
        {"class": classes[label], "score": score, "bbox": box}
        for label, score, box in zip(objects.labels.tolist(), objects.scores.tolist(), xywh, strict=True)
    ]
    for output in outputs:
        for row, shape in zip(rows, output(objects, size), strict=True):
            row[output.key] = shape
    return rows


def as_annotations(found: Found, classes: Sequence[str]) -> Annotations:
    """Convert the drawn objects of an image to annotations; masks become polygons, which tools can edit.

    Category ids are labels + 1, the image's id is its number. A polygon lies within `TOLERANCE` of the outline of its
    mask; parts and holes are joined to one by seams.
    """
    chosen = found.drawn.nonzero().flatten().tolist()
    rows = [found.rows[i] for i in chosen]
    count = len(rows)
    polygons = None
    if any(MASK in row for row in rows):
        polygons = _segmentations([row.get(MASK) for row in rows], found.size)
    return Annotations(
        source=Path("detections"),
        classes=list(classes),
        category_ids=list(range(1, len(classes) + 1)),
        image_ids=Ids.pack([found.number]),
        files=Strings.pack([found.name]),
        sizes=np.array([found.size], np.int32),
        starts=np.array([0, count], np.int64),
        ids=np.arange(1, count + 1),
        labels=found.objects.labels[found.drawn].numpy().astype(np.int32),
        boxes=np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
        areas=np.full(count, np.nan),
        crowd=np.zeros(count, bool),
        difficult=np.zeros(count, bool),
        segmentations=polygons,
        categories=categories(classes),
    )


def categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return COCO's categories: ids are labels + 1."""
    return [{"id": label, "name": name, "supercategory": ""} for label, name in enumerate(classes, 1)]


def _segmentations(codes: Sequence[Any], size: Size) -> Segmentations:
    """Pack one polygon for each run-length code; none for an empty mask."""
    outlines = [None if code is None else outline(code, size) for code in codes]
    known = [points for points in outlines if points is not None]
    return Segmentations(
        np.concatenate([np.zeros(0), *(points.reshape(-1) for points in known)]),
        starts_of([points.size for points in known]),
        starts_of([points is not None for points in outlines]),
        Strings.pack([""] * len(codes)),
    )


def outline(code: Any, size: Size) -> NDArray[np.float64] | None:
    """Return one polygon for a mask, [N, 2], see `as_annotations`; None if the mask is empty."""
    masks = decode([code], size)
    rings = pixel_rings(masks.window(0).numpy())
    if not rings:
        return None
    return joined([_simplified(ring) + masks.windows[0, :2].numpy() for ring in rings])


def _simplified(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out the corners of a ring that lie within `TOLERANCE` of the line between others."""
    points = cv2.approxPolyDP(ring.astype(np.float32)[:, None], TOLERANCE, True)[:, 0].astype(np.float64)
    return points if len(points) >= 3 else ring
