"""Steps whose loss is not finite: an error that names the images, or left out and counted."""

import copy
import logging
import re
from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detector.models.rcnn import RCNN
from detector.training.failures import explained
from detector.training.optim import Muon, cosine
from detector.training.task import DetectionTask
from detector.types import Batch
from tests.conftest import random_batch, small_model


class Poisoned(nn.Module):
    """A detector whose loss is NaN on some images, and whose norms see NaN there."""

    def __init__(self, model: RCNN, bad: set[int]) -> None:
        super().__init__()
        self.detector, self.bad = model, bad

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if self.bad & set(batch.ids):
            batch = copy.copy(batch)
            batch.images = batch.images * torch.nan
            features = self.detector.backbone(batch.images)
            return {"class": sum(feature.sum() for feature in features)}
        return self.detector.loss(batch)


pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:The 'train_dataloader' does not"
)


def train(bad: set[int], skip: int, steps: int = 4, accumulate: int = 1) -> tuple[Poisoned, DetectionTask]:
    """Train on batches of the images (0, 1), (2, 3), ..., in a fixed order."""
    model = Poisoned(small_model(), bad)
    batches = [random_batch(2, 1, size=(64, 64), seed=i) for i in range(steps * accumulate)]
    for i, batch in enumerate(batches):
        batch.ids = [2 * i, 2 * i + 1]
    task = DetectionTask(
        model,
        optimizer=lambda groups: Muon(groups, fused=True),
        scheduler=lambda optimizer: cosine(optimizer, steps, warmup=0),
        skip_bad_steps=skip,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=10.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(batches, batch_size=None))
    return model, task


def test_a_loss_that_is_not_finite_names_images_losses_and_shape() -> None:
    with pytest.raises(
        ValueError, match=re.escape("the loss is nan in step 1 (images [2, 3], batch 2 x 3 x 64 x 64")
    ) as caught:
        train({3}, skip=0)
    assert "class nan" in str(caught.value)
    assert "schedule.skip_bad_steps=10" in str(caught.value)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_bad_steps_change_nothing(accumulate: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model, task = train({3}, skip=2, accumulate=accumulate)
    assert task.skipped == 1
    assert "is left out (1 of 2): its gradients are not finite" in caplog.text
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values() if value.is_floating_point())


def test_a_step_that_is_left_out_leaves_weights_and_statistics() -> None:
    one, task = train({0, 2, 4, 6}, skip=4)
    assert task.skipped == 4
    fresh = small_model().state_dict()
    trained = one.detector.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in fresh.items() if value.is_floating_point())


def test_too_many_bad_steps_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"not finite in step 2 \(images \[4, 5\].*after 2 such steps"):
        train({0, 2, 4}, skip=2)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), ["memory ran out in step", "schedule.batch_size", "trainer.accumulate_grad_batches"]),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory"),
            ["memory ran"],
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), ["memory ran out", "images [0, 1]"]),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), ["workers=0", "--shm-size"]),
        (
            FileNotFoundError(
                "Caught FileNotFoundError in DataLoader worker process 0.\n...\nFileNotFoundError: a.png: gone"
            ),
            ["FileNotFoundError: a.png: gone (after step", "images [0, 1]"],
        ),
        (OSError("a.png: truncated"), ["a.png: truncated (after step"]),
    ],
)
def test_failures_name_the_batch_and_the_way_out(error: Exception, words: list[str], tmp_path: Path) -> None:
    _, task = train(set(), skip=0, steps=1)
    last = tmp_path / "last.ckpt"
    last.touch()
    with pytest.raises(ValueError, match="go on with resume=") as caught, explained(task, last):
        raise error
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), explained(task, last):
        raise RuntimeError("shapes differ")
