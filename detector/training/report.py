"""Write `report.html` and the best thresholds of an evaluation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console

from detector.evaluation import Collector
from detector.evaluation.collector import BOX, ImageId
from detector.evaluation.drawing import drawable, same_objects, samples_of
from detector.evaluation.report.facts import Facts, Mistakes
from detector.evaluation.report.page import shown, write_report
from detector.training.saving import write_text
from detector.types import DetectionDataset
from detector.visualize import draw
from detector.weights.thresholds import describe_thresholds, thresholds_file

REPORT = "report.html"

RIGHT, WRONG = (150, 150, 150), (213, 94, 0)
"""The colours of what is found and right, grey, and of what is missed or wrong, vermilion."""


def report(
    collector: Collector,
    dataset: DetectionDataset,
    dataset_name: str,
    config: DictConfig,
    folder: Path,
    checkpoint: str,
    console: Console,
) -> None:
    """Write the page on a detector's results, and each class's best threshold beside its checkpoint.

    Args:
        collector: of detections on the dataset.
        dataset: the evaluated split.
        dataset_name: its name.
        config: of the detector's training.
        folder: of the page.
        checkpoint: what was evaluated: a file, or the name of published weights.
        console: where it is said what was written.
    """
    title = f"{checkpoint} on {dataset_name}"
    best = write_page(collector, dataset, title, folder, console, checkpoint, possible_changes(config))
    if not (source := Path(checkpoint)).is_file():
        console.print("Thresholds are kept beside a file only; the page has them", soft_wrap=True)
        return
    path = thresholds_file(source)
    try:
        write_text(path, describe_thresholds(best, source, dataset_name))
    except OSError as error:
        console.print(f"{path} cannot be written ({error.strerror}); the page has the thresholds", markup=False)
    else:
        console.print(f"Each class's best threshold, for predict.py threshold=best: {path}", markup=False)


def possible_changes(config: DictConfig) -> set[str]:
    """List the overrides that the page may advise and that a training of this configuration can take."""

    def value(key: str) -> Any:
        return OmegaConf.select(config, key)

    aligned = value("pooler.aligned") and value("pooler.operator._target_") == "ops.multiscale_roi_align"
    cascade = "cascade_mask_rcnn" if value("model.heads.further.mask") is not None else "cascade_rcnn"
    changes = {
        "pooler=roialign": value("pooler.operator") is not None and not aligned,
        f"model={cascade}": value("model.heads._target_") == "detector.models.roi_heads.StandardHeads",
        "dataset.repeat_threshold=0.1": "repeat_threshold" in config.dataset and not config.dataset.repeat_threshold,
        "dataset.train.keep_empty=true": value("dataset.train.keep_empty") is False,
    }
    return {change for change, possible in changes.items() if possible}


def write_page(
    collector: Collector,
    dataset: DetectionDataset,
    title: str,
    folder: Path,
    console: Console,
    checkpoint: str | None = None,
    possible: Collection[str] = (),
) -> dict[str, float | None]:
    """Write `report.html`, the page on a collector's detections.

    Args:
        collector: of detections on the dataset.
        dataset: the evaluated split.
        title: of the page.
        folder: of the page.
        console: where it is said what was written.
        checkpoint: of the detector, for commands; None: there is none.
        possible: overrides of the training that it is not trained with, and may be.

    Returns:
        the threshold of each class by its name; None where no object of any class is found.
    """
    console.print("Writing the report ...")
    facts = {BOX: Facts(collector, "box")}
    if (masks := collector.output("segmentation")) is not None:
        facts[masks.name] = Facts(collector, "mask")
    samples = samples_of(
        dataset, [collector.images[place] for place in shown(facts[BOX])]
    )  # in the order of drawing, one at a time

    def drawn(image: ImageId, mistakes: Mistakes) -> tuple[Image.Image, Image.Image]:
        sample, found = next(samples), collector.detections(image)
        gone = same_objects(sample.target, sample.original_size, mistakes.missed, mistakes.labels)
        left, right = ([WRONG if bad else RIGHT for bad in part] for part in (gone, mistakes.wrong))
        return (
            draw(sample.image, replace(sample.target, masks=None), dataset.classes, colours=left),  # masks hide objects
            draw(sample.image, drawable(found, mistakes.kept, masks=False), dataset.classes, 0.0, right),
        )

    write_text(folder / REPORT, write_report(title, facts, drawn, checkpoint, possible))
    console.print(f"The page: {folder / REPORT}", markup=False, soft_wrap=True)
    return {t.name: t.score for t in facts[BOX].thresholds}
