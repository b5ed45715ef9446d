"""A run from its configuration to its folder: training, evaluation, and what is written of them."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

import ops
from detector.config import build
from detector.data.datamodule import DetectionDataModule, collate
from detector.evaluation import Evaluator
from detector.evaluation import evaluators as make_evaluators
from detector.evaluation.table import render
from detector.inference.proposing import adopt
from detector.training.callbacks import Clock, CsvLogger, Interruption, Levels, Progress
from detector.training.folder import COMMAND
from detector.training.task import DetectionTask
from detector.types import DetectionDataset, Objects
from detector.visualize import contact_sheet
from detector.weights import checkpoints
from detector.weights.initial import begin

log = logging.getLogger(__name__)


def _trainer(config: DictConfig, folder: Path, **kwargs: Any) -> Trainer:
    options: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    options["accelerator"] = _accelerator(str(config.trainer.accelerator))
    try:
        return Trainer(
            default_root_dir=folder,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the sampler shards itself, keyed by position
            enable_model_summary=False,
            **options,
            **kwargs,
        )
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error


def _progress(config: DictConfig) -> list[Progress]:
    """The progress bar, unless `trainer.enable_progress_bar=false`; checkpoints made before that key have one."""
    return [Progress()] if config.trainer.get("enable_progress_bar", True) else []


def _accelerator(name: str) -> str:
    """What `auto` stands for, without Apple's GPU, which has no float64 and which the operators do not know."""
    cuda = torch.cuda.is_available()
    if name == "auto":
        return "gpu" if cuda else "cpu"
    if name == "mps" or (name == "gpu" and not cuda and torch.backends.mps.is_available()):
        raise ValueError(f"trainer.accelerator={name}: the operators run on CPUs and CUDA's GPUs; take trainer=cpu")
    return name


PRECISIONS = {"32-true": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed"}
PRECISIONS |= {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  # Lightning's short names


def precision(config: DictConfig) -> str:
    """The run's precision; `auto` is bf16-mixed where the device multiplies matrices in it, else 32-true."""
    name = str(config.trainer.precision)
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name != "auto":
        raise ValueError(f"trainer.precision must be one of auto, {', '.join(PRECISIONS)}, not {name!r}")
    if config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = config.trainer.accelerator in ("auto", "cpu") and torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


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
        stride=config.backbone.size_divisibility,
    )


def build_evaluators(config: DictConfig, val: DetectionDataset) -> list[Evaluator]:
    """The metrics of the dataset, against the truth of `val`."""
    bins = tuple(config.dataset.size_bins)
    masks = val.has_masks and build.has_mask_head(config)
    paste = build.instantiate(config.paste)
    return make_evaluators(list(config.dataset.metrics), val.ground_truth(), val.category_ids, bins, masks, paste)


def measurable(evaluators: list[Evaluator], val: DetectionDataset) -> list[str]:
    """The names of the metrics that `val` allows: what its truth gives where nothing is detected."""
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, 1))
    images = val.ground_truth()["images"]
    names: list[str] = []
    for evaluator in evaluators:
        evaluator.update(
            [i["id"] for i in images], [nothing] * len(images), [(i["height"], i["width"]) for i in images]
        )
        names += evaluator.results()
        evaluator.reset()
    return names


def _check(config: DictConfig) -> None:
    """Numbers that no part looks at before it is too late."""
    if not isinstance(config.seed, int) or not 0 <= config.seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to 2^32 - 1, not {config.seed!r}")
    counts = ("steps", "batch_size", "val_batch_size", "validate_every", "checkpoint_every")
    for name in (*(f"schedule.{name}" for name in counts), "trainer.accumulate_grad_batches"):
        value = OmegaConf.select(config, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    if config.trainer.get("gradient_clip_algorithm") not in (None, "norm"):
        raise ValueError("trainer.gradient_clip_algorithm: gradients are clipped by norm; leave it out")
    if config.trainer.precision == "16-mixed" and config.schedule.optimizer.get("fused"):
        raise ValueError("trainer.precision=16-mixed needs schedule.optimizer.fused=false; or take bf16-mixed")
    if Path(config.data_dir).is_file():
        raise ValueError(f"data_dir={config.data_dir} is a file; give the folder where datasets lie or shall lie")


def settle(config: DictConfig) -> tuple[DictConfig, dict[str, Tensor] | None]:
    """The configuration with what is decided when a run begins: the precision, and the proposer, with its weights.

    Raises:
        ValueError, OSError: the configuration is at fault.
    """
    config.trainer.precision = precision(config)  # an evaluation elsewhere is to take the same
    _check(config)
    return adopt(config)


def fit(
    config: DictConfig, folder: Path, console: Console, resume: Path | None = None, command: str | None = None
) -> dict[str, Any]:
    """Train as configured, then evaluate the last checkpoint; returns the metrics.

    Args:
        config: the composed configuration (`configs/train.yaml`).
        folder: the run's folder; it is made.
        console: where tables are printed.
        resume: a checkpoint to go on from.
        command: what begins the run, kept beside its configuration.

    Raises:
        ValueError, OSError: the configuration or the data is at fault; before the first step.
    """
    clock = Clock()
    config, proposer = settle(config)
    train, val = build.build_dataset(config, "train"), build.build_dataset(config, "val")
    data = _datamodule(config, train, val)
    if build.has_mask_head(config) and not train.has_masks:
        raise ValueError(
            "model: it learns masks, and dataset.train has none; use a model without masks, such as faster_rcnn"
        )
    evaluators = build_evaluators(config, val)
    logged = [name for name in measurable(evaluators, val) if name.count("/") == 1]
    if config.schedule.monitor not in logged:
        found = ", ".join(logged) or "nothing"
        raise ValueError(f"schedule.monitor={config.schedule.monitor}: on dataset.val is measured: {found}")
    config = build.compose_model(config, train.classes)
    backend = ops.backend()
    console.print(f"Operators: {backend.name} ({backend.reason}); precision: {config.trainer.precision}")
    data_ready = time.perf_counter()
    lightning.seed_everything(config.seed, verbose=False)
    task = DetectionTask(
        model=build.build_model(config),
        optimizer=build.instantiate(config.schedule.optimizer),
        scheduler=build.instantiate(config.schedule.scheduler),
        evaluators=evaluators,
        config=checkpoints.portable(config),
        seed=config.seed,
    )
    if resume is None:
        for line in begin(task.model, config):
            console.print(line, markup=False, soft_wrap=True)
    if proposer is not None:
        task.model.proposer.load_state_dict(proposer)
    start = 0
    if resume is not None:
        content = checkpoints.read(resume)
        checkpoints.load(task.model, content, str(resume))
        start = content["global_step"]
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "checkpoints" / "last.ckpt"
    every = config.schedule.validate_every
    best = ModelCheckpoint(
        last.parent, "best", monitor=config.schedule.monitor, mode="max", enable_version_counter=False
    )
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
            *_progress(config),
            clock,
            Interruption(last, console),
            Levels(after=min(50, config.schedule.steps)),
            LearningRateMonitor("step"),
            best,
            ModelCheckpoint(
                last.parent,
                "last",
                every_n_train_steps=config.schedule.checkpoint_every,
                enable_version_counter=False,
            ),
        ],
    )
    if trainer.is_global_zero:
        OmegaConf.save(config, folder / "config.yaml", resolve=True)
        if command is not None:
            (folder / COMMAND).write_text(command + "\n", encoding="utf-8")
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(last, weights_only=False)
    trained = time.perf_counter()
    metrics = evaluate(config, folder, console, task, val, trainer)
    keep_best(best, last, metrics, trainer)
    metrics |= {"time/data": data_ready - clock.began, "time/training": clock.before + trained - data_ready}
    metrics["time/total"] = clock.before + time.perf_counter() - clock.began
    if trainer.is_global_zero:
        write_metrics(folder, metrics)
    return metrics


def keep_best(best: ModelCheckpoint, last: Path, metrics: Mapping[str, float], trainer: Trainer) -> None:
    """Let the end of the run count, where it fell between two validations."""
    before, now = best.best_model_score, metrics.get(str(best.monitor))
    if trainer.is_global_zero and now is not None and (before is None or now > float(before)):
        shutil.copyfile(last, last.with_name("best.ckpt"))


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
        trainer = _trainer(config, folder, logger=False, callbacks=_progress(config), enable_checkpointing=False)
    data = _datamodule(config, None, val)
    if task.measured_at is None or task.measured_at != trainer.global_step:
        trainer.validate(
            task, data, verbose=False, weights_only=True
        )  # else the run's last validation was of these very weights
    metrics: dict[str, Any] = dict(task.metrics)
    metrics |= environment(trainer.strategy.root_device) | {"env/precision": config.trainer.precision}
    metrics["env/parameters"] = str(sum(p.numel() for p in task.model.parameters()))
    metrics["time/evaluation"] = time.perf_counter() - began
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.yaml").exists():
            OmegaConf.save(config, folder / "config.yaml", resolve=True)
        for evaluator in task.evaluators:
            evaluator.write(folder)
        write_metrics(folder, metrics)
        console.print(render(task.metrics, tuple(config.dataset.size_bins)))
        task.to(trainer.strategy.root_device)  # Lightning has brought it back to the CPU
        with trainer.precision_plugin.forward_context():
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
