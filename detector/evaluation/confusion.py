"""Count which class is taken for which, and what is right and wrong on each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detector.evaluation.errors import Bools, Errors, ends, match_best
from detector.evaluation.matching import overlaps
from detector.evaluation.records import Integers, Kind


@dataclass(frozen=True)
class Confusion:
    """The detections from their class's threshold on, beside the objects."""

    matrix: Integers
    """[C + 1, C + 1]: objects by their own class and the class that they are found as; the last row counts detections
    of no object, the last column objects that are not found"""
    objects: Integers
    """[I]: of each image, those that count"""
    found: Integers
    """[I]: the detections that count"""
    right: Integers
    """[I]: the detections that match an object of their class"""
    missed: Bools
    """[G]: of the errors' objects, those that no detection of their class matches"""
    wrong: Bools
    """[N]: of the errors' detections, those that count and match no object of their class"""

    def pairs(self) -> list[tuple[int, int, int]]:
        """List which class is taken for which, and how often: the places of both, the most frequent pair first."""
        matrix = self.matrix[:-1, :-1].copy()
        np.fill_diagonal(matrix, 0)
        order = np.argsort(-matrix, axis=None, kind="stable")[: np.count_nonzero(matrix)]
        return [(*divmod(place, len(matrix)), int(matrix.flat[place])) for place in order.tolist()]


def confusion(
    errors: Errors, kind: Kind, category_ids: Sequence[int], thresholds: Mapping[int, float], images: int
) -> Confusion:
    """Match the detections from a score on to objects of any class, at an IoU of 0.5.

    The detections of an image choose by descending score, each the object that it overlaps most of those that are left,
    as in `Errors`.

    Args:
        errors: of a collector.
        kind: boxes or masks.
        category_ids: of its C classes, in the order of rows and columns.
        thresholds: of each category id, the lowest score that is kept; where it is missing, nothing is.
        images: their number, I.
    """
    place = {category: number for number, category in enumerate(category_ids)}
    least = np.array([thresholds.get(category, np.inf) for category in category_ids])
    label = np.array([place[category] for category in errors.found.categories.tolist()], np.int64)
    kept = np.flatnonzero(errors.counts & (errors.found.scores >= least[label]))
    truth = np.array([place[record["category_id"]] for record in errors.objects], np.int64)
    result = Confusion(
        np.zeros((len(category_ids) + 1, len(category_ids) + 1), np.int64),
        np.zeros(images, np.int64),
        np.zeros(images, np.int64),
        np.zeros(images, np.int64),
        np.ones(len(errors.objects), bool),
        np.zeros(len(label), bool),
    )
    result.wrong[kept] = True
    of_detections = ends(errors.found.images[kept], images)
    of_objects = ends(np.array([record["image_id"] for record in errors.objects], np.int64), images)
    none = len(category_ids)
    for image in range(images):
        rows = kept[of_detections[image] : of_detections[image + 1]]
        columns = slice(of_objects[image], of_objects[image + 1])
        own = errors.objects[columns]
        match = match_best(overlaps(errors.found, kind, rows, own))
        hit = match >= 0
        missed = np.setdiff1d(np.arange(len(own)), match)
        np.add.at(result.matrix, (truth[columns][match[hit]], label[rows][hit]), 1)
        result.matrix[none] += np.bincount(label[rows][~hit], minlength=none + 1)
        result.matrix[:, none] += np.bincount(truth[columns][missed], minlength=none + 1)
        result.objects[image], result.found[image] = len(own), len(rows)
        same = hit.copy()
        same[hit] = truth[columns][match[hit]] == label[rows][hit]
        result.right[image] = np.count_nonzero(same)
        result.missed[columns.start + match[same]] = False
        result.wrong[rows[same]] = False
    return result
