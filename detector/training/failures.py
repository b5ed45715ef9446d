"""Say what a run that fails between its first and last step was doing, and how to go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._dynamo.exc import TorchDynamoException

from detector.training.compilation import not_compiled
from detector.training.task import DetectionTask

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
_KILLED = re.compile(r"DataLoader worker .*(killed|exited unexpectedly)")
_PEER = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer")
_IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker")


@contextmanager
def explained(task: DetectionTask, last: Path) -> Iterator[None]:
    """Turn failures of memory, of loader processes and of files into messages that name the batch and the way out.

    Args:
        task: what is trained.
        last: the checkpoint from which the run could go on.

    Raises:
        ValueError: the failure, in words.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError, ValueError) as error:
        message = _message(error, task)
        if message is None:
            raise
        way = f"; what was saved is whole: go on with resume={last}" if last.is_file() else ""
        raise ValueError(message + way) from error


def _message(error: Exception, task: DetectionTask) -> str | None:
    """Return the message of a failure; None if it speaks for itself."""
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _NO_MEMORY.search(text):
        return (
            f"memory ran out in {task.doing()}: give a smaller schedule.batch_size (with as much more of "
            "trainer.accumulate_grad_batches), dataset.train_augment.max_size or dataset.rois"
        )
    if _KILLED.search(text):
        return (
            f"a process that loads images was ended from outside after {task.doing()}, most often for want of memory: "
            "give fewer workers (workers=0: none), smaller images, or more shared memory (docker run --shm-size=1g)"
        )
    if isinstance(error, RuntimeError) and _PEER.search(text) and task.trainer.world_size > 1:
        first = text.strip().splitlines()[0]
        return f"another process of the training has ended or cannot be reached, in {task.doing()} ({first})"
    if isinstance(error, TorchDynamoException):
        return not_compiled(error)
    if _IN_WORKER.search(text):  # the message holds the worker's whole traceback
        return f"{text.strip().splitlines()[-1]} (after {task.doing()})"
    return f"{error} (after {task.doing()})" if isinstance(error, OSError) else None
