"""Write `report.html` and `thresholds.json` of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from detector.evaluation import Collector
from detector.evaluation.collector import BOX, ImageId
from detector.evaluation.drawing import drawable, samples_of
from detector.evaluation.report.facts import Facts
from detector.evaluation.report.page import write_report
from detector.training.saving import write_text
from detector.types import DetectionDataset
from detector.visualize import draw

REPORT = "report.html"
THRESHOLDS = "thresholds.json"


def report(collector: Collector, dataset: DetectionDataset, title: str, folder: Path, checkpoint: Path | None) -> None:
    """Write the page on a detector's results into a folder, and each class's best threshold beside its checkpoint.

    Args:
        collector: of detections on the dataset.
        dataset: the evaluated split.
        title: of the page.
        folder: of the page.
        checkpoint: the evaluated file, in whose folder the thresholds are written; None: none was.
    """
    facts = {BOX: Facts(collector, "box")}
    if (masks := collector.output("segmentation")) is not None:
        facts[masks.name] = Facts(collector, "mask")

    def drawn(image: ImageId, least: Mapping[int, float]) -> tuple[Image.Image, Image.Image]:
        sample = next(samples_of(dataset, [image]))
        scores = [least.get(label, 2.0) for label in range(len(dataset.classes))]
        found = drawable(collector.detections(image), scores)
        return tuple(draw(sample.image, what, dataset.classes, 0.0) for what in (sample.target, found))  # type: ignore[return-value]

    write_text(folder / REPORT, write_report(title, facts, drawn))
    best = {t.name: t.score for t in facts[BOX].thresholds}
    if checkpoint is not None:
        write_text(checkpoint.parent / THRESHOLDS, json.dumps(best, indent=1) + "\n")
