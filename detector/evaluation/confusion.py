"""Count which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.evaluation.errors import Bools, Errors, ends, match_best
from detector.evaluation.matching import overlaps
from detector.evaluation.records import Integers, Kind


def confusion(errors: Errors, kind: Kind, category_ids: Sequence[int], kept: Bools, images: int) -> Integers:
    """Match detections to objects of any class, at an IoU of 0.5, and count the pairs of classes.

    The detections of an image choose by descending score, each the object that it overlaps most of those that are left;
    in `Errors` they choose among those of their own class.

    Args:
        errors: of a collector; N detections.
        kind: boxes or masks.
        category_ids: of its C classes, in the order of rows and columns.
        kept: [N], the detections that are matched.
        images: their number.

    Returns:
        int64 [C + 1, C + 1]: objects by their own class and the class that they are found as; the last row counts
        detections of no object, the last column objects that are not found.
    """
    place = {category: number for number, category in enumerate(category_ids)}
    label = np.array([place[category] for category in errors.found.categories.tolist()], np.int64)
    truth = np.array([place[record["category_id"]] for record in errors.objects], np.int64)
    rows_kept, none = np.flatnonzero(kept), len(category_ids)
    matrix = np.zeros((none + 1, none + 1), np.int64)
    of_detections = ends(errors.found.images[rows_kept], images)
    of_objects = ends(np.array([record["image_id"] for record in errors.objects], np.int64), images)
    for image in range(images):
        rows = rows_kept[of_detections[image] : of_detections[image + 1]]
        columns = slice(of_objects[image], of_objects[image + 1])
        own = errors.objects[columns]
        match = match_best(overlaps(errors.found, kind, rows, own))
        hit = match >= 0
        missed = np.setdiff1d(np.arange(len(own)), match)
        np.add.at(matrix, (truth[columns][match[hit]], label[rows][hit]), 1)
        matrix[none] += np.bincount(label[rows][~hit], minlength=none + 1)
        matrix[:, none] += np.bincount(truth[columns][missed], minlength=none + 1)
    return matrix


def confused_pairs(matrix: Integers) -> list[tuple[int, int, int]]:
    """List which class is taken for which, and how often: the places of both, the most frequent pair first."""
    counts = matrix[:-1, :-1].copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[: np.count_nonzero(counts)]
    return [(*divmod(place, len(counts)), int(counts.flat[place])) for place in order.tolist()]
