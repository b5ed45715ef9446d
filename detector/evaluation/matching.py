"""Match detections to ground truth as COCO does, in several ranges of areas at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detector.evaluation.comparison import LIMITS, overlap_of_unknown
from detector.evaluation.records import Floats, Found, Integers, Kind, Record

Bools = NDArray[np.bool_]

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""COCO's IoU thresholds, with pycocotools' rounding."""

HIGHEST_THRESHOLD = 1 - 1e-10
"""The highest IoU that pycocotools asks for."""


@dataclass(frozen=True)
class Matches:
    """The N best detections of each image and class, matched to G objects in A ranges of areas at T IoU thresholds.

    Objects are ignored in a range that their area is not in, and so are unmatched detections. A detection is matched to
    an ignored object only where no other is left.
    """

    found: Found
    """the N detections, image by image"""
    objects: list[Record]
    """the G objects, crowds and ignored ones included, image by image"""
    right: Bools
    """[A, T, N]: whether a detection matches an object that counts"""
    counts: Bools
    """[A, T, N]: whether it is right or wrong; else it is ignored"""
    ignored: Bools
    """[A, G]: whether an object is ignored"""
    object: Integers
    """[N]: the object that a detection matches at the lowest threshold in the first range; -1: none"""
    iou: Floats
    """[N]: their IoU"""


def match(
    kind: Kind,
    objects: list[Record],
    found: Found,
    areas: Sequence[tuple[float, float]],
    max_dets: int = LIMITS[-1],
) -> Matches:
    """Match detections to objects of their image and class, those of the highest scores first.

    Equal to pycocotools' `COCOeval.evaluate` (2.0.11), which goes through the ranges of areas one by one.

    Args:
        kind: boxes or masks.
        objects: ground truth, as `truths` lists it.
        found: detections.
        areas: A ranges in square pixels, both ends included.
        max_dets: of an image and class, so many detections of the highest scores are taken.
    """
    ranges = np.array(areas, np.float64)
    rank = np.lexsort((-found.scores, found.categories, found.images))
    own = list(zip(found.images[rank].tolist(), found.categories[rank].tolist(), strict=True))
    starts = [i for i, key in enumerate(own) if not i or key != own[i - 1]]
    groups = {own[a]: rank[a : min(a + max_dets, b)] for a, b in pairwise([*starts, len(own)])}
    chosen = np.sort(np.concatenate([np.zeros(0, np.int64), *groups.values()]))
    place = np.full(len(rank), -1)
    place[chosen] = np.arange(len(chosen))
    best = found.take(chosen)
    size = np.array([record["area"] for record in objects], np.float64)
    never = np.array([record["ignore"] for record in objects], bool)
    ignored = never | _outside(size, ranges)
    inside = ~_outside(best.areas, ranges)
    shape = len(ranges), len(THRESHOLDS), len(chosen)
    result = Matches(
        best,
        objects,
        np.zeros(shape, bool),
        np.broadcast_to(inside[:, None], shape).copy(),
        ignored,
        np.full(len(chosen), -1),
        np.zeros(len(chosen)),
    )
    members: dict[tuple[int, int], list[int]] = {}
    for number, record in enumerate(objects):
        members.setdefault((record["image_id"], record["category_id"]), []).append(number)
    for key, columns in members.items():
        if key in groups:
            _match_group(result, kind, place[groups[key]], np.array(columns))
    return result


def _outside(areas: Floats, ranges: Floats) -> Bools:
    """Tell which of N areas are outside of each of A ranges, [A, N]."""
    outside: Bools = (areas < ranges[:, :1]) | (areas > ranges[:, 1:])
    return outside


def _match_group(matches: Matches, kind: Kind, rows: Integers, columns: Integers) -> None:
    """Match the detections of one image and class, by descending score."""
    records = [matches.objects[column] for column in columns]
    overlap = overlaps(matches.found, kind, rows, records)
    near = overlap.max(1) >= THRESHOLDS[0]
    if not near.any():
        return
    rows, overlap = rows[near], overlap[near]
    crowd = np.array([record["iscrowd"] for record in records], bool)
    ignored = matches.ignored[:, columns]
    chosen = _choose(overlap, crowd, ignored)
    hit = chosen >= 0
    right = hit & ~np.take_along_axis(ignored[:, None], np.maximum(chosen, 0), 2)
    matches.right[..., rows] = right
    matches.counts[..., rows] = np.where(hit, right, matches.counts[..., rows])
    first = chosen[0, 0]
    matches.object[rows] = np.where(first >= 0, columns[first], -1)
    matches.iou[rows] = np.where(first >= 0, overlap[np.arange(len(rows)), first], 0)


def _choose(overlap: Floats, crowd: Bools, ignored: Bools) -> Integers:
    """Return which of G objects each of D detections matches in A ranges at T thresholds, [A, T, D]; -1: none.

    Args:
        overlap: [D, G].
        crowd: [G]: crowds can be matched again and again.
        ignored: [A, G].
    """
    count, levels = overlap.shape[1], np.minimum(THRESHOLDS, HIGHEST_THRESHOLD)
    chosen = np.full((len(ignored), len(levels), len(overlap)), -1)
    taken = np.zeros((len(ignored), len(levels), count), bool)
    plain = ~ignored[:, None]
    for row, own in enumerate(overlap):
        free = (own >= levels[:, None]) & ~taken
        wanted = free & plain
        wanted = np.where(wanted.any(2, keepdims=True), wanted, free)
        value = np.where(wanted, own, -1.0)
        column = count - 1 - value[..., ::-1].argmax(2)  # of equal ones the last, as pycocotools
        hit = wanted.any(2)
        chosen[..., row] = np.where(hit, column, -1)
        taken |= (hit[..., None] & (np.arange(count) == column[..., None])) & ~crowd
    return chosen


def overlaps(found: Found, kind: Kind, rows: Integers, records: Sequence[Record]) -> Floats:
    """Compute the IoU [N, M] of detections and records; the share of the detection where a record is a crowd.

    With a record whose mask is `unknown` it is 1 where the boxes have `SAME_BOX` IoU at least, else 0.

    Args:
        found: detections, of which the N `rows` are compared.
        kind: boxes or masks.
        rows: positions of detections.
        records: M objects or ignored regions.
    """
    if not records or not len(rows):
        return np.zeros((len(rows), len(records)))
    crowd = [record["iscrowd"] for record in records]
    boxes = np.array([record["bbox"] for record in records], np.float64)
    if kind == "box":
        return np.asarray(coco_mask.iou(found.boxes[rows], boxes, crowd))
    assert found.codes is not None
    own = [found.codes[row] for row in rows]
    result = np.asarray(coco_mask.iou(own, [record["segmentation"] for record in records], crowd))
    unknown = [column for column, record in enumerate(records) if record.get("unknown")]
    if unknown:
        result[:, unknown] = overlap_of_unknown(found.boxes[rows], boxes[unknown])
    return result
