"""A user's package with a part of each kind works in all scripts."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import ROOT
from tests.scripts.conftest import run_script

PACKAGE = ROOT / "tests" / "extension"
SEARCH_PATH = "hydra.searchpath=[pkg://microscopy.configs]"
TRUST = "trust=[microscopy]"
PARTS = ["dataset=dots", "model=radius_rcnn", "backbone=strided_fpn", "pooler=centre", "logger=lines"]
SHORT = ["schedule.steps=4", "schedule.validate_every=2", "schedule.checkpoint_every=2", "schedule.batch_size=2"]
SHORT += ["workers=0", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run with the package's parts; returns the folder that holds `run`."""
    home = tmp_path_factory.mktemp("extension")
    done = run_script("train", SEARCH_PATH, *PARTS, *SHORT, TRUST, "hydra.run.dir=run", cwd=home, path=PACKAGE)
    assert done.returncode == 0, done.stderr
    return home


def test_it_trains_with_every_part(home: Path) -> None:
    metrics = json.loads((home / "run" / "metrics.json").read_text())
    assert {"box/AP", "radius/error"} <= metrics.keys()
    with (home / "run" / "metrics.csv").open() as file:
        assert "loss/radius" in file.readline()
    assert "'radius/error'" in (home / "run" / "lines.txt").read_text()
    radii = json.loads((home / "run" / "predictions" / "radius.json").read_text())
    boxes = json.loads((home / "run" / "predictions" / "box.json").read_text())
    assert len(radii) == len(boxes) > 0
    for one, other in zip(radii, boxes, strict=True):
        assert {k: one[k] for k in ("image_id", "category_id", "score")} == {
            k: other[k] for k in ("image_id", "category_id", "score")
        }
        assert 0 < one["radius"] < other["bbox"][2] + 1e-6
    content = torch.load(home / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert any("further.radius.regress" in name for name in content["state_dict"])
    config = content["aligned_rcnn"]["config"]
    assert config["trust"] == []  # trust is not stored
    assert config["model"]["heads"]["box_pooler"]["operator"]["_target_"] == "microscopy.parts.centre_pool"


def test_its_recorded_command_makes_it_again(home: Path) -> None:
    command = shlex.split((home / "run" / "command.txt").read_text())
    assert command[:2] == ["python", "scripts/train.py"]
    assert command[2:] == [SEARCH_PATH, *PARTS, *SHORT, TRUST]
    again = ["schedule.steps=1", "hydra.run.dir=again", "--cfg", "job"]
    done = run_script("train", *command[2:], *again, cwd=home, path=PACKAGE)
    assert done.returncode == 0, done.stderr


def test_training_needs_trust(tmp_path: Path) -> None:
    done = run_script("train", SEARCH_PATH, *PARTS, *SHORT, "hydra.run.dir=run", cwd=tmp_path, path=PACKAGE)
    assert done.returncode == 1
    assert "add trust=[microscopy]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_evaluation_is_equal_and_needs_trust(home: Path) -> None:
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    refused = run_script("evaluate", checkpoint, "hydra.run.dir=refused", cwd=home, path=PACKAGE)
    assert refused.returncode == 1
    assert "if you trust the package 'microscopy': trust=[microscopy]" in refused.stderr
    done = run_script("evaluate", checkpoint, TRUST, "hydra.run.dir=again", cwd=home, path=PACKAGE)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((home / name / "metrics.json").read_text()) for name in ("run", "again"))
    measured = [name for name in first if not name.startswith(("env/", "time/"))]
    assert "radius/error" in measured
    assert all(first[name] == second[name] for name in measured)
    for kind in ("box", "radius"):
        one, other = ((home / name / "predictions" / f"{kind}.json").read_text() for name in ("run", "again"))
        assert one == other


def test_an_interrupted_run_resumes_only_with_trust(tmp_path: Path) -> None:
    fails = "+dataset.train_augment.fails_at=5"  # in the third of four steps; the other two take four calls
    arguments = [SEARCH_PATH, *PARTS, *SHORT, TRUST, fails, "hydra.run.dir=run"]
    half = run_script("train", *arguments, cwd=tmp_path, path=PACKAGE)
    assert half.returncode == 1
    assert "call 5 fails" in half.stderr
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 2
    refused = run_script("train", f"resume={checkpoint}", cwd=tmp_path, path=PACKAGE)
    assert refused.returncode == 1
    assert "trust=[microscopy]" in refused.stderr
    done = run_script("train", f"resume={checkpoint}", "trust=microscopy", "workers=0", cwd=tmp_path, path=PACKAGE)
    assert done.returncode == 0, done.stderr
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 4
    assert "radius/error" in json.loads((tmp_path / "run" / "metrics.json").read_text())
    lines = (tmp_path / "run" / "lines.txt").read_text().splitlines()  # the run's own logger goes on
    assert {line.split()[0] for line in lines if "loss" in line} == {"0", "1", "2", "3"}
    assert list(OmegaConf.load(tmp_path / "run" / "config.yaml").logger) == ["lines"]
    assert "trust:\n- microscopy\n" in (tmp_path / "run" / "config.yaml").read_text()


def test_an_augmentation_takes_the_place_of_the_default_one(tmp_path: Path) -> None:
    small = ["dataset.train.train=4", "dataset.train.val=2", "backbone.channels=16", "backbone.width=32", "logger=none"]
    node = "{_target_: microscopy.parts.Darken, least: 0.5}"
    refused = run_script("train", *small, f"dataset.train_augment={node}", TRUST, cwd=tmp_path, path=PACKAGE)
    assert "write ++dataset.train_augment={...}" in refused.stderr
    darken = f"++dataset.train_augment={node}"
    done = run_script("train", *small, *SHORT, darken, TRUST, "hydra.run.dir=run", cwd=tmp_path, path=PACKAGE)
    assert done.returncode == 0, done.stderr
    augment = OmegaConf.load(tmp_path / "run" / "config.yaml").dataset.train_augment
    assert augment == {"_target_": "microscopy.parts.Darken", "least": 0.5}
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    own = ["dataset=shapes", *small[:2], "data_dir=data", f"++dataset.val_augment={node}", TRUST, "workers=0"]
    done = run_script("evaluate", checkpoint, *own, "hydra.run.dir=again", cwd=tmp_path, path=PACKAGE)
    assert done.returncode == 0, done.stderr
    augment = OmegaConf.load(tmp_path / "again" / "config.yaml").dataset.val_augment
    assert augment == {"_target_": "microscopy.parts.Darken", "least": 0.5}


def test_it_predicts(home: Path) -> None:
    Image.new("RGB", (80, 60), (10, 10, 10)).save(home / "image.png")
    arguments = ["checkpoint=run/checkpoints/last.ckpt", "input=image.png", "output=found"]
    done = run_script("predict", *arguments, TRUST, cwd=home, path=PACKAGE)
    assert done.returncode == 0, done.stderr
    found = json.loads((home / "found" / "detections.json").read_text())["image.png"]
    assert found
    assert all({"class", "score", "bbox", "radius"} <= thing.keys() for thing in found)


def test_its_parts_work_as_arms_of_a_study(tmp_path: Path) -> None:
    more = ["schedule.validate_every=4", "schedule.batch_size=2", "workers=0", "logger=none"]
    arguments = ["study=dots", SEARCH_PATH, TRUST, *more]
    done = run_script("ablate", *arguments, cwd=tmp_path, path=PACKAGE)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "multirun" / "dots"
    assert ",radius,error," in (folder / "records" / "metrics.csv").read_text()
    assert "radius" in (folder / "report" / "report.html").read_text()
    assert (folder / "report" / "tables" / "dots_dots_radius_metrics.csv").read_text().startswith("arm,error,seeds")
    arms = {line.split(",")[1] for line in (folder / "records" / "runs.csv").read_text().splitlines()[1:]}
    assert arms == {"whole", "centre"}
    for arm in arms:
        command = (folder / "runs" / arm / "dots" / "0" / "command.txt").read_text()
        assert "trust=[microscopy]" in command
        assert "pkg://microscopy.configs" in command
    again = run_script("ablate", *arguments, "dry_run=true", cwd=tmp_path, path=PACKAGE)
    assert again.stdout.count("done ") == 2
