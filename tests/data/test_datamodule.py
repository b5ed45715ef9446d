"""Loading: padding, the order of training, workers, resuming."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from detector.data.augment import Augment
from detector.data.collate import collate
from detector.data.datamodule import DetectionDataModule
from detector.data.epochs import Epochs
from detector.data.stream import Stream, prepare_worker
from detector.types import Batch, Sample, Target


class Numbers:
    """A dataset of N images whose pixels are their index, of unequal sizes."""

    classes = ("thing",)
    category_ids = (1,)
    has_masks = False

    def __init__(self, length: int = 7) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        size = 20 + index, 40 - index
        box = torch.tensor([[1.0, 2.0, 10.0 + index, 12.0]])
        flag = torch.zeros(1, dtype=torch.bool)
        target = Target(box, torch.zeros(1, dtype=torch.int64), flag, flag)
        return Sample(torch.full((3, *size), index + 1, dtype=torch.uint8), target, index, size)

    def ground_truth(self) -> dict[str, Any]:
        return {"images": [], "annotations": [], "categories": []}


def module(**options: Any) -> DetectionDataModule:
    flip = Augment(horizontal_flip=0.5)
    settings = {"steps": 9, "batch_size": 3, "workers": 0, "seed": 5, **options}
    return DetectionDataModule(Numbers(), Numbers(4), flip, Augment(), **settings)


def trace(batch: Batch) -> list[tuple[object, list[float]]]:
    """What tells a batch from another: its images and how they were augmented."""
    return [(i, t.boxes[0].tolist()) for i, t in zip(batch.ids, batch.targets, strict=True)]


def test_collate_pads_to_a_multiple_of_the_stride():
    samples = [Numbers()[0], Numbers()[6]]
    batch = collate(samples, 16)
    assert batch.images.shape == (2, 3, 32, 48)
    assert batch.images.dtype == torch.uint8
    assert batch.sizes == [(20, 40), (26, 34)]
    for image, sample in zip(batch.images, samples, strict=True):
        height, width = sample.size
        assert torch.equal(image[:, :height, :width], sample.image)
        assert image[:, height:].sum() + image[:, :, width:].sum() == 0
    assert (batch.ids, batch.proposals) == ([0, 6], None)
    samples[0].proposals = torch.zeros(2, 4)
    with pytest.raises(ValueError, match="1 of the 2 samples"):
        collate(samples, 16)
    samples[1].proposals = torch.zeros(5, 4)
    assert [len(p) for p in collate(samples, 16).proposals] == [2, 5]


def test_each_epoch_of_the_stream_is_a_permutation():
    epochs = [[Epochs(7, 3).place(p) for p in range(7 * e, 7 * e + 7)] for e in range(3)]
    for number, epoch in enumerate(epochs):
        assert {p.epoch for p in epoch} == {number}
        assert sorted(p.index for p in epoch) == list(range(7))
    assert len({tuple(p.index for p in epoch) for epoch in epochs}) == 3
    assert [Epochs(7, 4).place(p) for p in range(7)] != epochs[0]


def test_processes_share_the_batches_of_one():
    whole = list(Stream(Epochs(7, 0), 5, 4))
    parts = [list(Stream(Epochs(7, 0), 5, 4, rank=r, world_size=2)) for r in (0, 1)]
    assert [len(b) for part in parts for b in part] == [2] * 10
    for step, batch in enumerate(whole):
        assert sorted(map(repr, batch)) == sorted(repr(p) for part in parts for p in part[step])
    dealt = module(batch_size=3)
    dealt._place = lambda: (0, 2)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="multiple of their number, 2"):
        dealt.train_dataloader()


@pytest.mark.parametrize(("size", "processes", "smaller"), [(1, 2, 1), (1, 3, 1), (2, 2, 2), (3, 2, 3), (4, 3, 1)])
def test_processes_share_the_validation_batches_of_one(size, processes, smaller):
    whole = [batch.ids for batch in module(val_batch_size=smaller).val_dataloader()]
    parts = []
    for rank in range(processes):
        part = module(val_batch_size=size)
        part._place = lambda rank=rank: (rank, processes)  # type: ignore[method-assign]
        parts.append([batch.ids for batch in part.val_dataloader()])
    assert all(parts)
    assert [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)] == whole


def test_more_processes_than_validation_images_are_refused():
    few = module(val_batch_size=2, batch_size=10)
    few._place = lambda: (0, 5)  # type: ignore[method-assign]
    for load in (few.train_dataloader, few.val_dataloader):
        with pytest.raises(ValueError, match="4 validation images for 5 processes: use fewer devices"):
            load()


def test_workers_do_not_matter():
    runs = [[trace(b) for b in module(workers=workers).train_dataloader()] for workers in (0, 1, 2)]
    assert len(runs[0]) == 9
    assert runs[0] == runs[1] == runs[2]
    assert Counter(i for batch in runs[0][:7] for i, _ in batch) == dict.fromkeys(range(7), 3)
    assert len({tuple(box) for batch in runs[0] for _, box in batch}) > 7  # both flipped and not


def test_loading_does_not_touch_the_models_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(module().train_dataloader())
    list(module().val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_gives_every_image_once_in_order():
    for size in (1, 3):
        assert [i for b in module(val_batch_size=size).val_dataloader() for i in b.ids] == [0, 1, 2, 3]


class Recorder(lightning.LightningModule):
    """Writes down the batches that it is trained on; stops with an error before `fail_at`."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Linear(1, 1)
        self.seen: list[Any] = []
        self.fail_at = fail_at

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        if batch_idx == self.fail_at:
            raise RuntimeError("killed")
        self.seen.append(trace(batch))
        return self.weight(torch.ones(1, 1)).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        del batch, batch_idx

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Path, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=folder, **options,
    )  # fmt: skip


class Saver(lightning.Callback):
    """Saves after four steps: at the end of the batch, or of the validation that follows it."""

    def __init__(self, path: Path, after_validation: bool) -> None:
        self.path, self.after_validation = path, after_validation

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == 4 and not self.after_validation:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == 4 and self.after_validation:
            trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("after_validation", [True, False])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path, workers, after_validation):
    options = {"val_check_interval": 2, "enable_checkpointing": False}
    whole = Recorder()
    trainer(tmp_path, **options).fit(whole, module(workers=workers))
    assert len(whole.seen) == 9
    path = tmp_path / "saved.ckpt"
    first = Recorder(fail_at=5)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, callbacks=[Saver(path, after_validation)], **options).fit(first, module(workers=workers))
    second = Recorder()
    again = trainer(tmp_path, **options)
    again.fit(second, module(workers=workers), ckpt_path=path, weights_only=True)
    assert again.global_step == 9
    assert first.seen[:4] + second.seen == whole.seen


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps"), ({"batch_size": 0}, "batch_size"), ({"workers": -1}, "workers"), ({"seed": -1}, "seed")],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_datasets_of_other_classes_are_refused():
    other = Numbers()
    other.classes = ("other",)
    with pytest.raises(ValueError, match="differ"):
        DetectionDataModule(Numbers(), other, Augment(), Augment(), steps=1, batch_size=1)


class Handlers(Dataset[int]):
    """Items tell whether the process that reads them leaves Ctrl-C alone, and goes on after SIGTERM."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return int(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)


def test_workers_leave_signals_to_the_main_process() -> None:
    loader = DataLoader(Handlers(), num_workers=1, worker_init_fn=prepare_worker)
    assert [int(item) for item in loader] == [1, 1]
