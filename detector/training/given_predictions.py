"""Evaluate detections that another program has written, and make a run's folder of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from detector.config.build import build_metrics, completed, instantiate_split, metric_nodes
from detector.config.compose import command_overrides, read_yaml
from detector.evaluation import Collector, render
from detector.evaluation.foreign import foreign_detections, have_masks
from detector.evaluation.predictions import read_predictions
from detector.evaluation.table import foot
from detector.evaluation.truth_file import write_truth
from detector.masks import MaskOutput
from detector.training.evaluate import describe_environment, write_metrics
from detector.training.folder import COMMAND, PREDICTIONS, script_command
from detector.training.report import write_page
from detector.training.saving import write_text

log = logging.getLogger(__name__)


def evaluate_predictions(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Evaluate detections in COCO's results format on the validation split of a dataset.

    The folder is then that of a run, which `ablate.py --compare` takes: `config.yaml`, `metrics.json`, `predictions/`
    and `command.txt`.

    Args:
        config: composed from `configs/evaluate.yaml`, with `predictions` and `dataset`.
        overrides: from the command line.
        folder: folder of the results; it is created.
        console: where the table is printed.

    Raises:
        ValueError, OSError: the detections or the data are invalid, or do not fit each other.
    """
    began = time.perf_counter()
    path = Path(config.predictions)
    if config.get("dataset") is None:
        raise ValueError(f"predictions={path}: give the dataset that they were made on, such as dataset=coco")
    kept = read_yaml(folder / "config.yaml") if (folder / "config.yaml").is_file() else None
    if kept is not None and PREDICTIONS not in kept:
        raise ValueError(f"{folder} holds another run: give another folder (hydra.run.dir=...)")
    final = completed(config)
    final.data_dir = "data" if final.data_dir is None else final.data_dir
    final.dataset.metrics = metric_nodes(final.dataset.metrics)
    resolved: Any = OmegaConf.to_container(final, resolve=True)
    rows = read_predictions(path)
    dataset = instantiate_split(final.dataset.val)
    truth, masks = dataset.ground_truth(), have_masks(rows)
    measured = [MaskOutput()] if masks and getattr(dataset, "has_masks", False) else []
    if masks and not measured:
        log.warning("%s: the dataset has no masks, so boxes alone are measured", path)
    small, large = final.dataset.size_bins
    collector = Collector(truth, dataset.category_ids, (small, large), measured, final.dataset.detections)
    partial = final.dataset.get("classes") is not None or final.dataset.val.get("limit") is not None
    collector.merge([foreign_detections(rows, truth, dataset.category_ids, masks, partial)])
    del rows
    counts = np.array([len(collector.detections(image).labels) for image in collector.images])
    if many := int(np.count_nonzero(counts > collector.limit)):
        log.warning(
            "%d images have more than %d detections, up to %d: the best of an image and class count; "
            "dataset.detections=%d counts more",
            *(many, collector.limit, counts.max(), counts.max()),
        )
    results: dict[str, float] = {}
    for metric in build_metrics(final.dataset.metrics, collector):
        results |= metric.results()
    folder.mkdir(parents=True, exist_ok=True)
    made = OmegaConf.create({PREDICTIONS: str(path), "data_dir": final.data_dir, "dataset": resolved["dataset"]})
    OmegaConf.save(made, folder / "config.yaml")
    write_text(folder / COMMAND, script_command("evaluate", command_overrides(overrides)) + "\n")
    for old in (folder / "predictions").glob("*.json"):
        old.unlink()
    collector.write(folder)
    write_truth(collector, folder)
    metrics: dict[str, Any] = results | describe_environment(torch.device("cpu"))
    metrics |= {"env/predictions": str(path), "time/evaluation": time.perf_counter() - began}
    write_metrics(folder, metrics)
    console.print(render(results, (small, large), foot(collector)))
    console.print(f"Written to {folder}: metrics.json, predictions/", markup=False)
    if config.report:
        write_page(collector, dataset, f"{path} on {final.dataset.name}", folder, console)
