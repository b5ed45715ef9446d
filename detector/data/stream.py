"""The order of training as a function of the position alone, so that a run can be continued anywhere.

The samples of a run are one endless stream: epoch after epoch, each a new permutation of the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from detector.types import DetectionDataset, Sample

Augmentation = Callable[[Sample, int], Sample]


@dataclass(frozen=True)
class Place:
    """Where a sample stands in the stream."""

    epoch: int
    index: int
    """into the dataset"""


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(length)


def place(position: int, length: int, seed: int) -> Place:
    """What stands at `position` >= 0 in the stream over a dataset of `length` samples."""
    epoch, rest = divmod(position, length)
    return Place(epoch, int(_permutation(seed, epoch, length)[rest]))


class Stream(Sampler[list[Place]]):
    """The batches of a whole run, as far as this process has a share in them.

    Args:
        length: samples in the dataset.
        steps: batches in the run.
        batch_size: samples in a batch, over all processes together.
        seed: of the order.
        start: the first batch to give; `len` counts from 0 all the same, as Lightning expects when it resumes.
        rank: this process.
        world_size: processes; every one takes the `rank`-th, `rank + world_size`-th, ... sample of each batch.
    """

    def __init__(
        self, length: int, steps: int, batch_size: int, seed: int, *, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.length, self.steps, self.batch_size, self.seed = length, steps, batch_size, seed
        self.start, self.rank, self.world_size = start, rank, world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Place]]:
        for step in range(self.start, self.steps):
            positions = range(step * self.batch_size, (step + 1) * self.batch_size)
            yield [place(p, self.length, self.seed) for p in positions[self.rank :: self.world_size]]


class Augmented(Dataset[Sample]):
    """A dataset read by `Place`, its samples augmented; the random choices are keyed by (seed, epoch, index)."""

    def __init__(self, dataset: DetectionDataset, augment: Augmentation, seed: int) -> None:
        self.dataset, self.augment, self.seed = dataset, augment, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, where: Place) -> Sample:
        key = np.random.SeedSequence((self.seed, where.epoch, where.index))
        return self.augment(self.dataset[where.index], int(key.generate_state(1)[0]))


class InOrder(Dataset[Sample]):
    """Every `world_size`-th sample from `rank` on, in order and augmented with seed 0: for evaluation."""

    def __init__(self, dataset: DetectionDataset, augment: Augmentation, *, rank: int = 0, world_size: int = 1) -> None:
        self.dataset, self.augment = dataset, augment
        self.indices = range(rank, len(dataset), world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.augment(self.dataset[self.indices[index]], 0)


def one_thread(_worker: int) -> None:
    """Set up a worker of the loader: its parallelism is that there are several of it."""
    torch.set_num_threads(1)
