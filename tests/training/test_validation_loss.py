"""The losses of the validation images."""

from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from detector.evaluation import CocoMetric, Collector
from detector.training.optim import Muon, cosine
from detector.training.task import DetectionTask
from detector.types import Batch
from tests.conftest import CLASSES, confident, random_batch, small_model

pytestmark = pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not")
SEED = 3
SIZE = (96, 96)


def batches(*counts: int) -> list[Batch]:
    found = [random_batch(*[3] * count, size=SIZE, seed=i) for i, count in enumerate(counts)]
    for i, batch in enumerate(found):
        batch.ids = [10 * i + k for k in range(len(batch))]
        for image, target in zip(batch.ids, batch.targets, strict=True):
            target.seed = image
    return found


def train(model: str, validation_loss: bool, val: list[Batch]) -> tuple[DetectionTask, dict[str, float]]:
    """Train for two steps and validate; returns the task and what was logged."""
    truth: dict[str, Any] = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for batch in val for i in batch.ids],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    collector = Collector(truth, list(range(len(CLASSES))))
    task = DetectionTask(
        confident(small_model(f"model={model}")).train(),
        optimizer=lambda groups: Muon(groups, fused=True),
        scheduler=lambda optimizer: cosine(optimizer, 2, warmup=0),
        collector=collector,
        metrics=[CocoMetric(collector)],
        seed=SEED,
        validation_loss=validation_loss,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=2,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, *(DataLoader(part, batch_size=None) for part in (batches(2, 2), val)))
    return task, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("model", ["mask_rcnn", "cascade_rcnn"])
def test_it_is_the_loss_of_the_validation_images_and_changes_nothing(model: str) -> None:
    val = batches(2, 1)
    (task, logged), (other, without) = (train(model, wanted, val) for wanted in (True, False))
    assert not any(name.startswith("val_loss") for name in without)
    weights = other.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in task.model.state_dict().items())

    task.model.eval()
    expected: dict[str, float] = {}
    for batch in val:
        with torch.inference_mode():
            for name, value in task.model.loss(batch).items():
                expected[name] = expected.get(name, 0.0) + float(value) * len(batch) / 3
    assert len(expected) >= 4
    for name, value in expected.items():
        assert logged[f"val_loss/{name}"] == pytest.approx(value, rel=1e-5)
    assert logged["val_loss"] == pytest.approx(sum(expected.values()), rel=1e-5)
    with torch.inference_mode():
        for batch, both in ((batch, task.model.detect_and_loss(batch)[0]) for batch in val):
            for one, other_found in zip(both, task.model(batch), strict=True):
                assert torch.equal(one.boxes, other_found.boxes)
                assert torch.equal(one.scores, other_found.scores)
