"""Find objects whose boxes, masks or areas look wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from pycocotools import mask as rle

from detector.data.annotations import Annotations, Flags, Floats
from detector.data.doubts import CUT, cut_boxes, impossible_areas, mask_and_box_areas
from detector.data.faults import Effect, Fault
from detector.data.packed import Integers
from detector.data.segmentations import CODES, Segmentations

SAME = 0.95
"""Two objects of a class whose boxes have a higher IoU are one."""

APART = 6.0
"""Pixels that an edge of a box may lie from its mask's; in COCO some lie up to 9.9 px apart, of large objects."""


def object_faults(table: Annotations) -> Iterator[Fault]:
    """Yield what is wrong with the objects of a split."""
    for kind, effect, which in (
        (CUT, Effect.CUT, cut_boxes(table)),
        ("areas that cannot be those of the mask or box", Effect.LEARNT, impossible_areas(table)),
    ):
        yield from _each(kind, effect, table, np.flatnonzero(which))
    if table.segmentations is not None:
        larger, elsewhere = misfits(table)
        yield from _each("boxes far larger than their mask", Effect.LEARNT, table, np.flatnonzero(larger))
        yield from _each("masks that do not fit their box", Effect.LEARNT, table, np.flatnonzero(elsewhere))
        known = table.segmentations.known
        if not known.all():
            without = np.flatnonzero(~known)
            yield from _each("objects without a mask beside some with one", Effect.IGNORED, table, without)
        yield from _whole(table, known & ~table.crowd)
    for first, second, overlap in repeated_objects(table):
        own = table.name(first).rpartition(": ")[2]  # without the file
        where = f"{table.describe(second)} is {own} again (IoU {overlap:.2f})"
        yield Fault("objects that are there twice", Effect.LEARNT, where)


def _each(kind: str, effect: Effect, table: Annotations, which: Iterable[int]) -> Iterator[Fault]:
    for i in which:
        area = "" if np.isnan(table.areas[i]) else f", area {table.areas[i]:g}"
        yield Fault(kind, effect, table.describe(int(i)) + (area if kind.startswith("areas") else ""))


def mask_bounds(shapes: Segmentations, sizes: Integers) -> Floats:
    """Return x1, y1, x2, y2 of the masks of M objects, [M, 4]; NaN without one.

    Args:
        shapes: of the objects.
        sizes: height and width of each object's image, [M, 2].
    """
    bounds = np.full((len(shapes), 4), np.nan)
    drawn = np.flatnonzero(np.diff(shapes.parts) > 0)
    if len(drawn):
        of_each, first = shapes.polygon_bounds(), shapes.parts[drawn]
        bounds[drawn, :2] = np.minimum.reduceat(of_each[:, :2], first)
        bounds[drawn, 2:] = np.maximum.reduceat(of_each[:, 2:], first)
    coded = np.flatnonzero(np.diff(shapes.codes.starts) > 0)
    for begin in range(0, len(coded), CODES):
        some = coded[begin : begin + CODES]
        codes = [{"size": sizes[i].tolist(), "counts": shapes.codes[i]} for i in some.tolist()]
        x, y, w, h = rle.toBbox(codes).T
        bounds[some] = np.stack((x, y, x + w, y + h), 1)
    return bounds


def misfits(table: Annotations) -> tuple[Flags, Flags]:
    """Find boxes that are far larger than their mask, and masks that lie elsewhere than their box, bool [M] each.

    A box is far larger where it has more than twice the area of the mask's own box, which lies in it; a mask lies
    elsewhere where the IoU of the two is below 0.5. Edges up to `APART` pixels from each other are no reason.
    """
    assert table.segmentations is not None
    sizes = table.sizes[table.images()].astype(np.int64)
    bounds, boxes = mask_bounds(table.segmentations, sizes), table.corners()
    limit = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    bounds = np.clip(bounds, 0, limit)
    low, high = np.maximum(bounds[:, :2], boxes[:, :2]), np.minimum(bounds[:, 2:], boxes[:, 2:])
    common = (high - low).clip(0).prod(1)
    own, box = ((b[:, 2:] - b[:, :2]).prod(1) for b in (bounds, boxes))
    apart = np.abs(bounds - boxes).max(1) > APART
    with np.errstate(invalid="ignore"):
        larger: Flags = apart & (common >= 0.9 * own) & (box > 2 * own)
        elsewhere: Flags = apart & ~larger & (common < 0.5 * (own + box - common))
    return larger, elsewhere


def repeated_objects(table: Annotations) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of objects of an image and class that have nearly the same box, by number, and their IoU.

    Each object is told once, with the first one that it repeats. Boxes are sorted by their left edge, or by their upper
    one where fewer boxes then are near each other; those further apart than the IoU allows are not compared.
    """
    objects = np.flatnonzero(~table.crowd)
    images, corners = table.images(), table.corners()
    group = np.unique(images[objects] * (len(table.classes) + 1) + table.labels[objects], return_inverse=True)[1]
    boxes = corners[objects]
    upper = _within_reach(group, boxes[:, 1], boxes[:, 3]) < _within_reach(group, boxes[:, 0], boxes[:, 2])
    boxes = np.where(upper[group][:, None], boxes[:, [1, 0, 3, 2]], boxes)
    order = np.lexsort((*boxes.T[::-1], group))  # stable: equal boxes by their numbers
    group, boxes, objects = group[order], boxes[order], objects[order]
    new = np.ones(len(boxes), bool)
    new[1:] = (boxes[1:] != boxes[:-1]).any(1) | (group[1:] != group[:-1])
    which = np.cumsum(new) - 1  # equal boxes count as one, the first
    group, boxes, lowest = group[new], boxes[new], objects[new]
    left, reach = boxes[:, 0].copy(), _reach(boxes[:, 0], boxes[:, 2])
    first = np.arange(len(boxes))
    repeated = np.where(_ious(boxes, boxes) > SAME, lowest, len(table.ids))
    step = 0
    while len(first):
        step += 1
        first = first[: np.searchsorted(first, len(boxes) - step)]
        # Sorted: what is out of reach here is so further on, too.
        first = first[(group[first] == group[first + step]) & (left[first + step] <= reach[first])]
        high = np.minimum(boxes[first, 3], boxes[first + step, 3]) - np.maximum(boxes[first, 1], boxes[first + step, 1])
        near = first[high > 0]
        near = near[_ious(boxes[near], boxes[near + step]) > SAME]
        repeated[near + step] = np.minimum(repeated[near + step], lowest[near])
        repeated[near] = np.minimum(repeated[near], lowest[near + step])
    firsts = repeated[which]
    again = np.flatnonzero(firsts < objects)
    firsts, seconds = firsts[again], objects[again]
    ious = _ious(corners[firsts], corners[seconds])
    for i in np.lexsort((-seconds, images[seconds])).tolist():
        yield int(firsts[i]), int(seconds[i]), float(ious[i])


def _reach(low: Floats, high: Floats) -> Floats:
    """Return how far the lower edges of boxes with an IoU above `SAME` may lie: the union else is too long, [K]."""
    reach: Floats = low + (high - low) * (1 - SAME) / SAME + 1e-6
    return reach


def _within_reach(group: Integers, low: Floats, high: Floats) -> Integers:
    """Count the pairs of a group that are compared if boxes are sorted along an axis, by group."""
    limit = float(max(1.0, high.max(initial=1.0))) * 2
    order = np.lexsort((low, group))
    places = group[order] + low[order] / limit  # those of a group between its number and the next
    ends = group[order] + _reach(low, high)[order] / limit
    counts = np.searchsorted(places, ends, side="right") - np.arange(len(order))
    return np.bincount(group[order], counts).astype(np.int64)


def _ious(one: Floats, other: Floats) -> Floats:
    """Compute the IoU of each box with the other of its place, [K]; 0 without area."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    common = (high - low).clip(0).prod(1)
    area, others = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other))
    ious: Floats = common / np.maximum(area + others - common, 1e-9)
    return ious


def _whole(table: Annotations, masked: Flags) -> Iterator[Fault]:
    """Tell what is wrong with the masks or areas of a file as a whole."""
    stated = masked & (table.areas > 0)
    if stated.sum() < 10:
        return
    measured, boxes = mask_and_box_areas(table)[stated], table.boxes[stated, 2:].prod(1)
    areas = table.areas[stated]
    ratio = float(np.median(measured / areas))
    of_boxes = float((np.abs(areas - boxes) <= 0.01 * boxes + 1).mean())
    kind = "files whose areas and masks differ throughout"
    if 0.95 <= ratio <= 1.05:
        return
    what = f"{table.source}: masks have {ratio:.0%} of the stated areas in the median"
    if of_boxes >= 0.9:
        what += ", which are those of the boxes; they shift which objects are small, medium and large"
    elif ratio < 1:
        what += ", as tools write that trace outlines through the centres of pixels"
    yield Fault(kind, Effect.LEARNT, what)
