"""A run from its configuration to its folder: training, evaluation, and what is written of them."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import ops
from detector import build
from detector.data.datamodule import DetectionDataModule, collate
from detector.evaluation import Evaluator, evaluators
from detector.evaluation.table import render
from detector.models.pooler import Pooler
from detector.task import DetectionTask
from detector.types import DetectionDataset
from detector.visualize import contact_sheet

log = logging.getLogger(__name__)


class CsvLogger(Logger):
    """Writes `metrics.csv` in a run's folder: a row a step, a column a metric; a resumed run goes on where it stopped.

    Lightning's own logger wants an empty folder of its own.
    """

    def __init__(self, folder: Path, start: int = 0) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, str]] = {}
        if start and self.path.is_file():
            with self.path.open(newline="") as file:
                self.rows = {int(row["step"]): row for row in csv.DictReader(file) if int(row["step"]) < start}

    @property
    def name(self) -> str:
        """No sub-folder."""
        return ""

    @property
    def version(self) -> str:
        """No sub-folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration is in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add numbers to the row of a step."""
        row = self.rows.setdefault(step or 0, {"step": str(step or 0)})
        row.update({name: repr(float(value)) for name, value in metrics.items() if name != "epoch"})

    @rank_zero_only
    def save(self) -> None:
        """Write the file anew."""
        names = sorted({name for row in self.rows.values() for name in row} - {"step"})
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *names])
            writer.writeheader()
            writer.writerows(self.rows[step] for step in sorted(self.rows))
        temporary.replace(self.path)

    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()


class Progress(RichProgressBar):
    """One bar for the whole run, with short names for the losses."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """`loss/class` is shown as `class`."""
        items = super().get_metrics(trainer, pl_module).items()
        return {name.removeprefix("loss/"): value for name, value in items if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        del current_epoch  # one Lightning epoch is the whole run
        return "Training"


class Levels(Callback):
    """Prints how many RoIs each level of the pyramid has given, once after the first steps and once at the end."""

    def __init__(self, after: int = 50) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Print after the first steps."""
        if trainer.global_step == self.after:
            self._print(module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Print at the end."""
        self._print(module)

    def _print(self, module: LightningModule) -> None:
        for name, part in module.named_modules():
            if isinstance(part, Pooler) and module.trainer.is_global_zero:
                counts = part.counts.tolist()
                total = max(sum(counts), 1)
                shares = "  ".join(
                    f"stride {round(1 / scale)}: {count / total:.0%}"
                    for scale, count in zip(part.scales, counts, strict=True)
                )
                log.info("RoIs by level of %s: %s (of %d)", name.removeprefix("model."), shares, sum(counts))
                if len(counts) > 2 and sum(count > 0.01 * total for count in counts) < 3:
                    log.warning("fewer than three levels have 1 %% of the RoIs: is dataset.canonical_size right?")


def _trainer(config: DictConfig, folder: Path, **kwargs: Any) -> Trainer:
    options: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    return Trainer(
        default_root_dir=folder,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the sampler shards itself, keyed by position
        enable_model_summary=False,
        **options,
        **kwargs,
    )


def _datamodule(config: DictConfig, train: DetectionDataset | None, val: DetectionDataset) -> DetectionDataModule:
    return DetectionDataModule(
        train=train,
        val=val,
        train_augment=build.instantiate(config.dataset.train_augment),
        val_augment=build.instantiate(config.dataset.val_augment),
        batch_size=config.schedule.batch_size,
        val_batch_size=config.schedule.val_batch_size,
        steps=config.schedule.steps * config.trainer.get("accumulate_grad_batches", 1),
        workers=config.workers,
        seed=config.seed,
        stride=max(config.backbone.strides),
    )


def build_evaluators(config: DictConfig, val: DetectionDataset) -> list[Evaluator]:
    """The metrics of the dataset, against the truth of `val`."""
    bins = tuple(config.dataset.size_bins)
    masks = val.has_masks and build.has_mask_head(config)
    return evaluators(list(config.dataset.metrics), val.ground_truth(), val.category_ids, bins, masks)


def fit(config: DictConfig, folder: Path, console: Console, resume: Path | None = None) -> dict[str, Any]:
    """Train as configured, then evaluate the last checkpoint; returns the metrics.

    Args:
        config: the composed configuration (`configs/train.yaml`).
        folder: the run's folder; it is made.
        console: where tables are printed.
        resume: a checkpoint to go on from.

    Raises:
        ValueError, OSError: the configuration or the data is at fault; before the first step.
    """
    began = time.perf_counter()
    lightning.seed_everything(config.seed, verbose=False)
    train, val = build.build_dataset(config, "train"), build.build_dataset(config, "val")
    data = _datamodule(config, train, val)
    if build.has_mask_head(config) and not train.has_masks:
        raise ValueError("model: it learns masks, and dataset.train has none; use model=faster_rcnn")
    if not val.ground_truth()["annotations"]:
        raise ValueError("dataset.val holds no object: there is nothing to evaluate on")
    config = build.compose_model(config, train.classes)
    backend = ops.backend()
    console.print(f"Operators: {backend.name} ({backend.reason})")
    data_ready = time.perf_counter()
    lightning.seed_everything(config.seed, verbose=False)
    task = DetectionTask(
        model=build.build_model(config),
        optimizer=build.instantiate(config.schedule.optimizer),
        scheduler=build.instantiate(config.schedule.scheduler),
        evaluators=build_evaluators(config, val),
        config=build.portable(config),
        seed=config.seed,
    )
    start = 0
    if resume is not None:
        content = build.read_checkpoint(resume)
        build.load_weights(task.model, content, str(resume))
        start = content["global_step"]
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    last = folder / "checkpoints" / "last.ckpt"
    every = config.schedule.validate_every
    loggers = (
        [build.instantiate(node, save_dir=str(folder)) for node in config.logger.values()] if config.logger else []
    )
    trainer = _trainer(
        config,
        folder,
        max_steps=config.schedule.steps,
        max_epochs=-1,
        gradient_clip_val=config.schedule.clip,
        val_check_interval=min(every, config.schedule.steps) * config.trainer.get("accumulate_grad_batches", 1),
        check_val_every_n_epoch=None,
        logger=[CsvLogger(folder, start), *loggers],
        callbacks=[
            Progress(),
            Levels(after=min(50, config.schedule.steps)),
            LearningRateMonitor("step"),
            ModelCheckpoint(
                last.parent, "best", monitor=config.schedule.monitor, mode="max", enable_version_counter=False
            ),
            ModelCheckpoint(
                last.parent,
                "last",
                every_n_train_steps=config.schedule.checkpoint_every,
                enable_version_counter=False,
            ),
        ],
    )
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    if trainer.interrupted:
        console.print(f"Interrupted at step {trainer.global_step}. Go on with: resume={last}")
        sys.exit(1)
    trainer.save_checkpoint(last)
    trained = time.perf_counter()
    metrics = evaluate(config, folder, console, task, val, trainer)
    metrics |= {"time/data": data_ready - began, "time/training": trained - data_ready}
    metrics["time/total"] = time.perf_counter() - began
    if trainer.is_global_zero:
        write_metrics(folder, metrics)
    return metrics


def evaluate(
    config: DictConfig,
    folder: Path,
    console: Console,
    task: DetectionTask,
    val: DetectionDataset,
    trainer: Trainer | None = None,
) -> dict[str, Any]:
    """Evaluate a detector on `val`: prints the table, writes `metrics.json`, `predictions/` and `pictures/`.

    Args:
        config: a complete configuration, classes included.
        folder: the run's folder.
        console: where the table is printed.
        task: the detector with its weights and evaluators.
        val: the dataset.
        trainer: the one that trained; a second one would start the other processes of a distributed run again.

    Returns:
        what `metrics.json` holds.
    """
    began = time.perf_counter()
    if trainer is None:
        trainer = _trainer(config, folder, logger=False, callbacks=[Progress()], enable_checkpointing=False)
    data = _datamodule(config, None, val)
    trainer.validate(task, data, verbose=False)
    metrics: dict[str, Any] = dict(task.metrics)
    metrics |= environment(trainer.strategy.root_device)
    metrics["time/evaluation"] = time.perf_counter() - began
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        for evaluator in task.evaluators:
            evaluator.write(folder)
        write_metrics(folder, metrics)
        console.print(render(task.metrics, tuple(config.dataset.size_bins)))
        _picture(folder / "pictures" / "predictions.png", task, data)
        console.print(f"Written to {folder}: metrics.json, predictions/, pictures/predictions.png")
    return metrics


def _picture(path: Path, task: DetectionTask, data: DetectionDataModule, count: int = 8) -> None:
    """A contact sheet of detections beside the truth, on images spread over the validation split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = min(count, len(data.val))
    rows = []
    task.eval()
    for i in range(count):
        sample = data.val[i * len(data.val) // count]
        batch = collate([data.val_augment(sample, 0)], data.stride)
        with torch.inference_mode():
            found = task.model(batch.to(task.device))[0].to("cpu")
        rows.append((sample.image, sample.target, found))
    contact_sheet(rows, data.val.classes, path)


def environment(device: torch.device) -> dict[str, str]:
    """Where numbers were measured: versions, device, commit (absent outside a git checkout), under `env/`."""
    facts = {
        "env/python": sys.version.split()[0],
        "env/torch": torch.__version__,
        "env/torchvision": torchvision.__version__,
        "env/lightning": lightning.__version__,
        "env/device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "env/threads": str(torch.get_num_threads()),
        "env/ops": ops.backend().name,
    }
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        facts["env/commit"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        log.debug("not a git checkout: no env/commit")
    return facts


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
