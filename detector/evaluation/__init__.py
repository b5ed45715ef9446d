"""Detections against the truth: COCO's and VOC's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detector.evaluation.base import Evaluator
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.table import render
from detector.evaluation.voc import VocEvaluator
from detector.masks import Paste, paste

__all__ = ["METRICS", "CocoEvaluator", "Evaluator", "VocEvaluator", "evaluators", "render"]

METRICS: dict[str, type[Evaluator]] = {"coco": CocoEvaluator, "voc": VocEvaluator}
"""The metrics that a dataset's config can name."""


def evaluators(
    metrics: Sequence[str],
    ground_truth: Mapping[str, Any],
    category_ids: Sequence[int],
    size_bins: tuple[float, float] = (32, 96),
    masks: bool = False,
    paste: Paste = paste,
) -> list[Evaluator]:
    """One evaluator for each of `metrics`, all with the same truth; the other arguments are `Evaluator`'s.

    Raises:
        ValueError: a metric that does not exist.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"unknown metrics {unknown}; there are {sorted(METRICS)}")
    return [METRICS[name](ground_truth, category_ids, size_bins, masks, paste) for name in metrics]
