"""Loading: samples to batches, for Lightning."""

from __future__ import annotations

import os
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from detector.data.collate import Collate
from detector.data.stream import Augmentation, Augmented, InOrder, Stream, one_thread
from detector.types import DetectionDataset, Sample


class TrainLoader(DataLoader[Sample]):
    """The loader of a `Stream`, which Lightning can continue anywhere; its state is the number of batches trained on.

    The count is the trainer's, because the loader's own runs ahead of it: by what workers have prepared, and by the
    batch that is in work when a run is interrupted.
    """

    def __init__(self, data: Augmented, stream: Stream, trainer: lightning.Trainer | None, **options: Any) -> None:
        super().__init__(data, batch_sampler=stream, **options)
        self.stream = stream
        self.trainer = trainer

    def state_dict(self) -> dict[str, int]:
        """{"position": batches trained on}; called by Lightning as it saves."""
        if self.trainer is None:
            return {"position": self.stream.start}
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.state_dict()
        return {"position": int(progress["current"]["processed"])}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin at the batch after those trained on; called by Lightning before the first batch is drawn."""
        self.stream.start = state["position"]


class DetectionDataModule(lightning.LightningDataModule):
    """Batches for training and validation.

    One Lightning epoch is the whole run of `steps` batches: the dataset is gone through as often as that takes, without
    a break. The trainer must be given `use_distributed_sampler=False`, since the processes' shares are dealt here.

    Args:
        train: the training set; None where nothing is trained.
        val: the validation set.
        train_augment: called with a sample and a seed that depends on (seed, epoch, index) alone.
        val_augment: called with a sample and 0.
        steps: batches in the run.
        batch_size: images in a training batch, over all processes together.
        val_batch_size: images in a validation batch of one process. Images of unequal size are padded to the largest,
            which changes their features at the border; 1 avoids that.
        workers: processes that prepare batches; None is the cores but one, at most 2. Small images take a few
            milliseconds each, so that on two cores one worker keeps up, and a second would only take the training's
            threads away. More pays where images are large, or the training runs on a GPU.
        stride: the padded size is a multiple of it.
        seed: of the order and of the augmentation.

    Raises:
        ValueError: a number out of range, or datasets whose classes differ.
    """

    def __init__(
        self,
        train: DetectionDataset | None,
        val: DetectionDataset,
        train_augment: Augmentation,
        val_augment: Augmentation,
        *,
        steps: int,
        batch_size: int,
        val_batch_size: int = 1,
        workers: int | None = None,
        stride: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        numbers = {"steps": steps, "batch_size": batch_size, "val_batch_size": val_batch_size, "stride": stride}
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        if seed < 0 or (workers is not None and workers < 0):
            raise ValueError(f"seed and workers must not be negative, not {seed} and {workers}")
        if train is not None and list(train.classes) != list(val.classes):
            raise ValueError(
                f"the classes of the training set {list(train.classes)} differ from the validation set's "
                f"{list(val.classes)}; both must list the same, in the same order of ids"
            )
        self.train, self.val = train, val
        self.train_augment, self.val_augment = train_augment, val_augment
        self.steps, self.batch_size, self.val_batch_size = steps, batch_size, val_batch_size
        self.workers = min(max((os.cpu_count() or 1) - 1, 1), 2) if workers is None else workers
        self.stride, self.seed = stride, seed

    def train_dataloader(self) -> TrainLoader:
        """The stream of batches of this process, from the run's beginning or, when resuming, from where it stood."""
        if self.train is None:
            raise ValueError("there is no training set")
        rank, world_size = self._place()
        if self.batch_size % world_size:
            raise ValueError(
                f"batch_size {self.batch_size} counts the images of all processes and must be a multiple of their "
                f"number, {world_size}"
            )
        stream = Stream(len(self.train), self.steps, self.batch_size, self.seed, rank=rank, world_size=world_size)
        return TrainLoader(
            Augmented(self.train, self.train_augment, self.seed), stream, self.trainer, **self._options()
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """This process's share of the validation set; all shares together hold every image once."""
        rank, world_size = self._place()
        data = InOrder(self.val, self.val_augment, rank=rank, world_size=world_size)
        return DataLoader(data, self.val_batch_size, **self._options())

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _options(self) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "collate_fn": Collate(self.stride),
            "worker_init_fn": one_thread,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.workers > 0,
            # A generator of its own: the loader's draws must not shift the model's random numbers.
            "generator": torch.Generator().manual_seed(self.seed),
        }
