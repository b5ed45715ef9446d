"""Train a detector (`scripts/train.py`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

import ops
from detector.config.build import build_collector, build_metrics, build_mixing, instantiate
from detector.config.compose import command_overrides
from detector.config.resolve import AUTO, Resolved, resolve
from detector.data.augment import Augment
from detector.data.datamodule import DetectionDataModule
from detector.training.averaging import WeightAverage
from detector.training.callbacks import (
    BestCheckpoint,
    Clock,
    CsvLogger,
    KeptCheckpoints,
    LastCheckpoint,
    Patience,
    RoILevels,
)
from detector.training.compilation import Compilation, chosen_parts
from detector.training.evaluate import (
    available_metrics,
    detect_on_whole,
    evaluate,
    make_trainer,
    tiling_of,
    write_metrics,
)
from detector.training.failures import explained
from detector.training.folder import COMMAND, is_finished, train_command
from detector.training.interruption import Interruption
from detector.training.normalisation import check_smallest_image, shares_statistics, watch_batch_norms
from detector.training.peers import Peers
from detector.training.pictures import Pictures
from detector.training.resume import checkpoint_to_resume, keep_later, run_folder_of
from detector.training.saving import Checkpoints, copy_file, write_text
from detector.training.task import DetectionTask
from detector.training.throughput import Throughput
from detector.weights import changed_settings
from detector.weights.checkpoints import load_checkpoint, read_checkpoint
from detector.weights.initial import load_initial


def train(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Train a new run or resume one, then evaluate it.

    Args:
        config: composed from `configs/train.yaml`. Its `resume` is None for a new run; a checkpoint, whose run resumes
            in its own folder; or `auto`, which resumes the run in `folder`, if there is an unfinished one.
        overrides: from the command line.
        folder: the run's folder.
        console: where progress and tables are printed.

    Raises:
        ValueError, OSError: the configuration or the data is invalid; raised before the first step.
    """
    clock = Clock()
    command = train_command(command_overrides([o for o in overrides if not o.lstrip("+").startswith("resume=")]))
    if config.resume not in (None, AUTO):
        checkpoint = Path(config.resume).absolute()
        run = run_folder_of(checkpoint)
        resolved = resolve(config, overrides)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # Hydra has created it for a new run
        fit(resolved, run, console, clock, checkpoint)
        return
    resolved = resolve(config, overrides)
    if config.resume is None:
        if (folder / "checkpoints" / "last.ckpt").is_file() or is_finished(folder):
            raise ValueError(
                f"{folder} holds a run, which a new one would overwrite: give another folder (hydra.run.dir=...), or "
                "go on with that run by resume=auto"
            )
        fit(resolved, folder, console, clock, command=command)
        return
    finished, last = checkpoint_to_resume(folder, OmegaConf.to_container(resolved.config, resolve=True), console)
    if not finished:
        fit(resolved, folder, console, clock, last, command)


def fit(
    resolved: Resolved,
    folder: Path,
    console: Console,
    clock: Clock,
    resume: Path | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Train, then evaluate the last checkpoint.

    Args:
        resolved: the final configuration, with both splits of the dataset.
        folder: the run's folder; it is created.
        console: where progress and tables are printed.
        clock: started at the beginning of the run.
        resume: checkpoint to resume from; None: a new run.
        command: the run's command, to record in its folder; None: keep the recorded one.

    Returns:
        the content of `metrics.json`.

    Raises:
        ValueError, OSError: the configuration or the data is invalid; raised before the first step.
    """
    config, val = resolved.config, resolved.datasets["val"]
    tiling = tiling_of(config)
    batches = config.trainer.get("accumulate_grad_batches", 1)  # per step
    data = DetectionDataModule(
        train=resolved.datasets["train"],
        val=val,
        train_augment=instantiate(config.dataset.train_augment),
        val_augment=Augment() if tiling is not None else instantiate(config.dataset.val_augment),
        steps=config.schedule.steps * batches,
        batch_size=config.schedule.batch_size,
        val_batch_size=1 if tiling is not None else config.schedule.val_batch_size,
        workers=config.workers,
        stride=config.backbone.size_divisibility,
        seed=config.seed,
        mixing=build_mixing(config.dataset),
        repeat_threshold=config.dataset.get("repeat_threshold"),
        empty_share=config.dataset.get("empty_share"),
    )
    if data.epochs is not None and data.epochs.chosen:
        console.print(data.epochs.summary())
    backend = ops.backend()
    console.print(
        f"Operators: {backend.name} ({backend.reason}); precision: {config.trainer.precision}", soft_wrap=True
    )
    data_ready = time.perf_counter()
    lightning.seed_everything(config.seed, verbose=False)
    model = instantiate(config.model)  # `resolve` has checked that its heads fit the backbone
    collector = build_collector(model.heads.outputs, val, config.dataset.size_bins, config.dataset.detections)
    metrics = build_metrics(config.dataset.metrics, collector)
    validation_loss = bool(config.schedule.get("validation_loss")) and tiling is None  # of whole images
    losses = ["val_loss"] if validation_loss else []
    _check_monitor(config.schedule.monitor, [*available_metrics(collector, metrics, val), *losses])
    task = DetectionTask(
        model=model,
        optimizer=instantiate(config.schedule.optimizer),
        scheduler=instantiate(config.schedule.scheduler),
        collector=collector,
        metrics=metrics,
        config=resolved.portable,
        seed=config.seed,
        skip_bad_steps=config.schedule.get("skip_bad_steps") or 0,
        validation_loss=validation_loss,
        detect=detect_on_whole(model, config, tiling),
    )
    if isinstance(parts := config.trainer.get("compile"), ListConfig):
        chosen_parts(model, parts)  # a wrong name is told before anything is written
    start = 0
    if resume is not None:
        content = read_checkpoint(resume)
        load_checkpoint(model, content, str(resume))
        start = content["global_step"]
        if start >= config.schedule.steps:
            console.print(
                f"{folder} has done its {start} steps, and is evaluated again; schedule.steps=MORE goes on with it",
                markup=False,
                soft_wrap=True,
            )
    else:
        initial = resolved.initial
        changed = [] if initial is None or initial.config is None else changed_settings(config, initial.config)
        lines = load_initial(
            model, initial, config.classes, changed, OmegaConf.to_container(config.backbone, resolve=True)
        )
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        if resolved.proposer is not None:
            model.proposer.load_state_dict(resolved.proposer)
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "checkpoints" / "last.ckpt"
    best = BestCheckpoint(last.parent, config.schedule.monitor, config.schedule.monitor_mode)
    every = config.schedule.checkpoint_every
    callbacks: list[Callback] = [
        clock,
        Peers(),
        Throughput(),
        RoILevels(after=min(50, config.schedule.steps)),
        LearningRateMonitor("step"),
        best,
        LastCheckpoint(last.parent, every),
    ]
    if (kept := config.schedule.get("keep_every")) is not None:
        callbacks.append(KeptCheckpoints(last.parent, kept))
    if (patience := config.schedule.get("patience")) is not None:
        callbacks.append(Patience(config.schedule.monitor, patience, config.schedule.monitor_mode))
    if config.logger and "tensorboard" in config.logger:
        callbacks.append(Pictures(data))  # before the average is swapped back
    if parts:
        callbacks.append(Compilation(None if parts is True else list(parts)))
    average = None if (decay := config.schedule.get("ema")) is None else WeightAverage(decay)
    if average is not None:
        callbacks.append(average)
    callbacks.append(Interruption(last, console))
    loggers = [instantiate(node, save_dir=str(folder)) for node in config.logger.values()] if config.logger else []
    trainer = make_trainer(
        config.trainer,
        folder,
        max_steps=config.schedule.steps,
        max_epochs=-1,
        gradient_clip_val=config.schedule.clip,
        val_check_interval=min(config.schedule.validate_every, config.schedule.steps) * batches,
        check_val_every_n_epoch=None,
        logger=[CsvLogger(folder, start), *loggers],
        callbacks=callbacks,
    )
    watch_batch_norms(model)
    images = config.schedule.batch_size // (1 if shares_statistics(model.backbone) else trainer.world_size)
    check_smallest_image(model.backbone, resolved.datasets["train"], data.train_augment, images, data.stride)
    if trainer.is_global_zero:
        if resume is not None:
            keep_later(folder, resume, config.schedule.steps, console)
        write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        if command is not None:
            write_text(folder / COMMAND, command + "\n")
    with explained(task, last):
        trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(last, weights_only=False)
    if average is not None:
        average.swap(task)  # what is evaluated below
    trained = time.perf_counter()
    result = evaluate(resolved, data, folder, console, task, trainer)
    keep_best(best, last, result | task.losses, trainer)
    result |= {"time/data": data_ready - clock.began, "time/training": clock.before + trained - data_ready}
    result["time/total"] = clock.before + time.perf_counter() - clock.began
    if trainer.is_global_zero:
        write_metrics(folder, result)
    return result


def _check_monitor(monitor: str, available: Sequence[str]) -> None:
    """Check that the metric of the best checkpoint is defined on the validation split.

    Raises:
        ValueError: it is not; the message lists those that are.
    """
    logged = [name for name in available if name.count("/") == 1 or name == "val_loss"]
    if monitor not in logged:
        raise ValueError(
            f"schedule.monitor={monitor} is not measured on dataset.val; use one of: {', '.join(logged) or 'none'}"
        )


def keep_best(best: ModelCheckpoint, last: Path, metrics: Mapping[str, float], trainer: Trainer) -> None:
    """Copy the last checkpoint to `best.ckpt` if the final evaluation is the best one, and record its score in both."""
    before, now = best.best_model_score, metrics.get(str(best.monitor))
    if not trainer.is_global_zero or now is None:
        return
    if before is None or (now < float(before) if best.mode == "min" else now > float(before)):
        path = last.with_name("best.ckpt")
        content = torch.load(last, map_location="cpu", weights_only=True)
        score, name = torch.tensor(now), str(path)
        # So that the run, if it goes on, keeps only what is better.
        content["callbacks"][best.state_key] |= {
            "best_model_score": score,
            "best_model_path": name,
            "kth_best_model_path": name,
            "kth_value": score,
            "best_k_models": {name: score},
        }
        Checkpoints().save_checkpoint(content, last)
        copy_file(last, path)
