import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console

from detector.config.resolve import resolve_precision
from detector.training.callbacks import BestCheckpoint
from detector.training.evaluate import accelerator as _accelerator
from detector.training.folder import METRICS
from detector.training.resume import keep_later, run_folder_of
from detector.training.run import keep_best
from detector.weights.checkpoints import FORMAT


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


def test_the_best_checkpoint_stays_the_best_where_its_folder_has_moved(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/best.ckpt").write_text("best")
    best = BestCheckpoint(tmp_path / "old", "box/AP", "max")
    assert best.state_key == ModelCheckpoint(tmp_path, "best", monitor="box/AP", mode="max").state_key
    best.best_model_score, best.best_model_path = torch.tensor(0.5), str(tmp_path / "old/best.ckpt")
    state = best.state_dict()
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision: decision, broadcast=lambda value: value)
    trainer: Any = SimpleNamespace(is_global_zero=True, strategy=strategy)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = BestCheckpoint(tmp_path / "new", "box/AP", "max")
    moved.trainer = trainer
    moved.load_state_dict(state)
    assert moved.best_model_path == str(tmp_path / "new/best.ckpt")
    assert [bool(moved.check_monitor_top_k(trainer, torch.tensor(score))) for score in (0.4, 0.6)] == [False, True]
    (tmp_path / "new/best.ckpt").unlink()
    without = BestCheckpoint(tmp_path / "new", "box/AP", "max")
    without.trainer = trainer
    without.load_state_dict(state)
    assert without.best_model_score is None  # so that the next validation writes one
    assert not without.best_model_path


def checkpoints(folder: Path, **steps: int) -> Path:
    """Write checkpoints of a run, which have done so many steps, and its `metrics.csv`."""
    (folder / "checkpoints").mkdir(parents=True)
    for name, step in steps.items():
        content = {"global_step": step, "aligned_rcnn": {"format": FORMAT, "config": {}}, "state_dict": {}}
        torch.save(content, folder / f"checkpoints/{name}.ckpt")
    (folder / "metrics.csv").write_text("step\n11\n")
    (folder / "config.yaml").touch()
    return folder


def step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"])


@pytest.mark.parametrize(("steps", "results"), [(20, "metrics_of_step_12.json"), (12, METRICS)])
def test_a_finished_run_that_goes_on_keeps_its_results(tmp_path: Path, steps: int, results: str) -> None:
    folder = checkpoints(tmp_path / "run", last=12, best=8)
    (folder / METRICS).write_text(json.dumps({"time/total": 1.0}))
    keep_later(folder, folder / "checkpoints/last.ckpt", steps, Console(quiet=True))
    assert {p.name for p in folder.iterdir()} == {"checkpoints", "config.yaml", "metrics.csv", results}
    assert len(list((folder / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("finished", [False, True])
def test_what_came_after_an_earlier_checkpoint_is_kept(tmp_path: Path, finished: bool) -> None:
    folder = checkpoints(tmp_path / "run", last=12, best=8, **{"step=3": 3, "step=2": 2, "step=6": 6})
    if finished:
        (folder / METRICS).write_text(json.dumps({"time/total": 1.0}))
        (folder / "predictions").mkdir()
    said = Console(file=io.StringIO(), width=200)
    keep_later(folder, folder / "checkpoints/step=3.ckpt", 12, said)
    kept = folder / "until_step_12"
    assert f"from step 3; what it has done up to step 12 is kept in {kept}" in said.file.getvalue()
    results = {METRICS, "predictions"} if finished else set()
    assert {p.name for p in kept.iterdir()} == {"checkpoints", "config.yaml", "metrics.csv"} | results
    assert {p.name for p in (kept / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt", "step=6.ckpt"}
    assert {p.name for p in folder.iterdir()} == {"checkpoints", "config.yaml", "metrics.csv", kept.name}
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"last.ckpt", "step=2.ckpt", "step=3.ckpt"}
    assert step_of(folder / "checkpoints/last.ckpt") == 3
    assert step_of(kept / "checkpoints/last.ckpt") == 12
    (folder / "checkpoints/last.ckpt").unlink()
    torch.save(torch.load(kept / "checkpoints/last.ckpt", weights_only=True), folder / "checkpoints/last.ckpt")
    keep_later(folder, folder / "checkpoints/step=2.ckpt", 12, said)
    assert {p.name for p in (folder / "until_step_12_2/checkpoints").iterdir()} == {"last.ckpt", "step=3.ckpt"}
    assert (kept / "checkpoints/best.ckpt").is_file()


def test_what_is_kept_has_the_best_checkpoint_of_before(tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "run", last=12, best=2, **{"step=3": 3})
    keep_later(folder, folder / "checkpoints/step=3.ckpt", 12, Console(quiet=True))
    for place in (folder, folder / "until_step_12"):
        assert step_of(place / "checkpoints/best.ckpt") == 2


@pytest.mark.parametrize("name", ["until_step_12/last.ckpt", "checkpoints/until_step_12/last.ckpt"])
def test_a_checkpoint_outside_a_runs_folder_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(ValueError, match="a copy in NEW/checkpoints/ goes on in the folder NEW"):
        run_folder_of(path)


@pytest.mark.parametrize("name", ["last", "step=6", "best"])
def test_a_damaged_checkpoint_does_not_keep_an_earlier_one_from_going_on(tmp_path: Path, name: str) -> None:
    folder = checkpoints(tmp_path / "run", last=12, best=8, **{"step=3": 3, "step=6": 6, "step=9": 9})
    (folder / f"checkpoints/{name}.ckpt").write_bytes(b"half")
    said = Console(file=io.StringIO(), width=300)
    keep_later(folder, folder / "checkpoints/step=3.ckpt", 12, said)
    later = {"last.ckpt", "best.ckpt", "step=6.ckpt", "step=9.ckpt"} - {f"{name}.ckpt"}
    kept = folder / f"until_step_{9 if name == 'last' else 12}"
    assert {p.name for p in (kept / "checkpoints").iterdir()} == later
    left = {"last.ckpt", "step=3.ckpt", f"{name}.ckpt.broken"}
    assert {p.name for p in (folder / "checkpoints").iterdir()} == left
    assert step_of(folder / "checkpoints/last.ckpt") == 3
    assert f"it is kept as {name}.ckpt.broken" in said.file.getvalue()


def test_a_full_disk_leaves_a_run_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints(tmp_path / "run", last=12, best=8, **{"step=3": 3, "step=6": 6})
    before = {p.name for p in (folder / "checkpoints").iterdir()}

    def full(source: Path, path: Path) -> None:
        raise OSError(f"no space for {path}, a copy of {source}")

    monkeypatch.setattr("detector.training.resume.copy_file", full)
    with pytest.raises(OSError, match="no space"):
        keep_later(folder, folder / "checkpoints/step=3.ckpt", 12, Console(quiet=True))
    assert {p.name for p in (folder / "checkpoints").iterdir()} == before
    assert step_of(folder / "checkpoints/last.ckpt") == 12


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
