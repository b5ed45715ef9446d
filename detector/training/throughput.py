"""Measure how fast a run trains, and how long it waits for data."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from detector.training.against import peak_memory
from detector.training.task import is_logged
from detector.types import Batch

log = logging.getLogger(__name__)

LONG = 0.2
"""Share of the time from which on a run is told that it waited for data."""


class Throughput(Callback):
    """Log the images a second, the share of the time in which training waited for data, and the peak memory.

    `images_per_second` (of all processes) and `waiting` are over the last batches; validation and checkpoints do not
    count. `memory` is in MiB: of the tensors on a GPU, else of this process.

    Args:
        batches: the number of last batches.
    """

    def __init__(self, batches: int = 50) -> None:
        self.last: deque[tuple[int, float, float]] = deque(maxlen=batches)
        self.images = self.waited = self.computed = 0.0
        self._waited = self._began = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Note when the batch is there."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log the numbers; the first batch, for which workers and kernels start, is left out."""
        computed = time.perf_counter() - self._began
        assert trainer.train_dataloader is not None
        before, self._waited = self._waited, trainer.train_dataloader.waited
        if before:
            self.last.append((len(batch) * trainer.world_size, self._waited - before, computed))
            self.images += self.last[-1][0]
            self.waited += self.last[-1][1]
            self.computed += self.last[-1][2]
        if (batch_idx + 1) % trainer.accumulate_grad_batches or not is_logged(trainer, trainer.global_step - 1):
            return
        values = {"memory": peak_memory(pl_module.device) / 2**20}
        if self.last:
            images, waited, computed = (sum(values) for values in zip(*self.last, strict=True))
            seconds = waited + computed
            values |= {"images_per_second": images / seconds, "waiting": waited / seconds}
        # Tensors on the CPU: Lightning would copy a number to the GPU, and wait for it.
        pl_module.log_dict({name: torch.tensor(value) for name, value in values.items()})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how fast it was."""
        seconds = self.waited + self.computed
        if seconds and trainer.is_global_zero:
            log.info("Trained on %.3g images a second", self.images / seconds)
            if self.waited > LONG * seconds:
                log.warning(
                    "training waited for data %.0f %% of the time: raise workers=, or store smaller images",
                    100 * self.waited / seconds,
                )
