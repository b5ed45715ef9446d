"""Collect detections once a run and measure them against the ground truth: COCO's metrics, VOC's, and others."""

from __future__ import annotations

from detector.evaluation.coco import CocoMetric
from detector.evaluation.collector import Collector
from detector.evaluation.metric import Metric
from detector.evaluation.table import render
from detector.evaluation.voc import VocMetric

__all__ = ["METRICS", "CocoMetric", "Collector", "Metric", "VocMetric", "render"]

METRICS: dict[str, str] = {
    "aitod": "detector.evaluation.aitod.AITODMetric",
    "boundary": "detector.evaluation.boundary.BoundaryMetric",
    "coco": "detector.evaluation.coco.CocoMetric",
    "voc": "detector.evaluation.voc.VocMetric",
}
"""The `_target_` of each metric that a dataset's `metrics` can name by a word."""
