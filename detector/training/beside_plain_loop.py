"""Time the steps of a training beside a plain loop without Lightning, step by step on the same batches."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from detector.config.build import instantiate
from detector.config.compose import compose_config
from detector.config.resolve import PRECISIONS, Resolved, resolve
from detector.data.datamodule import TrainLoader
from detector.training.callbacks import Clock
from detector.training.optim import parameter_groups
from detector.training.run import fit
from detector.types import Batch

WARMUP = 5
"""The first steps of both loops, which are not counted: kernels are chosen and memory is allocated."""
RESAMPLES = 2000
"""Resamples of the batches for an interval."""
LIMITS = torch.tensor([0.025, 0.975], dtype=torch.float64)
"""Quantiles of the resamples at which an interval ends."""
Seconds = tuple[float, float]
"""By the clock, and of the processors."""


def run(steps: int, device: torch.device, report: Callable[[str], None] = print) -> None:
    """Print the time of a step in both loops, for the configuration of the first command.

    One process runs a step of each in turn, so that noise hits both alike. A step of the plain loop is the batch's way
    to the device, the losses, their gradients, the clipping, and the steps of the optimiser and of the learning rate.
    Lightning's is all that happens from when it is given a batch until it asks for the next one: the same, its own
    loop, and this project's callbacks, logs and checkpoints. Loading, which is in this process, and the validation at
    the end are not counted. On a GPU each step is waited for.

    Args:
        steps: of each loop, beyond `WARMUP`.
        device: where to train.
        report: takes each line.
    """
    with tempfile.TemporaryDirectory() as folder:
        total = WARMUP + steps + 1  # after the last one, Lightning asks for no batch
        overrides = [
            f"data_dir={os.environ.get('ALIGNED_RCNN_DATA', folder)}",
            "dataset.train.val=8",
            f"schedule.steps={total}",
            f"schedule.validate_every={total}",
            f"trainer={'gpu' if device.type == 'cuda' else 'cpu'}",
            "trainer.enable_progress_bar=false",
            "workers=0",
        ]
        resolved = resolve(compose_config(overrides), overrides)
        for line in table(take_turns(resolved, Path(folder) / "run", PlainLoop(resolved.config, device))[:, WARMUP:]):
            report(line)


def take_turns(resolved: Resolved, folder: Path, plain: PlainLoop) -> Tensor:
    """Train by `fit` and by a plain loop, in turn.

    Args:
        resolved: the configuration.
        folder: of the run.
        plain: the plain loop.

    Returns:
        [2, steps - 1, 2] seconds of the plain loop's steps and of Lightning's, by the clock and of the processors; the
        last step, after which Lightning asks for no batch, is left out.
    """
    found: list[Alternating] = []
    original = TrainLoader.__iter__

    def watched(loader: TrainLoader) -> Iterator[Any]:
        found.append(Alternating(original(loader), plain))
        return found[-1]

    TrainLoader.__iter__ = watched  # type: ignore[method-assign]
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            fit(resolved, folder, Console(file=io.StringIO()), Clock())
    finally:
        TrainLoader.__iter__ = original  # type: ignore[method-assign]
    steps = resolved.config.schedule.steps - 1
    return torch.tensor([seconds[:steps] for seconds in found[0].seconds], dtype=torch.float64)


def table(taken: Tensor) -> list[str]:
    """Compare the steps of two loops in a Markdown table.

    Args:
        taken: [2, steps, 2] seconds of the plain loop and of Lightning's, by the clock and of the processors.

    Returns:
        its lines. A difference is that of both steps on a batch, in percent of the plain loop's step, with its 95 %
        interval by the bootstrap over batches.
    """
    steps = taken.shape[1]
    drawn = torch.randint(steps, (RESAMPLES, steps), generator=torch.Generator().manual_seed(0))
    lines = [f"{steps} steps of each loop, ms\n", "| | plain | Lightning | difference |", "|---|---|---|---|"]
    averages: dict[str, Callable[[Tensor], Tensor]] = {
        "median": lambda x: x.quantile(0.5, -1),
        "mean": lambda x: x.mean(-1),
    }
    for clock, (plain, other) in zip(("time", "processor time"), taken.permute(2, 0, 1), strict=True):
        for name, average in averages.items():
            usual, difference = average(plain), other - plain
            values = torch.cat([average(difference)[None], average(difference[drawn]).quantile(LIMITS)]) / usual
            found, low, high = (100 * values).tolist()
            times = " | ".join(f"{1e3 * float(value):.1f}" for value in (usual, average(other)))
            lines.append(f"| {clock}, {name} | {times} | {found:+.1f} % ({low:+.1f} to {high:+.1f}) |")
    return lines


class PlainLoop:
    """Train a detector without Lightning.

    Args:
        config: of a run.
        device: where to train.
    """

    def __init__(self, config: DictConfig, device: torch.device) -> None:
        lightning.seed_everything(config.seed, verbose=False)
        self.device, self.clip = device, config.schedule.clip
        self.half = PRECISIONS[config.trainer.precision]
        self.model = instantiate(config.model).to(device).train()
        self.optimizer = instantiate(config.schedule.optimizer)(parameter_groups(self.model))
        self.schedule = instantiate(config.schedule.scheduler)(self.optimizer)

    def step(self, batch: Batch) -> None:
        """Train on a batch."""
        batch = batch.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            loss = torch.stack(list(self.model.loss(batch).values())).sum()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()


class Alternating:
    """Run a step of the plain loop on each batch that Lightning is given, by turns before Lightning's and after it.

    So both loops follow the loading of a batch equally often.

    Args:
        batches: of the training.
        plain: the plain loop.
    """

    def __init__(self, batches: Iterator[Batch], plain: PlainLoop) -> None:
        self.batches, self.plain = batches, plain
        self.seconds: tuple[list[Seconds], list[Seconds]] = ([], [])
        """of each step of the plain loop and of Lightning's"""
        self.batch: Batch | None = None
        self.began = (0.0, 0.0)
        self.first = True  # the plain loop

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Return the next batch: Lightning's step on the one before is over."""
        if self.batch is not None:
            self.seconds[1].append(self._since(self.began))
            if not self.first:
                self._step(self.batch)
            self.first = not self.first
        self.batch = next(self.batches)
        if self.first:
            self._step(self.batch)
        self.began = self._since((0.0, 0.0))
        return self.batch

    def _step(self, batch: Batch) -> None:
        began = self._since((0.0, 0.0))
        self.plain.step(batch)
        self.seconds[0].append(self._since(began))

    def _since(self, began: Seconds) -> Seconds:
        if self.plain.device.type == "cuda":
            torch.cuda.synchronize(self.plain.device)
        return time.perf_counter() - began[0], time.process_time() - began[1]
