"""Training in fp16: fused optimisers do what others do, gradients are clipped, and steps that overflow are left out."""

from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.data import DataLoader

from detector.training.optim import Muon, cosine
from detector.training.task import DetectionTask
from tests.conftest import random_batch, small_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:The 'train_dataloader' does not"
)


def train(make: Callable[[Any], Optimizer], clip: float | None, scale: float, steps: int = 2) -> dict[str, Tensor]:
    """Train with a gradient scaler on the CPU, where Lightning's `16-mixed` would take bf16."""
    model = small_model("norm=frozen")
    task = DetectionTask(model, optimizer=make, scheduler=lambda optimizer: cosine(optimizer, steps, warmup=0))
    batch = random_batch(2, size=(64, 64))
    for number, target in enumerate(batch.targets):
        target.seed = number
    trainer = lightning.Trainer(
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))],
        max_steps=steps,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader([batch] * steps, batch_size=None))
    return model.state_dict()


OPTIMIZERS: list[Callable[[bool], Callable[[Any], Optimizer]]] = [
    lambda fused: lambda groups: AdamW(groups, 1e-3, fused=fused),
    lambda fused: lambda groups: SGD(groups, 1e-2, momentum=0.9, fused=fused),
    lambda fused: lambda groups: Muon(groups, 1e-3, fused=fused),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adamw", "sgd", "muon"])
def test_a_fused_optimiser_clips_as_another(optimizer: Callable[[bool], Callable[[Any], Optimizer]]) -> None:
    fused, other = (train(optimizer(how), 0.1, 1024.0) for how in (True, False))
    initial = small_model("norm=frozen").state_dict()
    assert any(not torch.equal(value, initial[name]) for name, value in fused.items())
    for name, value in fused.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6)
    free = train(optimizer(True), None, 1024.0)
    assert any(not torch.allclose(value, fused[name], rtol=1e-4, atol=1e-6) for name, value in free.items())


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")  # since the scaler leaves out the first step
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adamw", "sgd", "muon"])
def test_steps_that_overflow_change_nothing(optimizer: Callable[[bool], Callable[[Any], Optimizer]]) -> None:
    initial = small_model("norm=frozen").state_dict()
    for name, value in train(optimizer(True), 10.0, 2.0**100, steps=1).items():
        assert torch.equal(value, initial[name]), name
