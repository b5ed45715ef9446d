"""End a run when it is asked to: Ctrl-C, and SIGTERM of a scheduler."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM (143), as shells and schedulers know it: the job did not end by itself, and can go on."""


class Interruption(Callback):
    """Handle Ctrl-C and SIGTERM: finish the current step, save a checkpoint and stop; a second one stops at once.

    SLURM, Kubernetes and torchrun send SIGTERM, and kill the job some 30 seconds later. Of several processes, all stop
    after the same step as soon as one was asked. In a validation the run stops at once: the checkpoint is of its start.

    Args:
        checkpoint: the file to save.
        console: where the command to resume is printed.
    """

    def __init__(self, checkpoint: Path, console: Console) -> None:
        self.checkpoint, self.console = checkpoint, console
        self.asked: int | None = None
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked = number
        signal.signal(number, self._previous(number))

    def _previous(self, number: int) -> Any:
        """Return what a second signal does; that of SIGTERM is Lightning's, in place of which the system's ends all."""
        return self.before[number] if number == signal.SIGINT else signal.SIG_DFL

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop after a signal, when all batches of the step are done."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and self._is_asked(trainer):
            self._stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, since a validation can take longer than a scheduler waits."""
        if trainer.state.fn == "fit":
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
            self._leave(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and stop after a signal in the last validation; else restore the previous handlers."""
        if self._is_asked(trainer):
            self._stop(trainer)
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the previous handlers; after a signal the error that it led to counts as the interruption."""
        self._restore()
        if self.asked is not None and not isinstance(exception, KeyboardInterrupt | SystemExit):
            raise self._ending() from exception

    def _is_asked(self, trainer: Trainer) -> bool:
        """Whether this process was asked to stop, or another one that trains with it."""
        asked = self.asked is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        return asked

    def _ending(self) -> BaseException:
        """Return what ends this process; one that stops for another's sake was not asked itself."""
        return KeyboardInterrupt() if self.asked == signal.SIGINT else SystemExit(TERMINATED)

    def _stop(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint, weights_only=False)
        self._leave(trainer)

    def _leave(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self.console.print(
                f"Stopped at step {trainer.global_step}. Resume with: resume={self.checkpoint}",
                markup=False,
                soft_wrap=True,
            )
        raise self._ending()

    def _restore(self) -> None:
        for number, before in self.before.items():
            if signal.getsignal(number) == self._ask:
                signal.signal(number, before)
        self.before = {}
