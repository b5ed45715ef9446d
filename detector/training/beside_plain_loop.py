"""Time the steps of a training beside a plain loop over the same model and the same batches, without Lightning."""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import DictConfig
from rich.console import Console

from detector.config.build import build_mixing, instantiate
from detector.config.compose import compose_config
from detector.config.resolve import PRECISIONS, Resolved, resolve
from detector.data.datamodule import DetectionDataModule, TrainLoader
from detector.training.callbacks import Clock
from detector.training.optim import parameter_groups
from detector.training.run import fit

WARMUP = 5
"""The first steps of each turn, which are not counted: kernels are chosen and loader processes start."""


def run(rounds: int, steps: int, device: torch.device) -> None:
    """Print the time of a step in both loops, by turns, for the configuration of the first command.

    Args:
        rounds: turns of each.
        steps: of each turn, beyond `WARMUP`.
        device: where to train.
    """
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"data_dir={os.environ.get('ALIGNED_RCNN_DATA', folder)}",
            "dataset.train.val=8",
            f"schedule.steps={WARMUP + steps}",
            f"schedule.validate_every={WARMUP + steps}",
            f"trainer={'gpu' if device.type == 'cuda' else 'cpu'}",
            "trainer.enable_progress_bar=false",
        ]
        resolved = resolve(compose_config(overrides), overrides)
        loops: dict[str, Callable[[Resolved, Path], None]] = {"plain": _plain, "Lightning": _lightning}
        times: dict[str, list[float]] = {name: [] for name in loops}
        for turn in range(rounds):
            for name, loop in loops.items():
                with _handed_out() as moments, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    loop(resolved, Path(folder) / f"{name}{turn}")
                taken = [after - before for before, after in pairwise(moments)][WARMUP:]
                times[name].append(statistics.median(taken))
    print(f"medians of {steps} steps, ms, in {rounds} turns\n\n| loop | by turn | median | beside the plain one |")
    print("|---|---|---|---|")
    plain = statistics.median(times["plain"])
    for name, values in times.items():
        middle = statistics.median(values)
        turns = ", ".join(f"{1e3 * value:.1f}" for value in values)
        print(f"| {name} | {turns} | {1e3 * middle:.1f} | {100 * (middle / plain - 1):+.1f} % |")


@contextmanager
def _handed_out() -> Iterator[list[float]]:
    """Collect the moments at which batches are handed out."""
    moments: list[float] = []
    original = TrainLoader.__iter__

    def watched(loader: TrainLoader) -> Iterator[Any]:
        for batch in original(loader):
            moments.append(time.perf_counter())
            yield batch

    TrainLoader.__iter__ = watched  # type: ignore[method-assign]
    try:
        yield moments
    finally:
        TrainLoader.__iter__ = original  # type: ignore[method-assign]


def _lightning(resolved: Resolved, folder: Path) -> None:
    fit(resolved, folder, Console(file=io.StringIO()), Clock())


def _plain(resolved: Resolved, folder: Path) -> None:
    del folder
    config: DictConfig = resolved.config
    augments = (instantiate(config.dataset[f"{split}_augment"]) for split in ("train", "val"))
    data = DetectionDataModule(
        resolved.datasets["train"],
        resolved.datasets["val"],
        *augments,
        steps=config.schedule.steps,
        batch_size=config.schedule.batch_size,
        workers=config.workers,
        stride=config.backbone.size_divisibility,
        seed=config.seed,
        mixing=build_mixing(config.dataset),
    )
    lightning.seed_everything(config.seed, verbose=False)
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    model = instantiate(config.model).to(device).train()
    optimizer = instantiate(config.schedule.optimizer)(parameter_groups(model))
    schedule = instantiate(config.schedule.scheduler)(optimizer)
    half = PRECISIONS[config.trainer.precision]
    for batch in data.train_dataloader():
        batch = batch.to(device, non_blocking=True)
        with torch.autocast(device.type, half, enabled=half is not None):
            loss = torch.stack(list(model.loss(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if config.schedule.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.schedule.clip)
        optimizer.step()
        schedule.step()
