"""Evaluate detections that another program has written, and make a run's folder of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from detector.config.build import build_metrics, completed, instantiate_split, metric_nodes
from detector.config.compose import command_overrides
from detector.evaluation import Collector, render
from detector.evaluation.foreign import foreign_detections, have_masks
from detector.evaluation.predictions import read_predictions
from detector.evaluation.table import beyond
from detector.evaluation.truth_file import write_truth
from detector.masks import MaskOutput
from detector.training.evaluate import describe_environment, write_metrics
from detector.training.folder import COMMAND, PREDICTIONS, script_command
from detector.training.report import write_page
from detector.training.saving import write_text


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
    final = completed(config)
    final.dataset.metrics = metric_nodes(final.dataset.metrics)
    resolved: Any = OmegaConf.to_container(final, resolve=True)
    rows = read_predictions(path)
    dataset = instantiate_split(final.dataset.val)
    masks = have_masks(rows)
    state = foreign_detections(rows, dataset.ground_truth(), dataset.category_ids, masks)
    measured = [MaskOutput()] if masks and getattr(dataset, "has_masks", False) else []
    small, large = final.dataset.size_bins
    collector = Collector(
        dataset.ground_truth(), dataset.category_ids, (small, large), measured, final.dataset.detections
    )
    collector.merge([state])
    results: dict[str, float] = {}
    for metric in build_metrics(final.dataset.metrics, collector):
        results |= metric.results()
    folder.mkdir(parents=True, exist_ok=True)
    kept = OmegaConf.create({PREDICTIONS: str(path), "data_dir": final.data_dir, "dataset": resolved["dataset"]})
    OmegaConf.save(kept, folder / "config.yaml")
    write_text(folder / COMMAND, script_command("evaluate", command_overrides(overrides)) + "\n")
    collector.write(folder)
    write_truth(collector, folder)
    metrics: dict[str, Any] = results | describe_environment(torch.device("cpu"))
    metrics |= {"env/predictions": str(path), "time/evaluation": time.perf_counter() - began}
    write_metrics(folder, metrics)
    console.print(render(results, (small, large), beyond(collector)))
    console.print(f"Written to {folder}: metrics.json, predictions/", markup=False)
    if config.report:
        write_page(collector, dataset, f"{path} on {final.dataset.name}", folder, console)
