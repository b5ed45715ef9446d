"""The losses and gradients of two processes with two images each are, on average, those of one with all four."""

from dataclasses import fields
from functools import cache

import torch
from torch import Tensor

from detector.types import Batch
from tests.conftest import random_batch, small_model
from tests.processes import in_processes

MODELS = (
    ("model=mask_rcnn", "norm=group", "norm.groups=8"),
    ("model=cascade_mask_rcnn", "norm=frozen", "pooler=roipool"),
    ("model=rfcn", "norm=frozen", "model.heads.hard_examples=12"),
)
OBJECTS = (3, 0, 1, 0)
"""In each image; the second process has none."""


@cache
def batch() -> Batch:
    whole = random_batch(*OBJECTS, size=(64, 96))
    for number, target in enumerate(whole.targets):
        target.seed = 2 * number
        target.boxes = target.boxes.double()
    return whole


def part(start: int, step: int) -> Batch:
    """Every `step`-th image of the batch."""
    whole = batch()
    values = {field.name: getattr(whole, field.name) for field in fields(whole)}
    return Batch(**{name: None if value is None else value[start::step] for name, value in values.items()})


def learnt(images: Batch) -> list[dict[str, Tensor]]:
    """Return each model's losses and gradients."""
    found = []
    for overrides in MODELS:
        model = small_model(*overrides, "dataset.rois=24").double().train()
        losses = model.loss(images)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append({name: value.detach() for name, value in losses.items()} | gradients)
    return found


def of_process(rank: int) -> list[dict[str, Tensor]]:
    return learnt(part(rank, 2))


def test_two_processes_learn_as_one_with_all_images() -> None:
    assert batch().targets[1].boxes.numel() == batch().targets[3].boxes.numel() == 0
    for expected, *parts in zip(learnt(batch()), *in_processes(2, of_process), strict=True):
        assert expected.keys() == parts[0].keys()
        assert len(expected) > 20
        for name, value in expected.items():
            torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, value, rtol=1e-9, atol=1e-12)
        assert not torch.equal(parts[0]["rpn_box"], parts[1]["rpn_box"])


def test_evaluation_has_no_collectives() -> None:
    """One process may have more validation batches than the other."""
    first, second = in_processes(2, _evaluate)
    assert len(first) == 2
    assert len(second) == 1


def _evaluate(rank: int) -> list[float]:
    model = small_model("model=mask_rcnn", "norm=sync").double().eval()
    with torch.inference_mode():
        return [float(sum(model.detect_and_loss(part(k, 4))[1].values())) for k in range(2 - rank)]
