from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from detector.config.resolve import resolve_precision
from detector.training.evaluate import accelerator as _accelerator
from detector.training.run import keep_best


@pytest.mark.parametrize(("final", "kept"), [(0.4, "best"), (0.5, "best"), (0.6, "last")])
def test_the_last_checkpoint_can_become_the_best(tmp_path: Path, final: float, kept: str) -> None:
    best = ModelCheckpoint(tmp_path, "best", monitor="box/AP", mode="max")
    for name in ("best", "last"):
        torch.save({"name": name, "callbacks": {best.state_key: best.state_dict()}}, tmp_path / f"{name}.ckpt")
    best.best_model_score = torch.tensor(0.5, dtype=torch.float64)
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision: decision)
    trainer: Any = SimpleNamespace(is_global_zero=True, strategy=strategy)
    keep_best(best, tmp_path / "last.ckpt", {"box/AP": final}, trainer)
    keep_best(best, tmp_path / "none.ckpt", {}, trainer)
    content = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert content["name"] == kept
    if kept == "last":  # a run that goes on keeps only what is better
        for name in ("best", "last"):
            state = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["callbacks"][best.state_key]
            again = ModelCheckpoint(tmp_path, "best", monitor="box/AP", mode="max")
            again.load_state_dict(state)
            assert float(again.best_model_score) == pytest.approx(final)
            scores = [again.check_monitor_top_k(trainer, torch.tensor(score)) for score in (0.55, 0.65)]
            assert [bool(score) for score in scores] == [False, True]


def test_mps_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert _accelerator("auto") == "cpu"
    for name in ("gpu", "mps"):
        with pytest.raises(ValueError, match=f"accelerator={name}: .* use trainer=cpu"):
            _accelerator(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [_accelerator(name) for name in ("auto", "gpu", "cpu")] == ["gpu", "gpu", "cpu"]


@pytest.mark.parametrize("accelerator", ["auto", "cpu", "gpu"])
@pytest.mark.parametrize("gpu", [None, False, True])
@pytest.mark.parametrize("amx", [False, True])
def test_auto_precision_follows_the_device(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, gpu: bool | None, amx: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and gpu is None)
    fast = amx if on_cpu else bool(gpu)
    assert resolve_precision("auto", accelerator) == ("bf16-mixed" if fast else "32-true")
    assert resolve_precision("16", accelerator) == "16-mixed"
    with pytest.raises(ValueError, match="not 'half'"):
        resolve_precision("half", accelerator)
