"""Tell what looks like a mistake in annotations that can be read, such as shares of the image for pixels."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from detector.data.annotations import Annotations, Flags, Floats
from detector.data.faults import Effect, collecting, note

log = logging.getLogger(__name__)

MOST = 0.9
"""The share of the objects that is nearly all of them."""

CUT = "boxes that are cut at the edge of their image"

SLACK = 2.0
"""Pixels that a box may be out: COCO's crowds are one pixel short, and tools count from 0 or from 1."""


def say_doubts(table: Annotations, *, crowds_kept: bool, stated: bool) -> None:
    """Log a warning for each kind of doubt.

    Args:
        table: the annotations as they are in the file.
        crowds_kept: whether crowds are read as regions of many objects.
        stated: whether the areas of the file are used.
    """
    for sentence in doubts(table, crowds_kept=crowds_kept, stated=stated):
        log.warning("%s: %s", table.source, sentence)
    rest = doubts(table, crowds_kept=crowds_kept, stated=False) if collecting() else []  # areas are told one by one
    note("doubts about a whole file", Effect.LEARNT, (f"{table.source}: {sentence}" for sentence in rest))


def doubts(table: Annotations, *, crowds_kept: bool = True, stated: bool = True) -> list[str]:
    """Describe each kind of doubt in a sentence; arguments as of `say_doubts`."""
    total = len(table.ids)
    if not total:
        return []
    found = []
    x, y, w, h = table.boxes.T
    height, width = table.sizes[table.images()].T.astype(np.float64)
    shares = (table.boxes.max(1) <= 1.001) & (np.minimum(x, y) >= 0)  # whether w and h are sizes or further corners
    over = ((x + w > width + SLACK) | (y + h > height + SLACK)) & (x < width) & (y < height)
    corners = (w > x) & (h > y) & (w <= width + SLACK) & (h <= height + SLACK)
    if shares.mean() >= MOST:
        found.append(
            f"{int(shares.sum())} of {total} boxes are smaller than a pixel, such as {_example(table, shares)}; if "
            "they are shares of the image, multiply them by its width and height"
        )
    elif over.mean() >= 0.2 and corners.mean() >= MOST:
        found.append(
            f"{int(over.sum())} of {total} boxes reach out of their image and are cut, such as "
            f"{_example(table, over)}; `bbox` is x, y, width, height, and these look like corners x1, y1, x2, y2"
        )
    elif over.mean() >= 0.5:
        found.append(
            f"{int(over.sum())} of {total} boxes reach out of their image and are cut, such as {_example(table, over)}"
        )
    if stated:
        wrong = impossible_areas(table)
        if wrong.any():
            i = int(wrong.argmax())
            found.append(
                f"{int(wrong.sum())} of {total} areas cannot be those of the object's mask or box, such as "
                f"{table.areas[i]:g} px² for {_example(table, wrong)}; they decide which objects are small, medium or "
                "large: dataset.areas=measured takes those of masks and boxes"
            )
    known = np.zeros(total, bool) if table.segmentations is None else table.segmentations.known
    which, of = (known, "objects with a mask") if known.any() else (np.ones(total, bool), "objects")
    if crowds_kept and table.crowd[which].mean() >= MOST:
        found.append(
            f"{int(table.crowd[which].sum())} of {int(which.sum())} {of} are marked as crowds, which are neither "
            "learnt nor measured; if your tool marks objects so, dataset.crowds=objects reads them so"
        )
    return found


def _example(table: Annotations, which: Flags) -> str:
    i = int(which.argmax())
    return f"{[round(float(v), 3) for v in table.boxes[i]]} of annotation {int(table.ids[i])}"


def mask_and_box_areas(table: Annotations) -> Floats:
    """Measure the area of each object in px², [M]: that of its mask, or without one that of its box."""
    boxes: Floats = table.boxes[:, 2] * table.boxes[:, 3]
    if table.segmentations is None:
        return boxes
    masks = table.segmentations.areas(table.sizes[table.images()].astype(np.int64), table.name)
    return np.where(np.isnan(masks), boxes, masks)


def measured_areas(table: Annotations) -> Annotations:
    """Replace the areas of the file by those of `mask_and_box_areas`."""
    return replace(table, areas=mask_and_box_areas(table))


def impossible_areas(table: Annotations) -> Flags:
    """Find areas that cannot be right, bool [M].

    That of an object with a mask is wrong if it is less than half or more than twice the mask's, by more than 16 px²;
    without a mask, if it is larger than the box, or smaller than a line from one side of the box to the other.
    """
    _, _, w, h = table.boxes.T
    given = ~np.isnan(table.areas) & (w > 0) & (h > 0)
    area = np.where(given, table.areas, 0.0)
    wrong = (area > (w + SLACK) * (h + SLACK)) | (area < np.maximum(w, h) / 2 - 1)
    if table.segmentations is not None:
        known = table.segmentations.known
        measured = mask_and_box_areas(table)
        unlike = (np.abs(area - measured) > 16) & ((area < measured / 2) | (area > 2 * measured))
        wrong = np.where(known, unlike, wrong)
    both: Flags = given & wrong
    return both


def cut_boxes(table: Annotations) -> Flags:
    """Find boxes that reach out of their image by more than half a pixel, bool [M]."""
    x, y, w, h = table.boxes.T
    height, width = table.sizes[table.images()].T.astype(np.float64)
    found: Flags = np.stack((-x, -y, x + w - width, y + h - height)).max(0) > 0.5
    return found


def impossible_boxes(table: Annotations, *, cut: bool = False) -> Flags:
    """Find objects whose box has no area, or lies outside the image, bool [M]; say how many, and note each.

    Args:
        table: the annotations as they are in the file.
        cut: note the boxes that are cut at the edge of their image, too.
    """
    x1, y1, x2, y2 = table.corners().T
    flat: Flags = table.boxes[:, 2:].min(1) <= 0
    outside = ~flat & ((x2 <= x1) | (y2 <= y1))
    found: Flags = flat | outside
    for kind, effect, which in (
        ("boxes without area", Effect.SKIPPED, flat),
        ("boxes outside of their image", Effect.SKIPPED, outside),
        (CUT, Effect.CUT, cut_boxes(table) & ~found & cut),
    ):
        note(kind, effect, (table.describe(i) for i in np.flatnonzero(which).tolist()))
    if found.any():
        skipped = {"outside the image": int(outside.sum()), "without area": int(flat.sum())}
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items() if count)
        log.warning("%s: skipped %d of %d boxes: %s", table.source, int(found.sum()), len(found), reasons)
    return found


def without_impossible(table: Annotations) -> Annotations:
    """Leave out objects whose box has no area, or lies outside the image."""
    impossible = impossible_boxes(table)
    return table.select_objects(~impossible) if impossible.any() else table
