"""Runs that are extended, stopped, killed and go on."""

import csv
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detector.training.averaging import TRAINED
from tests.scripts.conftest import SMALL, Run, run_script, start_script


def state(folder: Path, kept: str = "state_dict") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[kept]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def measured(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the metrics of each validation, by step."""
    return {
        row["step"]: tuple(v for k, v in row.items() if k.startswith("box/")) for row in rows(folder) if row["box/AP"]
    }


def options(run: Run, **given: object) -> list[str]:
    """Return the arguments of a small run on that run's images; `given` are keys of `schedule`."""
    keys = {f"schedule.{name}": str(value) for name, value in given.items()}
    kept = [option for option in SMALL if option.split("=")[0] not in keys]
    return [f"data_dir={run.folder.parent / 'data'}", *kept, *(f"{key}={value}" for key, value in keys.items())]


FLAT = {"scheduler.warmup": 0, "scheduler.final": 1.0}
"""A learning rate that does not depend on the length of the run."""


def test_an_extended_run_equals_a_long_one(tmp_path: Path, run: Run) -> None:
    flat = [
        f"+schedule.{name}={value}" if name.endswith("final") else f"schedule.{name}={value}"
        for name, value in FLAT.items()
    ]
    for steps, folder in ((3, "short"), (6, "long")):
        arguments = options(run, steps=steps, keep_every=2, ema=0.5)
        done = run_script("train", *arguments, *flat, f"hydra.run.dir={folder}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "short" / "checkpoints" / "last.ckpt"
    again = run_script("train", f"resume={checkpoint}", "workers=0", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "has done its 3 steps, and is evaluated again; schedule.steps=MORE goes on with it" in again.stdout
    assert "AP50" in again.stdout
    for steps in (4, 6):
        more = run_script("train", f"resume={checkpoint}", f"schedule.steps={steps}", "workers=0", cwd=tmp_path)
        assert more.returncode == 0, more.stderr
        assert f"{steps}/{steps}" in more.stdout
    for name in ("state_dict", TRAINED):
        assert equal(state(tmp_path / "short", kept=name), state(tmp_path / "long", kept=name))
    losses = [
        [(row["step"], row["loss"]) for row in rows(tmp_path / name) if row["loss"]] for name in ("short", "long")
    ]
    assert losses[0] == losses[1]
    kept = [{p.name for p in (tmp_path / name / "checkpoints").iterdir()} for name in ("short", "long")]
    assert kept[0] == kept[1] == {"last.ckpt", "best.ckpt", "step=2.ckpt", "step=4.ckpt", "step=6.ckpt"}
    refused = run_script("train", f"resume={checkpoint}", "schedule.steps=5", cwd=tmp_path)
    assert refused.returncode == 1
    assert "schedule.steps=5: the run has done 6 steps; give more, or leave it out" in refused.stderr
    other = run_script("train", f"resume={checkpoint}", "schedule.optimizer.lr=0.1", cwd=tmp_path)
    assert other.returncode == 1
    assert f"weights={checkpoint} in place of resume=" in other.stderr


def test_an_extended_run_follows_the_schedule_of_its_new_length(tmp_path: Path, run: Run) -> None:
    for steps, folder in ((3, "short"), (6, "long")):
        logged = [option for option in options(run, steps=steps) if option != "logger=none"]
        done = run_script("train", *logged, f"hydra.run.dir={folder}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    longer = [f"resume={tmp_path / 'short/checkpoints/last.ckpt'}", "schedule.steps=6", "workers=0"]
    more = run_script("train", *longer, cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    short, long = (
        {row["step"]: row["lr-Muon/pg1"] for row in rows(tmp_path / name) if row["lr-Muon/pg1"]}
        for name in ("short", "long")
    )
    assert short["1"] != long["1"]
    assert {step: short[step] for step in "345"} == {step: long[step] for step in "345"}


def test_patience_ends_a_run_early(tmp_path: Path, run: Run) -> None:
    lazy = options(run, steps=40, validate_every=1, patience=2, **{"optimizer.lr": 1e-12})
    done = run_script("train", *lazy, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] < 10
    assert "time/total" in json.loads((tmp_path / "run/metrics.json").read_text())
    assert "2 validations brought no better box/AP than" in done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True])
def test_sigterm_saves_the_step_and_the_same_command_goes_on(tmp_path: Path, run: Run, whole_group: bool) -> None:
    """A scheduler signals the main process; torchrun, and SLURM, all of them, the loaders' too."""
    arguments = [o for o in options(run, steps=12, checkpoint_every=100, validate_every=6) if "workers" not in o]
    arguments += ["schedule.ema=0.9", "schedule.keep_every=1"]
    whole = run_script("train", *arguments, "workers=0", "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [*arguments, "workers=1", "hydra.run.dir=run", "resume=auto"]
    process = start_script("train", *command, cwd=tmp_path)
    _wait_for(process, lambda: (tmp_path / "run/metrics.csv").exists() and len(rows(tmp_path / "run")) > 1)
    if whole_group:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 143
    done = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert 0 < done <= 12
    assert (tmp_path / f"run/checkpoints/step={done}.ckpt").is_file()
    resumed = run_script("train", *command, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    for kept in ("state_dict", TRAINED):
        assert equal(state(tmp_path / "run", kept), state(tmp_path / "whole", kept))
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")
    assert measured(tmp_path / "run").keys() == {"5", "11"}
    assert [[row[name] for name in ("step", "loss")] for row in rows(tmp_path / "run")] == [
        [row[name] for name in ("step", "loss")] for row in rows(tmp_path / "whole")
    ]
    again = run_script("train", *arguments, "workers=0", "hydra.run.dir=run", cwd=tmp_path)
    assert again.returncode == 1
    assert "holds a run, which a new one would overwrite" in again.stderr.replace("\n", " ")


def test_a_validation_that_was_missed_is_done_as_it_would_have_been(tmp_path: Path, run: Run) -> None:
    """A checkpoint of a step that validates is saved before its validation."""
    arguments = options(run, steps=6, validate_every=2, keep_every=2, val_batch_size=2, checkpoint_every=100)
    done = run_script("train", *arguments, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole = measured(tmp_path / "run")
    assert whole.keys() == {"1", "3", "5"}
    again = run_script("train", f"resume={tmp_path / 'run/checkpoints/step=4.ckpt'}", "workers=0", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert measured(tmp_path / "run") == whole
    assert {p.name for p in (tmp_path / "run/checkpoints").glob("step*")} == {f"step={i}.ckpt" for i in (2, 4, 6)}


def test_what_came_after_an_earlier_checkpoint_goes_on_in_a_folder_of_its_own(tmp_path: Path, run: Run) -> None:
    arguments = options(run, steps=4, keep_every=2)
    done = run_script("train", *arguments, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = {name: (tmp_path / f"run/{name}").read_bytes() for name in ("metrics.json", "predictions/box.json")}
    back = run_script("train", "resume=run/checkpoints/step=2.ckpt", "schedule.steps=3", "workers=0", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    kept = tmp_path / "run/until_step_4"
    assert {name: (kept / name).read_bytes() for name in first} == first
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and kept not in p.parents]
    since = {path: path.read_bytes() for path in files}
    last = kept / "checkpoints/last.ckpt"
    more = run_script("train", f"resume={last}", "schedule.steps=6", "workers=0", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert {path: path.read_bytes() for path in since} == since
    assert [row["step"] for row in rows(kept) if row["loss"]] == list("012345")
    assert (kept / "metrics_of_step_4.json").read_bytes() == first["metrics.json"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [[], ["trainer.devices=2", "+trainer.strategy=ddp"]], ids=["one", "two"])
def test_a_compiled_run_validates_resumes_and_is_evaluated_as_it_was(
    tmp_path: Path, run: Run, processes: list[str]
) -> None:
    arguments = [*options(run, steps=4, validate_every=2, checkpoint_every=2), "trainer.compile=[proposer.head]"]
    arguments += ["schedule.ema=0.9", *processes]
    done = run_script("train", *arguments, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = tmp_path / "run/checkpoints/last.ckpt"
    longer = run_script("train", f"resume={last}", "schedule.steps=6", "workers=0", cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    again = run_script("evaluate", f"checkpoint={last}", "workers=0", "hydra.run.dir=again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert ap(tmp_path / "run") == pytest.approx(ap(tmp_path / "again"), abs=0.01, nan_ok=True)
    if not processes:  # of two, each has fewer threads, which add up in another order
        found = [(tmp_path / folder / "predictions/box.json").read_text() for folder in ("run", "again")]
        assert len(json.loads(found[0])) > 100
        assert found[0] == found[1]


def ap(folder: Path) -> dict[str, float]:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name.startswith("box/AP")}


@pytest.mark.slow(minutes=1.5)
def test_ten_kills_change_no_bit(tmp_path: Path, run: Run) -> None:
    """Killed at random moments, of which many fall into the writing of a checkpoint, one of which follows each step."""
    arguments = [o for o in options(run, steps=60, checkpoint_every=1, validate_every=20) if "workers" not in o]
    arguments += ["workers=1", "resume=auto", "trainer.accumulate_grad_batches=2"]
    whole = run_script("train", *arguments, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    generator, last = random.Random(0), tmp_path / "run" / "checkpoints" / "last.ckpt"
    for step in sorted(generator.sample(range(1, 58), 10)):

        def reached(step: int = step) -> bool:
            file = tmp_path / "run" / "metrics.csv"
            return file.exists() and f"\n{step - 1}," in file.read_text()

        delay = generator.uniform(0, 0.1)
        done = run_script("train", *arguments, "hydra.run.dir=run", cwd=tmp_path, kill_at=reached, delay=delay)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert "starts over" not in done.stdout  # no checkpoint was cut off
        assert torch.load(last, weights_only=True)["global_step"] >= step - 1
    done = run_script("train", *arguments, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert equal(state(tmp_path / "run"), state(tmp_path / "whole"))
    found, expected = measured(tmp_path / "run"), measured(tmp_path / "whole")
    assert {step: found[step] for step in expected} == expected


def _wait_for(process: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
