"""A training by several processes, or with accumulated gradients, is that of one process with all images.

In float64: in float32 rounding grows within a few steps, since L1 losses, matching and NMS decide at thresholds.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from tests.scripts.conftest import run_script, start_script
from tests.training.test_peers import running, wait_for

STEPS = 20
SIDE = 96
TWO = ("trainer.devices=2", "+trainer.strategy=ddp")


def draw(folder: Path, name: str, counts: list[int], widths: int = 1) -> list[str]:
    """Write a COCO dataset of bright squares, so many in each image of so many widths; returns its keys."""
    generator = np.random.default_rng(len(counts))
    images, annotations = [], []
    for number, count in enumerate(counts, 1):
        width = SIDE + 32 * (number % widths)
        pixels = generator.integers(0, 60, (SIDE, width, 3), dtype=np.uint8)
        for x, y, side in zip(
            *generator.integers(0, SIDE - 30, (2, count)), generator.integers(10, 30, count), strict=True
        ):
            pixels[y : y + side, x : x + side] = 220
            x, y, side = int(x), int(y), int(side)
            corners = [x, y, x + side, y, x + side, y + side, x, y + side]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": [corners],
                }
            )
        file = f"{name}{number}.png"
        Image.fromarray(pixels).save(folder / file)
        images.append({"id": number, "file_name": file, "width": width, "height": SIDE})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return [f"dataset.{name}.annotations={folder / name}.json", f"dataset.{name}.images={folder}"]


@pytest.fixture(scope="module", params=[1])
def options(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[str]:
    folder = tmp_path_factory.mktemp("squares")
    # Images without objects, next to each other too; an odd number of validation images.
    sets = draw(folder, "train", [3, 0, 1, 5, 0, 0, 2, 4, 0, 1], request.param) + draw(folder, "val", [2, 0, 3, 1, 2])
    return [
        *("dataset=custom", *sets, "dataset.train.keep_empty=true"),
        "dataset.val_augment.short_sizes=[96]",
        *("backbone=resnet10_small_fpn", "backbone.channels=16", "backbone.width=32", "schedule=muon"),
        *("trainer=cpu", "trainer.precision=64-true", "trainer.log_every_n_steps=1", "logger=none", "workers=0"),
        *(f"schedule.steps={STEPS}", "schedule.validate_every=10", "schedule.checkpoint_every=20"),
        *("schedule.batch_size=4", "schedule.val_batch_size=2", "dataset.rois=16", "hydra.run.dir=run"),
    ]


def train(home: Path, *arguments: str) -> Path:
    home.mkdir()
    done = run_script("train", *arguments, cwd=home)
    assert done.returncode == 0, done.stderr
    return home / "run"


def read(run: Path) -> tuple[list[dict[str, str]], dict[str, Any], dict[str, Any]]:
    """Return what a run has logged, its weights, and its metrics."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return rows, weights, json.loads((run / "metrics.json").read_text())


def same(one: Path, other: Path) -> None:
    """Compare what two runs have logged, their weights and their metrics."""
    (rows, weights, metrics), (other_rows, other_weights, other_metrics) = read(one), read(other)
    assert len(rows) == len(other_rows) == STEPS
    kinds = ("loss", "val_loss", "gradient_norm", "lr", "box/", "mask/")
    names = [n for n in rows[0] if n.startswith(kinds)]
    assert {"loss", "loss/rpn_box", "val_loss", "val_loss/rpn_box", "box/AP", "gradient_norm"} <= set(names)
    for row, other_row in zip(rows, other_rows, strict=True):
        for name in names:
            assert (row[name] == "") == (other_row[name] == "")
            if row[name]:
                assert float(other_row[name]) == pytest.approx(float(row[name]), rel=1e-9, abs=1e-9), (row, name)
    for name, value in weights.items():
        torch.testing.assert_close(other_weights[name], value, rtol=1e-9, atol=1e-9)
    assert metrics["box/AP50"] > 0
    measured = {name: value for name, value in metrics.items() if name.startswith(("box/", "mask/"))}
    assert {name: other_metrics[name] for name in measured} == pytest.approx(measured, abs=1e-9, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("options", [2], indirect=True, ids=["two sizes"])
def test_two_processes_train_as_one_with_all_images(tmp_path: Path, options: list[str]) -> None:
    cascade = [*options, "model=cascade_mask_rcnn"]
    one = train(tmp_path / "one", *cascade, "norm=batch")
    two = train(tmp_path / "two", *cascade, "norm=sync", *TWO)
    same(one, two)


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_one_batch(tmp_path: Path, options: list[str]) -> None:
    grouped = [*options, "norm=group", "norm.groups=8"]
    one = train(tmp_path / "one", *grouped)
    parts = train(tmp_path / "parts", *grouped, "schedule.batch_size=2", "trainer.accumulate_grad_batches=2")
    same(one, parts)


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    task = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in task.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["main", "other"])
def test_a_process_that_dies_ends_the_others_with_a_message(tmp_path: Path, options: list[str], dies: str) -> None:
    endless = [*options, *TWO, "schedule.steps=100000", "schedule.checkpoint_every=1", "schedule.validate_every=100000"]
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with (tmp_path / "errors").open("wb") as errors:
        process = start_script("train", *endless, cwd=tmp_path, errors=errors)
    try:
        wait_for(checkpoint.is_file, 120)
        (other,) = children(process.pid)
        os.kill(process.pid if dies == "main" else other, signal.SIGKILL)
        assert process.wait(60) != 0
        wait_for(lambda: not running(other), 60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    message = (tmp_path / "errors").read_text()
    if dies == "other":  # gloo's communication may fail before the other is missed
        assert "process 1 of the training has ended by SIGKILL" in message or "another process of the" in message
    else:
        assert "another process of the training has ended or cannot" in message or "the main process of" in message
    assert torch.load(checkpoint, weights_only=True)["global_step"] >= 1  # it is whole


@pytest.mark.slow
def test_two_machines_of_torchrun_train_as_one(tmp_path: Path, options: list[str]) -> None:
    one = train(tmp_path / "one", *options, "norm=group", "norm.groups=8")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "two"
    folder.mkdir()
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    launch += [
        "--local-addr=localhost",
        f"--rdzv-endpoint=localhost:{port}",
        str(ROOT / "scripts" / "train.py"),
        *options,
    ]
    launch += ["norm=group", "norm.groups=8", "+trainer.num_nodes=2", "+trainer.strategy=ddp"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    machines = [subprocess.Popen(launch, cwd=folder, env=environment) for _ in range(2)]
    try:
        assert [machine.wait(300) for machine in machines] == [0, 0]
    finally:
        for machine in machines:
            machine.kill()
    same(one, folder / "run")
