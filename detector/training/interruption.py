"""End a run when it is asked to: Ctrl-C, and SIGTERM of a scheduler."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console

log = logging.getLogger(__name__)

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM (143), as shells and schedulers know it: the job did not end by itself, and can go on."""


class Interruption(Checkpoint):
    """Handle Ctrl-C and SIGTERM: finish the current step, save a checkpoint and stop; a second Ctrl-C stops at once.

    SLURM, Kubernetes and torchrun send SIGTERM, often more than once, and kill the job some 30 seconds later. All of
    several processes stop after the same step as soon as one was asked. SIGTERM stops a validation at once: the
    checkpoint is of its start.

    Lightning calls checkpoints after all other callbacks, so that what these keep of the step is saved with it. The run
    is left at the next hook: Lightning writes a step's numbers to the loggers after the last of its callbacks.

    Args:
        checkpoint: the file to save.
        console: where the command to resume is printed.
    """

    def __init__(self, checkpoint: Path, console: Console) -> None:
        self.checkpoint, self.console = checkpoint, console
        self.asked: int | None = None
        self.saved = False
        """whether the step is saved, and the run is to be left"""
        self.number: int | None = None
        """the signal that it is left for; None: another process was asked"""
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked = number
        signal.signal(number, self.before[number] if number == signal.SIGINT else signal.SIG_IGN)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after a signal, when all batches of the step are done."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and self._is_asked(trainer):
            self._save(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop, where the step before is saved."""
        self._leave(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, or save, since a validation can take longer than a scheduler waits."""
        if trainer.state.fn == "fit":
            self._leave(trainer)
            trainer.save_checkpoint(self.checkpoint, weights_only=False)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop after SIGTERM."""
        if self.before and trainer.world_size == 1 and self.asked == signal.SIGTERM:
            self.saved, self.number = True, self.asked
            self._leave(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and stop after a signal in the last validation; else restore the previous handlers."""
        self._leave(trainer)
        if self._is_asked(trainer):
            self._save(trainer)
            self._leave(trainer)
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the previous handlers; after a signal the error that it led to counts as the interruption."""
        self._restore()
        self._leave(trainer, exception)
        if self.asked is not None:
            log.warning("Stopped without a new checkpoint: %s", exception)
            raise _ending(self.asked) from exception

    def _is_asked(self, trainer: Trainer) -> bool:
        """Whether this process was asked to stop, or another one that trains with it."""
        asked = self.asked is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        return asked

    def _save(self, trainer: Trainer) -> None:
        self.number, self.asked = self.asked, None  # from here on, an error is one of saving
        trainer.save_checkpoint(self.checkpoint, weights_only=False)
        self.saved = True

    def _leave(self, trainer: Trainer, cause: BaseException | None = None) -> None:
        """Stop, if the step is saved."""
        if not self.saved:
            return
        self.saved, self.asked = False, None
        if cause is not None:
            log.warning("The step was saved before: %s", cause)
        if trainer.is_global_zero:
            self.console.print(
                f"Stopped at step {trainer.global_step}. Resume with: resume={self.checkpoint}",
                markup=False,
                soft_wrap=True,
            )
        raise _ending(self.number) from cause

    def _restore(self) -> None:
        for number, before in self.before.items():
            if signal.getsignal(number) in (self._ask, signal.SIG_IGN):
                signal.signal(number, before)
        self.before = {}


def _ending(number: int | None) -> BaseException:
    """Return what ends a process after a signal; None: one that stops since another was asked."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(TERMINATED)
