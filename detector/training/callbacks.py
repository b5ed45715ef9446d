"""Loggers and callbacks of a run: metrics.csv, progress bar, RoIs by level, elapsed time."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

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
            lines = self.path.read_text().splitlines(keepends=True)
            if lines and not lines[-1].endswith("\n"):
                del lines[-1]  # the run was killed while it wrote this row
            self.rows = {int(row["step"]): row for row in csv.DictReader(lines) if int(row["step"]) < start}

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

    @property
    def total_train_batches(self) -> int | float:
        """Return the batches of the whole run; Lightning counts those that are left to a resumed one."""
        return self.trainer.num_training_batches

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin where a resumed run goes on."""
        super().on_train_epoch_start(trainer, pl_module)
        self._go_on(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar; Lightning leaves out `on_train_epoch_start` where a run resumes."""
        super().on_train_start(trainer, pl_module)
        if self.progress is not None and self.train_progress_bar_id is None:
            self._initialize_train_progress_bar_id()
        self._go_on(trainer)

    def _go_on(self, trainer: Trainer) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if self.progress is not None and self.train_progress_bar_id is not None:
            self.progress.reset(self.train_progress_bar_id, total=self.total_train_batches, completed=int(done))

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics to show; `loss/class` becomes `class`."""
        items = super().get_metrics(trainer, pl_module).items()
        return {name.removeprefix("loss/"): value for name, value in items if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        del current_epoch  # for Lightning, the whole run is one epoch
        return "Training"


class BestCheckpoint(ModelCheckpoint):
    """Save the checkpoint of the best validation, also of a run whose folder was moved, copied or renamed.

    Lightning (2.6) forgets the best score where the folder has another name, and the next validation replaces the file.

    Args:
        folder: where it is written, as `best.ckpt`.
        monitor: the metric.
        mode: "max" or "min".
    """

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False)

    @property
    def state_key(self) -> str:
        """Return the name of its state in a checkpoint: that of Lightning's class, as in earlier checkpoints."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember the trainer."""
        super().setup(trainer, pl_module, stage)
        self.trainer = trainer

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, unless the file that it is of is gone."""
        best = Path(str(self.dirpath)) / Path(state_dict["best_model_path"]).name
        known = self.trainer.strategy.broadcast(bool(state_dict["best_model_path"]) and best.is_file())
        if known:
            name, score = str(best), state_dict["best_model_score"]
            own = {"best_model_path": name, "kth_best_model_path": name, "best_k_models": {name: score}}
            super().load_state_dict(state_dict | own | {"dirpath": self.dirpath, "last_model_path": ""})


class LastCheckpoint(ModelCheckpoint):
    """Save a checkpoint every so many steps, each in place of the one before.

    It is saved when all batches of a step are done: where a run resumes, Lightning (2.6) saves its step again after the
    first batch of the next one.

    Args:
        folder: where it is written, as `last.ckpt`.
        every: steps.
    """

    def __init__(self, folder: Path, every: int, name: str = "last", **options: Any) -> None:
        super().__init__(folder, name, every_n_train_steps=every, enable_version_counter=False, **options)

    @property
    def state_key(self) -> str:
        """Return the name of its state in a checkpoint: that of Lightning's class, as in earlier checkpoints."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after the last batch of a step."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class KeptCheckpoints(LastCheckpoint):
    """Save a checkpoint every so many steps, and keep all.

    Args:
        folder: where they are written, as `step=STEP.ckpt`.
        every: steps.
    """

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__(folder, every, "step={step}", auto_insert_metric_name=False, save_top_k=-1)

    @property
    def state_key(self) -> str:
        """Return a name that differs from that of `LastCheckpoint`, which may save as often."""
        return f"{type(self).__qualname__}({self._every_n_train_steps})"


class Patience(EarlyStopping):
    """Stop after so many validations without a better metric, also where a run that was stopped so is resumed.

    Args:
        monitor: the metric.
        patience: validations; a resumed run may have another number.
        mode: "max" or "min".
    """

    def __init__(self, monitor: str, patience: int, mode: str) -> None:
        super().__init__(monitor, patience=patience, mode=mode, check_finite=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score and the count, but not the number."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop where it is time, and say so."""
        before = trainer.should_stop
        super().on_validation_end(trainer, pl_module)
        ended = trainer.should_stop and not before and trainer.global_step < trainer.max_steps
        if ended and trainer.is_global_zero:
            log.warning(
                "stopped at step %d: %d validations brought no better %s than %.4g; resume= with a larger "
                "schedule.patience, or null, goes on",
                trainer.global_step,
                self.wait_count,
                self.monitor,
                float(self.best_score),
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop a run that was stopped before."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
            log.warning(
                "the run was stopped at step %d by schedule.patience=%d; a larger one, or null, goes on with it",
                trainer.global_step,
                self.patience,
            )


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
                        "fewer than three levels have 1 % of the RoIs each: does dataset.canonical_size fit the "
                        "images? scripts/data.py suggest chooses one"
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
