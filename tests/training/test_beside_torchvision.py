"""Training beside torchvision's Mask R-CNN: both sides do the same."""

import math

import pytest
import torch

from detector.training import beside_torchvision as module
from detector.training.benchmark import SIDES
from tests.conftest import dense

CPU = torch.device("cpu")
SMALL = module.Training("resnet18", (64, 96), images=2, objects=3, rois=16, batches=2, warmup=1, turns=2, steps=2)


def test_both_sides_have_the_same_images_and_objects() -> None:
    batch = module.draw(SMALL, 1)
    theirs = module.TheirBatch.from_batch(batch).to(CPU)
    again, other = module.draw(SMALL, 1), module.draw(SMALL, 2)
    assert torch.equal(batch.images, again.images)
    assert not torch.equal(batch.images, other.images)
    assert len(batch) == SMALL.images
    assert batch.images.shape[-2:] == (64, 96)
    for image, mine, their, own in zip(batch.images, theirs.images, theirs.targets, batch.targets, strict=True):
        torch.testing.assert_close(mine * 255, image.float())
        assert own.masks is not None
        assert torch.equal(their["masks"].bool(), dense(own.masks))
        assert torch.equal(their["boxes"], own.boxes)
        assert torch.equal(their["labels"], own.labels + 1)
        assert (own.boxes[:, 2:] > own.boxes[:, :2]).all()
        assert their["masks"].flatten(1).any(1).all()


def test_padding_is_this_projects_alone() -> None:
    training = module.Training("resnet18", (70, 90), images=1, objects=1)
    batch = module.draw(training, 0)
    assert batch.images.shape[-2:] == (96, 96)
    assert module.TheirBatch.from_batch(batch).images[0].shape[-2:] == (70, 90)


def test_both_sides_train_the_same_parameters() -> None:
    count = {
        side: sum(p.numel() for p in model.parameters() if p.requires_grad)
        for side, model in module.models(SMALL).items()
    }
    background = 4 * (1024 + 1) + 256 + 1  # its deltas and its mask, which torchvision has and never uses
    assert count["torchvision"] - count["ours"] == background


def test_the_first_losses_are_the_same_but_for_sampling() -> None:
    losses = {}
    for side in ("ours", "torchvision, NCHW"):
        step = module.prepare(SMALL, side, CPU, torch.float32)
        losses[side] = [float(step()) for _ in range(2)]
    first, second = losses["ours"], losses["torchvision, NCHW"]
    assert first == pytest.approx(second, rel=0.05)
    assert first[0] != first[1]


def turns(loss: float) -> dict[str, list[module.Turn]]:
    seconds = {"ours": 1.0, "torchvision, NCHW": 3.0, "torchvision, channels last": 2.0}
    return {
        side: [module.Turn(99.0, [5.0], 10.0), *(module.Turn(s, [4.0, loss], 100 * s) for _ in range(2))]
        for side, s in seconds.items()
    }


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "take_turns", lambda training, device, dtype: turns(3.0))
    lines: list[str] = []
    module.run(SMALL, CPU, report=lines.append)
    assert "| bfloat16 | torchvision, NCHW | 1500.0 | 1.33 | 0.33x | 300 | 5.000 to 3.000 |" in lines
    assert "| float32 | ours | 500.0 | 4.00 | 1.00x | 100 | 5.000 to 3.000 |" in lines
    told = "4.00 images/s, 2.00x torchvision's, 0.50x its memory"
    assert lines[-1].strip() == f"All losses are finite. float32: {told}; bfloat16: {told}."


def test_losses_that_are_not_finite_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "take_turns", lambda training, device, dtype: turns(math.nan))
    with pytest.raises(RuntimeError, match=r"not finite: torchvision, NCHW, float32; .*; ours, float32$"):
        module.run(SMALL, CPU, [torch.float32], report=lambda line: None)


@pytest.mark.slow
def test_the_sides_take_turns_in_processes_of_their_own() -> None:
    found = module.take_turns(SMALL, CPU, torch.float32)
    assert list(found) == list(SIDES)
    for taken in found.values():
        assert [len(turn.losses) for turn in taken] == [1, 2, 2]
        assert all(math.isfinite(loss) for turn in taken for loss in turn.losses)
        assert all(turn.seconds > 0 and turn.peak_mib > 0 for turn in taken)
