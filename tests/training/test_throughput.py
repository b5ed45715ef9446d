"""What a run tells of its speed, and of its waiting for data."""

import logging

import lightning
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from detector.data import datamodule
from detector.data.datamodule import DetectionDataModule
from detector.training import throughput
from detector.training.throughput import Throughput
from detector.types import Batch, Sample, Target


class Time:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    for module in (throughput, datamodule):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Slow:
    """Images that each take a while to be read."""

    classes, category_ids, has_masks = ("thing",), (1,), False

    def __init__(self, clock: Time, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        self.clock.sleep(self.seconds)
        flag = torch.zeros(1, dtype=torch.bool)
        target = Target(torch.tensor([[1.0, 1.0, 9.0, 9.0]]), flag.long(), flag, flag)
        return Sample(torch.zeros(3, 16, 16, dtype=torch.uint8), target, index, (16, 16))


class Sleeper(lightning.LightningModule):
    def __init__(self, clock: Time, seconds: float) -> None:
        super().__init__()
        self.weight, self.clock, self.seconds = nn.Linear(1, 1), clock, seconds

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.clock.sleep(self.seconds)
        return self.weight(torch.ones(1, 1)).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.clock.sleep(100.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Logged(Callback):
    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        self.values.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def same(sample: Sample, seed: int) -> Sample:
    return sample


def module(clock: Time, reading: float) -> DetectionDataModule:
    return DetectionDataModule(Slow(clock, reading), Slow(clock, 0), same, same, steps=10, batch_size=2, workers=0)


def train(clock: Time, reading: float, computing: float) -> list[dict[str, float]]:
    """Train for ten batches of two images, with validations between; returns what is logged."""
    logged = Logged()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=10,
        log_every_n_steps=1,
        val_check_interval=3,
        limit_val_batches=1,
        callbacks=[Throughput(), logged],
        logger=False,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Sleeper(clock, computing), module(clock, reading))
    return logged.values


pytestmark = pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")


def test_reading_is_waiting_and_validation_does_not_count(clock: Time, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "detector"):
        values = train(clock, reading=1.0, computing=3.0)
    assert "images_per_second" not in values[0]
    for name, value in (("waiting", 2 / 5), ("images_per_second", 2 / 5)):
        assert [v[name] for v in values[1:]] == pytest.approx([value] * 9)
    assert all(50 < v["memory"] < 10_000 for v in values)
    assert "Trained on 0.4 images a second" in caplog.text
    assert "training waited for data 40 % of the time: raise workers=, or store smaller images" in caplog.text


def test_a_run_that_does_not_wait_is_not_advised(clock: Time, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "detector"):
        values = train(clock, reading=0.2, computing=3.0)
    assert 0 < values[-1]["waiting"] < 0.2
    assert "waited" not in caplog.text


def test_a_loader_counts_what_it_is_waited_for(clock: Time) -> None:
    loader = module(clock, 1.5).train_dataloader()
    assert len(list(loader)) == 10
    assert loader.waited == pytest.approx(30)
