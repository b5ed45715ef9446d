"""`trainer.compile`: which parts of a detector are compiled, and that they compute the same."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.codecache import compiled_fx_graph_hash

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


def start(callback: Compilation, model: RCNN) -> tuple[Any, Any]:
    """Begin a training with the callback; returns trainer and module."""
    strategy = SimpleNamespace(broadcast=lambda value: value)
    plugin = SimpleNamespace(forward_context=nullcontext)
    trainer = SimpleNamespace(
        strategy=strategy, precision_plugin=plugin, is_global_zero=True, state=SimpleNamespace(fn="fit")
    )
    module: Any = SimpleNamespace(model=model)
    callback.on_train_batch_start(trainer, module, random_batch(3, 2, size=(96, 128)), 0)  # type: ignore[arg-type]
    return trainer, module


def compiled(model: RCNN) -> list[str]:
    return [name for name, module in model.named_modules() if module._compiled_call_impl is not None]


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
    callback = Compilation(backend=counter)  # type: ignore[arg-type]
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


def test_a_resumed_run_compiles_the_same_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "measure", lambda *_: pytest.fail("it is measured again"))
    callback, detector = Compilation(backend="eager"), model()
    callback.load_state_dict({"parts": [PARTS[1]]})
    trainer, module = start(callback, detector)
    assert compiled(detector) == [PARTS[1]]
    callback.on_validation_start(trainer, module)
    assert compiled(detector) == []
    callback.on_validation_end(trainer, module)
    assert compiled(detector) == [PARTS[1]]
    callback.on_train_end(trainer, module)
    assert compiled(detector) == []


def test_given_parts_are_compiled() -> None:
    callback, detector = Compilation([PARTS[2]], backend="eager"), model()
    callback.load_state_dict({"parts": [PARTS[1]]})
    start(callback, detector)
    assert compiled(detector) == [PARTS[2]]
    parts = ", ".join(PARTS)
    with pytest.raises(ValueError, match=f"trainer.compile: neck, heads is not a part; the parts are {parts}$"):
        start(Compilation(["neck", PARTS[0], "heads"]), model())


@pytest.mark.slow
@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model=rfcn"], ["backbone", "proposer.head", "heads.maps"]),
        (["model=cascade_rcnn"], [*PARTS[:3], "heads.later.0.box_head.trunk", "heads.later.1.box_head.trunk"]),
        (
            ["backbone=resnet18_c4", "backbone.channels=64", "backbone.width=128"],
            ["backbone", "proposer.head", "heads.box_head.trunk.stage"],
        ),
        (
            ["backbone=resnet18_c4", "backbone.channels=64", "backbone.width=128", "backbone.freeze_at=4"],
            ["proposer.head", "heads.box_head.trunk.stage"],
        ),
        (["backbone=vgg16", "backbone.channels=128"], PARTS[:3]),  # its trunk drops out at random
    ],
)
def test_parts_of_other_detectors(overrides: list[str], parts: list[str]) -> None:
    state = torch.get_rng_state()
    detector = small_model(*overrides, "dataset.rois=8").train()
    torch.set_rng_state(state)
    assert list(measure(detector, random_batch(2, size=(64, 96)), backend="eager")) == parts
    assert torch.equal(torch.get_rng_state(), state)


def test_where_nothing_compiles() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler was found")

    with pytest.raises(
        ValueError, match=r"fails on this machine \(.*no compiler was found\): give trainer\.compile=false"
    ):
        measure(model(), random_batch(1, size=(64, 64)), backend=broken)  # type: ignore[arg-type]


def test_what_is_compiled_for_other_instructions_is_not_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(instructions: str) -> str:
        monkeypatch.setattr(torch.compiler.config, "cache_key_tag", "users")
        monkeypatch.setattr(compilation, "pick_vec_isa", lambda: instructions)
        for _ in range(2):
            start(Compilation([], backend="eager"), model())
        assert torch.compiler.config.cache_key_tag == f"users for {instructions}"
        return compiled_fx_graph_hash(torch.fx.symbolic_trace(torch.nn.ReLU()), [torch.ones(3)], {}, [])[0]

    assert key("avx2") == key("avx2") != key("avx512")


def test_gains_are_said() -> None:
    gains = {"backbone": (0.2, 0.1), "proposer.head": (0.01, 0.02)}
    assert describe(gains, ["backbone"]) == (
        "trainer.compile compiles backbone; all parts together 1.91 times as fast (backbone: 200.0 -> 100.0 ms, 2.00 "
        "times as fast; proposer.head: 10.0 -> 20.0 ms, 0.50 times as fast)"
    )
    assert describe(gains, []).startswith("trainer.compile compiles nothing (backbone: ")
