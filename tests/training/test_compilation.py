"""`trainer.compile`: which parts of a detector are compiled, and that they compute the same."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from detector.models.rcnn import RCNN
from detector.training import compilation
from detector.training.compilation import Compilation, describe, measure
from tests.conftest import random_batch, small_model

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own
PARTS = ["backbone", "proposer.head", "heads.box_head.trunk", "heads.further.mask.predictor"]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


def model() -> RCNN:
    return small_model("model=mask_rcnn", "dataset.rois=16").train()


def start(callback: Compilation, model: RCNN, size: tuple[int, int] = (96, 128)) -> None:
    """Begin a training with the callback."""
    strategy = SimpleNamespace(broadcast=lambda value: value)
    plugin = SimpleNamespace(train_step_context=torch.enable_grad)
    trainer: Any = SimpleNamespace(strategy=strategy, precision_plugin=plugin, is_global_zero=True)
    callback.on_train_batch_start(trainer, SimpleNamespace(model=model), random_batch(3, 2, size=size), 0)  # type: ignore[arg-type]


def test_each_part_is_timed_and_nothing_changes() -> None:
    detector = model()
    before, state = copy.deepcopy(detector.state_dict()), torch.get_rng_state()
    gains = measure(detector, random_batch(3, 2, size=(96, 128)), backend="eager")
    assert list(gains) == PARTS
    assert all(seconds > 0 for pair in gains.values() for seconds in pair)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_what_gains_is_compiled_once_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = {PARTS[0]: (2.0, 1.0), PARTS[1]: (1.0, 1.0), PARTS[2]: (1.0, 1.04), PARTS[3]: (1.06, 1.0)}
    monkeypatch.setattr(compilation, "measure", lambda *_: gains)
    detector, plain = model(), model()
    counter = CompileCounterWithBackend("aot_eager")
    callback = Compilation(counter)  # type: ignore[arg-type]
    start(callback, detector)
    assert callback.state_dict() == {"parts": [PARTS[0], PARTS[3]]}
    graphs = []
    for number, size in enumerate([(96, 128), (128, 96), (160, 192), (96, 128)]):
        batch = random_batch(3, 2, size=size, seed=number)
        torch.manual_seed(number)
        losses = detector.loss(batch)
        torch.stack(list(losses.values())).sum().backward()
        graphs.append(counter.frame_count)
        torch.manual_seed(number)
        for name, value in plain.loss(batch).items():
            torch.testing.assert_close(losses[name], value)
    assert graphs[0] >= 2
    assert len(set(graphs)) == 1


def test_a_resumed_run_compiles_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "measure", lambda *_: pytest.fail("it is measured again"))
    callback, detector = Compilation("eager"), model()
    callback.load_state_dict({"parts": [PARTS[1]]})
    start(callback, detector)
    assert [n for n, m in detector.named_modules() if m._compiled_call_impl is not None] == [PARTS[1]]


def test_gains_are_said() -> None:
    gains = {"backbone": (0.2, 0.1), "proposer.head": (0.01, 0.02)}
    assert describe(gains, ["backbone"]) == (
        "trainer.compile compiles backbone; all parts together 1.91 times as fast (backbone: 200.0 -> 100.0 ms, 2.00 "
        "times as fast; proposer.head: 10.0 -> 20.0 ms, 0.50 times as fast)"
    )
    assert describe(gains, []).startswith("trainer.compile compiles nothing (backbone: ")
