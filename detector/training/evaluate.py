"""Evaluate a detector on the validation split, and write the results to the run's folder."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import ops
from detector.config.build import build_collector, build_metrics, instantiate, takes_proposals
from detector.config.overrides import key_of
from detector.config.resolve import Resolved, resolve
from detector.data.augment import Augment
from detector.data.datamodule import DetectionDataModule
from detector.evaluation import Collector, Metric, render
from detector.evaluation.table import foot
from detector.evaluation.truth_file import write_truth
from detector.inference.detect import Detect, TestTimeAugmentation
from detector.inference.evaluation import DetectOnWhole
from detector.inference.tiles import Tiling
from detector.models.rcnn import RCNN
from detector.names import PARENT
from detector.training.callbacks import Progress
from detector.training.pictures import detect_some
from detector.training.report import report
from detector.training.saving import Checkpoints, write_text
from detector.training.task import DetectionTask
from detector.types import DetectionDataset, Objects
from detector.visualize import contact_sheet

log = logging.getLogger(__name__)

DEFAULTS = {"overlap": 0.2, "join": "iou", "join_thresh": 0.5}
"""Of trainings from before `tiles` was one of their keys."""


def evaluate_checkpoint(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Evaluate a checkpoint on the dataset of its training, or on another one.

    Args:
        config: composed from `configs/evaluate.yaml`.
        overrides: from the command line.
        folder: folder of the results; it is created.
        console: where the table is printed.

    Raises:
        ValueError, OSError: the configuration, the checkpoint or the data is invalid.
    """
    tiling = Tiling.parse(config.tiles or None, config.overlap, config.join, config.join_thresh)
    test_time = TestTimeAugmentation.parse(config.test_time_augmentation)
    resolved = resolve(config, overrides, splits=("val",))
    assert resolved.trained is not None
    final, val = resolved.config, resolved.datasets["val"]
    if config.tiles is None:
        given = {key: config[key] for key in map(key_of, overrides) if key in DEFAULTS}
        tiling = tiling_of(resolved.trained.config, given)
    model = instantiate(final.model)  # `resolve` has checked that its heads fit the backbone
    resolved.trained.load(model)
    collector = build_collector(model.heads.outputs, val, final.dataset.size_bins, final.dataset.detections)
    augment = instantiate(final.dataset.val_augment)
    size = final.schedule.val_batch_size
    tiled = detect_on_whole(model, final, tiling, test_time)
    if tiled is not None:
        augment = Augment()  # none: `tiled` prepares the images, or their windows
        size = size if tiling is None else 1
    metrics = build_metrics(final.dataset.metrics, collector)
    task = DetectionTask(model, collector=collector, metrics=metrics, detect=tiled)
    data = DetectionDataModule(
        train=None,
        val=val,
        train_augment=augment,
        val_augment=augment,
        steps=1,
        batch_size=1,
        val_batch_size=size,
        workers=final.workers,
        stride=final.backbone.size_divisibility,
    )
    evaluate(resolved, data, folder, console, task)
    if config.report and task.global_rank == 0:
        trained = resolved.trained.config
        report(collector, val, str(final.dataset.name), trained, folder, str(config.checkpoint), console)


def tiling_of(config: DictConfig, given: Mapping[str, Any] | None = None) -> Tiling | None:
    """Return the windows that a training validates by; None where it takes images as a whole.

    Args:
        config: of the training.
        given: `overlap`, `join` and `join_thresh` that are to be other than there.

    Raises:
        ValueError: a value is out of range.
    """
    own = {key: config[key] for key in ("tiles", *DEFAULTS) if config.get(key) is not None}
    values = {**DEFAULTS, **own, **(given or {})}
    return Tiling.parse(own.get("tiles"), *(values[key] for key in DEFAULTS))


def detect_on_whole(
    model: RCNN, config: DictConfig, tiling: Tiling | None, test_time: TestTimeAugmentation | None = None
) -> DetectOnWhole | None:
    """Return what detects in images as they are on disk, window by window or several times; None without either.

    Raises:
        ValueError: the model does not propose its own regions, or has no masks to join by.
    """
    if tiling is None and test_time is None:
        return None
    if takes_proposals(config.model):
        raise ValueError("tiles and test_time_augmentation need a model that proposes its own regions; leave them out")
    if tiling is not None:
        tiling.check(any(o.needs == "masks" for o in model.heads.outputs))
    augment = instantiate(config.dataset.val_augment)
    limit = int(config.dataset.detections)
    detect = Detect(model, augment, config.backbone.size_divisibility, test_time, limit)
    return DetectOnWhole(detect, tiling, config.schedule.val_batch_size)


def evaluate(
    resolved: Resolved,
    data: DetectionDataModule,
    folder: Path,
    console: Console,
    task: DetectionTask,
    trainer: Trainer | None = None,
) -> dict[str, Any]:
    """Evaluate a detector: print a table, and write `metrics.json`, `predictions/` and `pictures/`.

    Args:
        resolved: the final configuration.
        data: the data module with the validation split.
        folder: the run's folder.
        console: where the table is printed.
        task: the detector with its weights, collector and metrics.
        trainer: the trainer of the training, since a second one would launch the processes of a distributed run again;
            None: a new one.

    Returns:
        the content of `metrics.json`.
    """
    config = resolved.config
    began = time.perf_counter()
    if trainer is None:
        trainer = make_trainer(config.trainer, folder, logger=False, enable_checkpointing=False)
    if task.measured_at is None or task.measured_at != trainer.global_step:
        trainer.validate(task, data, verbose=False, weights_only=True)  # else the last validation was of these weights
    metrics: dict[str, Any] = dict(task.results)
    metrics |= describe_environment(trainer.strategy.root_device) | {"env/precision": config.trainer.precision}
    metrics["env/parameters"] = str(sum(p.numel() for p in task.model.parameters()))
    metrics["time/evaluation"] = time.perf_counter() - began
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.yaml").exists():
            OmegaConf.save(config, folder / "config.yaml", resolve=True)
        assert task.collector is not None
        task.collector.write(folder)
        write_metrics(folder, metrics)
        write_truth(task.collector, folder)
        console.print(render(task.results, tuple(config.dataset.size_bins), foot(task.collector)))
        task.to(trainer.strategy.root_device)  # Lightning has moved the model back to the CPU
        with trainer.precision_plugin.forward_context():
            contact_sheet(detect_some(task, data), data.val.classes, folder / "pictures" / "predictions.png")
        written = ["metrics.json", "predictions/", "pictures/predictions.png"]
        written += ["checkpoints/"] if (folder / "checkpoints").is_dir() else []
        count = len(task.collector.images)
        measured = f"Measured on {count} image{'' if count == 1 else 's'}. Written to {folder}: {', '.join(written)}"
        console.print(measured, markup=False, soft_wrap=True)
    return metrics


def make_trainer(options: DictConfig, folder: Path, callbacks: Sequence[Callback] = (), **kwargs: Any) -> Trainer:
    """Build Lightning's trainer.

    Args:
        options: `config.trainer`, arguments of `lightning.Trainer`.
        folder: the run's folder.
        callbacks: callbacks besides the progress bar.
        kwargs: further arguments of `lightning.Trainer`.

    Raises:
        ValueError: Lightning refuses an option, or the operators do not run on the device.
    """
    given: dict[str, Any] = OmegaConf.to_container(options, resolve=True)  # type: ignore[assignment]
    given.pop("compile", None)
    given["accelerator"] = accelerator(str(options.accelerator))
    bar = [Progress()] if given.get("enable_progress_bar", True) else []
    try:
        return Trainer(
            default_root_dir=folder,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the batch sampler divides its batches among the processes
            enable_model_summary=False,
            callbacks=[*bar, *callbacks],
            plugins=[Checkpoints()],
            **given,
            **kwargs,
        )
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error


def accelerator(name: str) -> str:
    """Return Lightning's accelerator; `auto` is a CUDA GPU or the CPU, never Apple's GPU (mps), which has no float64.

    Raises:
        ValueError: it is Apple's GPU, on which the operators do not run.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        return "gpu" if cuda else "cpu"
    if name == "mps" or (name == "gpu" and not cuda and torch.backends.mps.is_available()):
        raise ValueError(f"trainer.accelerator={name}: the operators run on CPUs and CUDA GPUs only; use trainer=cpu")
    return name


def available_metrics(collector: Collector, metrics: Sequence[Metric], dataset: DetectionDataset) -> list[str]:
    """List the metrics that are defined on a dataset, by evaluating empty detections."""
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, 1))
    images = dataset.ground_truth()["images"]
    sizes = [(i["height"], i["width"]) for i in images]
    collector.update([i["id"] for i in images], [nothing] * len(images), sizes)
    names = [name for metric in metrics for name in metric.results()]
    collector.reset()
    return names


def describe_environment(device: torch.device) -> dict[str, str]:
    """Return versions, device and commit, or in an installation its version, under `env/`, for `metrics.json`."""
    facts = {
        "env/python": sys.version.split()[0],
        "env/torch": torch.__version__,
        "env/torchvision": torchvision.__version__,
        "env/lightning": lightning.__version__,
        "env/device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "env/threads": str(torch.get_num_threads()),
        "env/ops": ops.backend().name,
    }
    if PARENT:  # the repository that an installation may lie in is another one
        return {**facts, "env/version": version("aligned-rcnn")}
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        facts["env/commit"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        log.debug("not a git checkout: no env/commit")
    return facts


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json` in a run's folder."""
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, sort_keys=True) + "\n")
