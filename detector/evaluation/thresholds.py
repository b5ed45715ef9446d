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

    def f_measure(self, label: int, beta: float = 1.0) -> Floats:
        """Return van Rijsbergen's F of precision and recall, to which recall matters `beta` times as much, [N]."""
        count, weight = np.arange(1, len(self.right[label]) + 1), beta**2
        return (1 + weight) * self.right[label] / (count + weight * int(self.objects[label]))

    def best(self, label: int, beta: float = 1.0) -> float | None:
        """Return the score of the highest F, of equal ones the highest score; None where no object is found."""
        f = self.f_measure(label, beta)
        if not len(f) or not f.max():
            return None
        scores = self.scores[label]
        last = np.append(scores[1:] < scores[:-1], True)  # detections of equal scores are kept together
        return float(scores[np.where(last, f, -1).argmax()])

    def at(self, label: int, threshold: float) -> tuple[int, int, int]:
        """Count a class's right and wrong detections from a score on, and the objects that they leave out."""
        kept = int(np.searchsorted(-self.scores[label], -threshold, "right"))
        right = int(self.right[label][kept - 1]) if kept else 0
        return right, kept - right, int(self.objects[label]) - right

    def together(self) -> OperatingPoints:
        """Return the points of all classes as those of one, with one threshold for all."""
        if not self.scores:
            return self
        scores = np.concatenate(self.scores)
        right = np.concatenate([np.diff(counts, prepend=0) for counts in self.right])
        order = np.argsort(-scores, kind="stable")
        return OperatingPoints([scores[order]], [np.cumsum(right[order])], self.objects.sum(keepdims=True))


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
