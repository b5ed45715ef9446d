"""Load batches for Lightning, and resume at any of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from detector.data.augment import Augment
from detector.data.collate import Collate
from detector.data.epochs import epochs_of
from detector.data.mixing import Mixing
from detector.data.stream import Augmentation, Augmented, InOrder, Stream, default_workers, prepare_worker
from detector.types import DetectionDataset, Sample


class TrainLoader(DataLoader[Sample]):
    """Load the batches of a `Stream`; its state, which Lightning saves, is the number of batches trained on.

    The trainer counts them, since the loader is ahead of it: by the batches that workers prefetch, and by the batch
    that is being trained on when a run is interrupted.
    """

    def __init__(self, data: Augmented, stream: Stream, trainer: lightning.Trainer | None, **options: Any) -> None:
        super().__init__(data, batch_sampler=stream, **options)
        self.stream = stream
        self.trainer = trainer
        self.waited = 0.0
        """Seconds for which batches were waited for."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Iterate over the batches, and measure how long each is waited for."""
        return _Timed(super().__iter__(), self)

    def state_dict(self) -> dict[str, int]:
        """Return {"position": batches trained on}; called by Lightning when it saves a checkpoint."""
        if self.trainer is None:
            return {"position": self.stream.start}
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.state_dict()
        return {"position": int(progress["current"]["processed"])}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start after the batches trained on; called by Lightning before it asks for the first batch."""
        self.stream.start = state["position"]


class _Timed:
    """Add to a loader's `waited` what each batch of its iterator takes to come."""

    def __init__(self, batches: Iterator[Any], loader: TrainLoader) -> None:
        self.batches, self.loader = batches, loader

    def __iter__(self) -> _Timed:
        return self

    def __next__(self) -> Any:
        began = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            self.loader.waited += time.perf_counter() - began


class DetectionDataModule(lightning.LightningDataModule):
    """Load training and validation batches.

    One Lightning epoch is the whole run of `steps` batches, in which the dataset is repeated as often as needed. The
    trainer must be given `use_distributed_sampler=False`, since the samples are divided among the processes here.

    Args:
        train: the training set; None if there is no training.
        val: the validation set.
        train_augment: called with a sample and a seed that depends on (seed, epoch, index) alone.
        val_augment: called with a sample and the seed 0.
        steps: batches in the run.
        batch_size: images of a training batch, over all processes.
        val_batch_size: images of a validation batch of one process. Images of different sizes are padded to the
            largest, which changes their features at the border; 1 avoids that.
        workers: processes that load images; None: `default_workers()`.
        stride: the padded height and width are multiples of it.
        seed: of the order and of the augmentation.
        mixing: parts that put further training images into one, after `train_augment`.
        repeat_threshold: images of classes in less than this share of the images are repeated within an epoch, by
            LVIS's rule (`repeat_factors`); None: none is.
        empty_share: at most this share of an epoch are images without objects; None: all that the training set has.

    Raises:
        ValueError: a number is out of range, the two sets have different classes, or a transform of an augmentation
            cannot be applied to their images.
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
        mixing: Sequence[Mixing] = (),
        repeat_threshold: float | None = None,
        empty_share: float | None = None,
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
        for dataset, augment in ((train, train_augment), (val, val_augment)):
            if dataset is not None and isinstance(augment, Augment) and augment.extra:
                augment.check(dataset[0])
        self.train, self.val = train, val
        self.train_augment, self.val_augment = train_augment, val_augment
        self.steps, self.batch_size, self.val_batch_size = steps, batch_size, val_batch_size
        self.workers = default_workers() if workers is None else workers
        self.stride, self.seed = stride, seed
        if train is not None:
            for mix in mixing:
                mix.prepare(train)
        self.mixing = mixing
        self.epochs = None if train is None else epochs_of(train, seed, repeat_threshold, empty_share)

    def train_dataloader(self) -> TrainLoader:
        """Make this process's training loader; when a run is resumed it starts at the next batch.

        Raises:
            ValueError: there is no training set, `batch_size` is not a multiple of the number of processes, or there
                are fewer validation images than processes.
        """
        if self.train is None or self.epochs is None:
            raise ValueError("there is no training set")
        rank, world_size = self._place()
        if self.batch_size % world_size:
            raise ValueError(
                f"batch_size {self.batch_size} counts the images of all processes and must be a multiple of their "
                f"number, {world_size}"
            )
        self._val_batches()
        stream = Stream(self.epochs, self.steps, self.batch_size, rank=rank, world_size=world_size)
        return TrainLoader(
            Augmented(self.train, self.train_augment, self.seed, self.mixing), stream, self.trainer, **self._options()
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Make the loader of this process's part of the validation batches; each image is in exactly one.

        Raises:
            ValueError: there are fewer images than processes.
        """
        return DataLoader(InOrder(self.val, self.val_augment), batch_sampler=self._val_batches(), **self._options())

    def _val_batches(self) -> list[list[int]]:
        """List this process's validation batches: those of a single process, dealt out, so that padding is the same.

        They are smaller where some processes would have none.
        """
        rank, world_size = self._place()
        images, size = range(len(self.val)), self.val_batch_size
        if world_size > 1:
            size = min(size, (len(images) - 1) // (world_size - 1))
        if len(images) < world_size:
            raise ValueError(f"{len(images)} validation images for {world_size} processes: use fewer devices")
        return [list(images[k : k + size]) for k in range(0, len(images), size)][rank::world_size]

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _options(self) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "collate_fn": Collate(self.stride),
            "worker_init_fn": prepare_worker,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.workers > 0,
            # Its own generator: drawing from the global one would change the model's random numbers.
            "generator": torch.Generator().manual_seed(self.seed),
        }
