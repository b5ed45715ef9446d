"""End the processes of a distributed training when one of them has died, and say so."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from detector.training.interruption import TERMINATED

PERIOD = 0.5
"""Seconds between two looks."""

PATIENCE = 2.0
"""Seconds in which a process may still end in an ordinary way after another one has."""

GRACE = 10.0
"""Seconds for a process to end by itself, as gloo's communication fails at once, before it is ended; NCCL's waits."""

STARTER = "ALIGNED_RCNN_STARTER"
"""Variable with the process that has started this one."""

log = logging.getLogger(__name__)


class Peers(Callback):
    """Watch the other processes that Lightning has started on this machine; torchrun and SLURM watch theirs.

    The main process says which one has died: Lightning then ends them all, without a word. The others end where the
    main process has died.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()
        # Lightning starts the others after this, with this process's environment.
        self.parent = os.getppid()
        self.started = os.environ.get(STARTER) == str(self.parent)
        os.environ[STARTER] = str(os.getpid())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch, in a thread."""
        if not isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment):
            return
        self.ended = threading.Event()  # training and the evaluation after it are watched one after the other
        if processes := getattr(trainer.strategy.launcher, "procs", None):
            self._start(watch_children, processes)
        elif trainer.local_rank > 0 and self.started:
            self._start(watch_parent, self.parent)

    def _start(self, watch: object, *arguments: object) -> None:
        threading.Thread(target=watch, args=(*arguments, self.ended), name="peers", daemon=True).start()  # type: ignore[arg-type]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching."""
        self.ended.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching: this process ends by itself."""
        self.ended.set()


def watch_children(processes: Sequence[subprocess.Popen[bytes]], ended: threading.Event) -> None:
    """Say which of the processes that this one has started has died, unless this one ends."""
    while not ended.wait(PERIOD):
        codes = [process.poll() for process in processes]
        for rank, code in enumerate(codes, 1):
            if code not in (None, 0, TERMINATED):
                if not ended.wait(PATIENCE):
                    log.error("process %d of the training has ended %s; all are ended", rank, _described(code))
                return
        if None not in codes:
            return


def watch_parent(parent: int, ended: threading.Event) -> None:
    """End this process some time after the one that has started it, unless it ends by itself."""
    while os.getppid() == parent:
        if ended.wait(PERIOD):
            return
    if ended.wait(PATIENCE):
        return
    log.error("the main process of the training has ended; this one ends, too")
    if not ended.wait(GRACE):
        os._exit(1)


def _described(code: int) -> str:
    """Describe how a process has ended."""
    if code == -signal.SIGKILL:
        return "by SIGKILL, most often for want of memory"
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}; its own message says why"
