"""Weights & Biases and MLflow, offline."""

import csv
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.scripts.conftest import SMALL, Run, run_alone


def losses(folder: Path) -> list[tuple[int, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file) if row["loss"]]


def train(tmp_path: Path, run: Run, *arguments: str) -> None:
    data = f"data_dir={run.folder.parent / 'data'}"
    done = run_alone("train", *SMALL, data, "hydra.run.dir=run", "schedule.steps=3", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_mlflow(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    train(tmp_path, run, "logger=mlflow")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        logged = database.execute("SELECT key, step, value FROM metrics ORDER BY step").fetchall()
        experiments = database.execute("SELECT name FROM experiments").fetchall()
    assert ("aligned_rcnn",) in experiments
    assert [(step, value) for key, step, value in logged if key == "loss"] == losses(tmp_path / "run")
    assert {"loss/class", "images_per_second", "gradient_norm", "box/AP"} <= {key for key, _, _ in logged}


@pytest.mark.slow
def test_weights_and_biases(tmp_path: Path, run: Run) -> None:
    if find_spec("wandb") is None:
        pytest.skip("wandb is not installed")
    train(tmp_path, run, "logger=wandb", "logger.wandb.offline=true")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert all(name in content for name in (b"loss/class", b"images_per_second", b"gradient_norm", b"box/AP"))
