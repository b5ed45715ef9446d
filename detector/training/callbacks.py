"""Loggers and callbacks of a run: metrics.csv, progress bar, RoIs by level, elapsed time, Ctrl-C."""

from __future__ import annotations

import csv
import logging
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from detector.models.pooler import Pooler

log = logging.getLogger(__name__)


class CsvLogger(Logger):
    """Write `metrics.csv` in a run's folder: a row for each step, a column for each metric.

    Lightning's CSVLogger needs an empty folder; this one continues the file of a resumed run.

    Args:
        folder: the run's folder.
        start: the step that the run resumes from; earlier rows are kept, later ones dropped.
    """

    def __init__(self, folder: Path, start: int = 0) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, str]] = {}
        self.columns: list[str] = []
        self.written = 0  # number of complete rows in the file, and the position of their end
        self.end = 0
        if start and self.path.is_file():
            with self.path.open(newline="") as file:
                self.rows = {int(row["step"]): row for row in csv.DictReader(file) if int(row["step"]) < start}

    @property
    def name(self) -> str:
        """Return the empty string: no sub-folder."""
        return ""

    @property
    def version(self) -> str:
        """Return the empty string: no sub-folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add metrics to the row of a step."""
        row = self.rows.setdefault(step or 0, {"step": str(step or 0)})
        row.update({name: repr(float(value)) for name, value in metrics.items() if name != "epoch"})

    @rank_zero_only
    def save(self) -> None:
        """Append new rows to the file, and replace the last one; a new column rewrites the whole file."""
        columns = ["step", *sorted({name for row in self.rows.values() for name in row} - {"step"})]
        rows = list(self.rows.values())
        fresh = columns != self.columns
        with self.path.open("w" if fresh else "r+", newline="") as file:
            writer = csv.DictWriter(file, columns)
            if fresh:
                writer.writeheader()
            else:
                file.seek(self.end)
                file.truncate()
            writer.writerows(rows[0 if fresh else self.written : -1])
            self.end = file.tell()
            writer.writerows(rows[-1:])
        self.columns, self.written = columns, max(len(rows) - 1, 0)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the remaining rows."""
        self.save()


class Progress(RichProgressBar):
    """Show one progress bar for the whole run, with short names of the losses."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics to show; `loss/class` becomes `class`."""
        items = super().get_metrics(trainer, pl_module).items()
        return {name.removeprefix("loss/"): value for name, value in items if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        del current_epoch  # for Lightning, the whole run is one epoch
        return "Training"


class RoILevels(Callback):
    """Log the share of RoIs pooled from each pyramid level, after the first steps and at the end.

    Args:
        after: steps before the first log.
    """

    def __init__(self, after: int = 50) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Log after the first steps."""
        if trainer.global_step == self.after and self.after < trainer.max_steps:
            self.after = -1  # only once: with accumulated gradients a step has several batches
            self._log(module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Log at the end."""
        self._log(module)

    def _log(self, module: LightningModule) -> None:
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
                    log.warning(
                        "fewer than three levels have 1 % of the RoIs each: does dataset.canonical_size fit the images?"
                    )


class Clock(Callback):
    """Measure the time of a run, summed over its resumptions; time lost since the last checkpoint does not count."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.before = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the elapsed seconds, to store in the checkpoint."""
        return {"seconds": self.before + time.perf_counter() - self.began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the elapsed seconds from the resumed checkpoint."""
        self.before = float(state_dict["seconds"])


class Interruption(Callback):
    """Handle Ctrl-C: finish the current step, save a checkpoint and stop; a second Ctrl-C stops at once."""

    def __init__(self, checkpoint: Path, console: Console) -> None:
        self.checkpoint, self.console = checkpoint, console
        self.interrupted = False
        self.before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handler of Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, *_: Any) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self.before)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save and stop after Ctrl-C."""
        if self.interrupted:
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and stop after Ctrl-C in the last validation; else restore the previous handler."""
        if self.interrupted:
            self._stop(trainer)
        elif self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the previous handler; after Ctrl-C the error that it led to counts as the interruption."""
        if signal.getsignal(signal.SIGINT) == self._ask:
            signal.signal(signal.SIGINT, self.before)
        if self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt from exception

    def _stop(self, trainer: Trainer) -> None:
        self.interrupted = False
        trainer.save_checkpoint(self.checkpoint, weights_only=False)
        self.console.print(
            f"Stopped at step {trainer.global_step}. Resume with: resume={self.checkpoint}", markup=False
        )
        raise KeyboardInterrupt
