"""Order the training samples by a function of the position alone, so that a run can be resumed at any batch.

The samples of a run are one endless stream of epochs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from detector.data.epochs import Epochs, Place
from detector.data.mixing import Mixing
from detector.types import DetectionDataset, Sample

GRACE = 20.0
"""Seconds that a loader's worker goes on after SIGTERM."""

Augmentation = Callable[[Sample, int], Sample]


class Stream(Sampler[list[Place]]):
    """Sample the batches of a whole run for one process.

    Args:
        epochs: the samples of each epoch.
        steps: batches in the run.
        batch_size: samples of a batch, over all processes.
        start: the first batch to yield; `len` counts from batch 0, as Lightning expects when it resumes.
        rank: the number of this process.
        world_size: the number of processes; each takes samples `rank`, `rank + world_size`, ... of each batch.
    """

    def __init__(
        self, epochs: Epochs, steps: int, batch_size: int, *, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size
        self.start, self.rank, self.world_size = start, rank, world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Place]]:
        for step in range(self.start, self.steps):
            positions = range(step * self.batch_size, (step + 1) * self.batch_size)
            yield [self.epochs.place(p) for p in positions[self.rank :: self.world_size]]


class Augmented(Dataset[Sample]):
    """Read, augment and mix the samples of a dataset by `Place`; all is seeded by (seed, epoch, index).

    So are the random choices of training on them. Repetitions of a sample within an epoch are seeded by their number,
    too.

    Args:
        dataset: the training set.
        augment: called with each sample and a seed.
        seed: of all random choices.
        mixing: parts that put further samples into an image, one after the other; `prepare` has been called.
    """

    def __init__(
        self, dataset: DetectionDataset, augment: Augmentation, seed: int, mixing: Sequence[Mixing] = ()
    ) -> None:
        self.dataset, self.augment, self.seed, self.mixing = dataset, augment, seed, mixing

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, where: Place) -> Sample:
        key = (self.seed, where.epoch, where.index)
        repetition = (where.copy,) if where.copy else ()
        own, later = np.random.SeedSequence(key, spawn_key=repetition).generate_state(2)
        sample = self.read(where.index, int(own))
        for number, mix in enumerate(self.mixing):
            sequence = np.random.SeedSequence(key, spawn_key=(where.copy, number))
            sample = mix(sample, self, np.random.default_rng(sequence))
        return _seeded(sample, int(later))

    def read(self, index: int, seed: int) -> Sample:
        """Read and augment a sample."""
        return self.augment(self.dataset[index], seed)


def _seeded(sample: Sample, seed: int) -> Sample:
    """Seed the random choices of training on a sample."""
    return replace(sample, target=replace(sample.target, seed=seed))


class InOrder(Dataset[Sample]):
    """Read samples in order, augmented with seed 0, for evaluation; what a loss on one draws is seeded by its index."""

    def __init__(self, dataset: DetectionDataset, augment: Augmentation) -> None:
        self.dataset, self.augment = dataset, augment

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return _seeded(self.augment(self.dataset[index], 0), 2 * index)  # there are two choices an image


def prepare_worker(_worker: int) -> None:
    """Limit a loader's worker to one thread, since there are several, and leave signals to the main process.

    A terminal sends Ctrl-C to all processes of a command, torchrun and SLURM send SIGTERM likewise. If it ended the
    workers, the training could not finish its step; they end with the main process, when that asks them to, or `GRACE`
    seconds later. macOS and Windows do not tell who has sent a signal: there, SIGTERM ends them.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_end, daemon=True).start()


def _await_end() -> None:
    """End this process after SIGTERM: at once, where its parent has sent it."""
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)  # as torch's own handler
        threading.Timer(GRACE, os._exit, (128 + signal.SIGTERM,)).start()


def default_workers() -> int:
    """Return the number of loader processes: the cores but one, at least 1 and at most 2.

    Small images take a few milliseconds each, so that on two cores one worker keeps up, and a second would take the
    training's threads away. More pays where images are large, or where a GPU trains.
    """
    return min(max((os.cpu_count() or 1) - 1, 1), 2)
