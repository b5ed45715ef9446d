"""Find the score from which on a class's detections are worth keeping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.errors import NO_ERROR, Errors
from detector.evaluation.records import Floats, Integers


@dataclass(frozen=True)
class OperatingPoints:
    """What is right and what is found of C classes where detections from a score on are kept.

    Detections match objects at an IoU of 0.5, as in `Errors`; ignored ones do not count.
    """

    scores: list[Floats]
    """C arrays [N]: the scores of a class's detections that count, descending"""
    right: list[Integers]
    """C arrays [N]: how many of the detections up to each one match an object"""
    objects: Integers
    """[C]: objects that count"""

    def precision(self, label: int) -> Floats:
        """Return the share of detections that are right, where those up to each one are kept, [N]."""
        right = self.right[label]
        return right / np.arange(1, len(right) + 1)

    def recall(self, label: int) -> Floats:
        """Return the share of objects that are found, where the detections up to each one are kept, [N]."""
        return self.right[label] / max(int(self.objects[label]), 1)

    def f1(self, label: int) -> Floats:
        """Return the harmonic mean of precision and recall, [N]."""
        count = np.arange(1, len(self.right[label]) + 1)
        return 2 * self.right[label] / (count + int(self.objects[label]))

    def best(self, label: int) -> float | None:
        """Return the score of the highest F1, of equal ones the highest score; None where no object is found."""
        f1 = self.f1(label)
        if not len(f1) or not f1.max():
            return None
        scores = self.scores[label]
        last = np.append(scores[1:] < scores[:-1], True)  # detections of equal scores are kept together
        return float(scores[np.where(last, f1, -1).argmax()])

    def at(self, label: int, threshold: float) -> tuple[int, int, int]:
        """Count a class's right and wrong detections from a score on, and the objects that they leave out."""
        kept = int(np.searchsorted(-self.scores[label], -threshold, "right"))
        right = int(self.right[label][kept - 1]) if kept else 0
        return right, kept - right, int(self.objects[label]) - right


def operating_points(errors: Errors, category_ids: list[int]) -> OperatingPoints:
    """Sort the detections of each class by score.

    Args:
        errors: of a collector.
        category_ids: of its C classes.
    """
    order = np.argsort(-errors.found.scores, kind="stable")
    order = order[errors.counts[order]]
    category = errors.found.categories[order]
    own = [order[category == one] for one in category_ids]
    truth = np.array([record["category_id"] for record in errors.objects], np.int64)
    return OperatingPoints(
        [errors.found.scores[rows] for rows in own],
        [np.cumsum(errors.kind[rows] == NO_ERROR) for rows in own],
        np.array([np.count_nonzero(truth == one) for one in category_ids], np.int64),
    )
