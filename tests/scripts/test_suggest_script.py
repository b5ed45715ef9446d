"""`scripts/data.py suggest`, and training with what it has written."""

import re
from pathlib import Path

import pytest
import yaml

from tests.scripts.conftest import FEW, SMALL, run_script

SHAPES = ["dataset=shapes_coco", *FEW]


def test_the_suggestions_train(tmp_path: Path) -> None:
    given = [*SHAPES, "backbone=resnet18_small_fpn", "dataset.train_augment.horizontal_flip=0.25"]
    done = run_script("data", "suggest", *given, "seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train: 8 images" in done.stdout
    file = tmp_path / "mine" / "experiment" / "suggested.yaml"
    written = yaml.safe_load(file.read_text())
    assert file.read_text().startswith("# @package _global_\n")
    assert written["defaults"] == [{"override /dataset": "shapes_coco"}, {"override /backbone": "resnet18_small_fpn"}]
    assert written["seed"] == 3
    assert written["dataset"]["train"] == {"train": 8, "val": 6, "image_size": 96}
    assert written["dataset"]["train_augment"]["horizontal_flip"] == 0.25
    assert written["dataset"]["train_augment"]["short_sizes"] == written["dataset"]["val_augment"]["short_sizes"]
    sizes, ratios = written["dataset"]["anchor_sizes"], written["model"]["proposer"]["anchors"]["ratios"]
    levels = [level if isinstance(level, list) else [level] for level in sizes]
    assert [len(level) * len(ratios) for level in levels] == [written["backbone"].get("anchors", 3)] * 5
    (overrides,) = re.findall(r"^overrides: (.*)$", done.stdout, re.M)
    assert f"dataset.val_augment.short_sizes=[{written['dataset']['val_augment']['short_sizes'][0]}]" in overrides
    command = done.stdout.splitlines()[-1]
    assert command == "python scripts/train.py --config-dir mine experiment=suggested"
    small = [key for key in SMALL if key.startswith(("backbone.channels", "backbone.width", "workers"))]
    steps = ["schedule.steps=1", "schedule.validate_every=1", "schedule.batch_size=2", "logger=none"]
    trained = run_script("train", *command.split()[2:], *small, *steps, "hydra.run.dir=run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["dataset"]["anchor_sizes"] == sizes
    assert config["model"]["proposer"]["anchors"]["ratios"] == ratios
    assert config["dataset"]["name"] == "shapes_coco"
    assert config["seed"] == 3


def test_the_users_experiment_and_deletions_stay_in_the_command(tmp_path: Path) -> None:
    given = ["experiment=study_defaults", *SHAPES, "~schedule.optimizer.fused", "write=own/experiment/mine.yaml"]
    done = run_script("data", "suggest", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    command = "--config-dir own 'experiment=[study_defaults,mine]' '~schedule.optimizer.fused'"
    assert done.stdout.splitlines()[-1].endswith(command)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["write=suggested.yaml"], "write=suggested.yaml: give FOLDER/experiment/NAME.yaml"),
        (["write=mine/experiment/nuclei.yaml"], "experiment=nuclei is one of this project; choose another name"),
        (["write=there/experiment/a.yaml"], "there/experiment/a.yaml exists; overwrite=true writes over it"),
        (["weights=run.ckpt"], "weights=run.ckpt: a trained detector keeps its anchors, levels and input size"),
        (["dataset.val_augment._target_=a.B"], "dataset.val_augment is a a.B; the sizes that are suggested are keys"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_data_is_read(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "there" / "experiment").mkdir(parents=True)
    (tmp_path / "there" / "experiment" / "a.yaml").write_text("seed: 1\n")
    done = run_script("data", "suggest", "dataset=coco", "data_dir=nowhere", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "there" / "experiment" / "a.yaml").read_text() == "seed: 1\n"
