import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.scripts.conftest import SMALL, Run, run_script


def metrics(folder: Path) -> dict[str, float]:
    """Return the metrics without environment and times."""
    content = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in content.items() if not name.startswith(("env/", "time/"))}


def test_metrics_equal_those_of_the_run(tmp_path: Path, run: Run) -> None:
    data = run.folder.parent / "data"
    done = run_script(
        "evaluate", f"checkpoint={run.checkpoint}", f"data_dir={data}", "hydra.run.dir=again", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "again") == metrics(run.folder)
    for kind in ("box", "mask"):
        name = f"predictions/{kind}.json"
        assert (tmp_path / "again" / name).read_text() == (run.folder / name).read_text()


def test_batches_of_one(tmp_path: Path, run: Run) -> None:
    data = f"data_dir={run.folder.parent / 'data'}"
    done = run_script(
        "evaluate", f"checkpoint={run.checkpoint}", data, "batch_size=1", "workers=0", "hydra.run.dir=one", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "6/6" in done.stdout
    assert metrics(tmp_path / "one").keys() == metrics(run.folder).keys()


def test_another_dataset(tmp_path: Path, run: Run) -> None:
    small = ["dataset=shapes_voc", "dataset.train.train=2", "dataset.train.val=3", "data_dir=data", "workers=0"]
    done = run_script("evaluate", f"checkpoint={run.checkpoint}", *small, "hydra.run.dir=other", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "box/AP" in metrics(tmp_path / "other")
    assert next((tmp_path / "data").glob("shapes_voc-*")).is_dir()
    found = json.loads((tmp_path / "other" / "predictions" / "box.json").read_text())
    assert found != json.loads((run.folder / "predictions" / "box.json").read_text())


def test_keys_of_the_dataset_alone_change_that_of_the_training(tmp_path: Path, run: Run) -> None:
    arguments = [f"checkpoint={run.checkpoint}", f"data_dir={run.folder.parent / 'data'}", "hydra.run.dir=other"]
    done = run_script("evaluate", *arguments, "dataset.metrics=[voc]", "workers=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'dataset.metrics=["voc"] (there ["coco"])' in done.stdout
    measured = metrics(tmp_path / "other")
    assert {"voc/mAP"} <= measured.keys() - metrics(run.folder).keys()
    assert "box/AP" not in measured
    for script, key, more in (
        ("evaluate", "dataset.val.splitt", ["hydra.run.dir=no"]),
        ("predict", "dataset.val_augment.max_size", ["input=x.png"]),  # it has no dataset
    ):
        done = run_script(script, arguments[0], *more, f"{key}=train", cwd=tmp_path)
        assert done.returncode == 1
        assert f"error: unknown key '{key}'" in done.stderr


def test_missing_data_is_named(tmp_path: Path, run: Run) -> None:
    done = run_script("evaluate", f"checkpoint={run.checkpoint}", "dataset=coco", "data_dir=elsewhere", cwd=tmp_path)
    assert done.returncode == 1
    assert "elsewhere" in done.stderr
    assert "Traceback" not in done.stderr


def tampered(run: Run, path: Path, change: Any) -> Path:
    content = torch.load(run.checkpoint, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def _system(content: dict[str, Any]) -> None:
    content["aligned_rcnn"]["config"]["model"]["normalize"] = {"_target_": "os.system", "command": "touch harmed"}


def _borrowed_name(content: dict[str, Any]) -> None:
    target = "detector.data.datamodule.os.system"
    content["aligned_rcnn"]["config"]["model"]["normalize"] = {"_target_": target, "command": "touch harmed"}


def _in_the_dataset(content: dict[str, Any]) -> None:
    content["aligned_rcnn"]["config"]["dataset"]["val"] = {"_target_": "subprocess.run", "args": ["touch", "harmed"]}


def _downloads(content: dict[str, Any]) -> None:
    content["aligned_rcnn"]["config"]["model"]["backbone"] = {
        "_target_": "torch.hub.load",
        "repo_or_dir": "a/b",
        "model": "c",
    }


def _computes(content: dict[str, Any]) -> None:
    content["aligned_rcnn"]["config"]["model"]["_target_"] = "${oc.env:HOME}"


def _other_weights(content: dict[str, Any]) -> None:
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if "further.mask" not in k}


def _no_configuration(content: dict[str, Any]) -> None:
    del content["aligned_rcnn"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_system, ["os.system", "model.normalize", "refused"]),
        (_borrowed_name, ["os.system", "refused"]),
        (_in_the_dataset, ["subprocess.run", "refused"]),
        (_downloads, ["torch.hub.load", "refused"]),
        (_computes, ["oc.env"]),
        (_other_weights, ["another model", "further.mask"]),
        (_no_configuration, ["not written by this project"]),
    ],
)
def test_other_and_hostile_checkpoints_are_refused(change: Any, words: list[str], tmp_path: Path, run: Run) -> None:
    path = tampered(run, tmp_path / "bad.ckpt", change)
    done = run_script("evaluate", f"checkpoint={path}", f"data_dir={run.folder.parent / 'data'}", cwd=tmp_path)
    assert done.returncode == 1
    assert all(word in done.stderr for word in ["bad.ckpt", *words]), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "harmed").exists()


class Harmful:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch harmed",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "aligned_rcnn": Harmful()}, tmp_path / "bad.ckpt")
    (tmp_path / "garbage.ckpt").write_bytes(b"no checkpoint")
    for name in ("bad.ckpt", "garbage.ckpt", "missing.ckpt"):
        done = run_script("evaluate", f"checkpoint={name}", cwd=tmp_path)
        assert done.returncode == 1
        assert name in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "harmed").exists()


def test_windows_are_measured_against_the_whole_image(tmp_path: Path, run: Run) -> None:
    """One window of the images' size gives the same metrics; smaller ones and flips are measured alike."""
    arguments = [f"checkpoint={run.checkpoint}", f"data_dir={run.folder.parent / 'data'}", "workers=0"]
    for name, more in (
        ("whole", ["batch_size=1"]),
        ("one", ["tiles=96", "batch_size=1"]),
        ("four", ["tiles=64", "overlap=0.3"]),
        ("flipped", ["test_time_augmentation={flip: true}"]),
    ):
        done = run_script("evaluate", *arguments, *more, f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "one") == metrics(tmp_path / "whole")
    rows = {name: json.loads((tmp_path / name / "predictions" / "mask.json").read_text()) for name in ("four", "one")}
    assert rows["four"] != rows["one"]
    assert {tuple(row["segmentation"]["size"]) for row in rows["four"]} == {(96, 96)}
    assert metrics(tmp_path / "four").keys() == metrics(tmp_path / "whole").keys()
    assert metrics(tmp_path / "flipped") != metrics(tmp_path / "whole")
    for key in ("tiles=64", "post_nms_topk=9", "nms_thresh=0"):
        done = run_script("evaluate", "predictions=found.json", key, "dataset=coco", cwd=tmp_path)
        assert done.returncode == 1
        assert f"{key.split('=')[0]}= is how a detector is run" in done.stderr


def test_a_training_by_windows_validates_as_its_evaluation_does(tmp_path: Path) -> None:
    """`tiles=` of a training counts for its evaluations, too, but for those with other windows, or none."""
    small = [option for option in SMALL if not option.startswith("schedule.steps")]
    arguments = ["tiles=64", "overlap=0.3", "dataset.train_augment.fixed_size=[64,64]", "schedule.steps=3"]
    done = run_script(
        "train", *small, *arguments, "dataset.train_augment.min_inside=0.5", "hydra.run.dir=run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    trained = json.loads((tmp_path / "run/metrics.json").read_text())
    predictions = {"run": json.loads((tmp_path / "run/predictions/box.json").read_text())}
    for name, more in (("same", []), ("others", ["overlap=0.7"]), ("sides", ["tiles=48"]), ("whole", ["tiles=0"])):
        done = run_script(
            "evaluate",
            "checkpoint=run/checkpoints/last.ckpt",
            f"hydra.run.dir={name}",
            "workers=0",
            *more,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        predictions[name] = json.loads((tmp_path / name / "predictions/box.json").read_text())
    assert predictions["same"] == predictions["run"]
    assert all(predictions[name] != predictions["run"] for name in ("others", "sides", "whole"))
    again = json.loads((tmp_path / "same/metrics.json").read_text())
    assert {k: v for k, v in again.items() if k.startswith("box/")} == {
        k: v for k, v in trained.items() if k.startswith("box/")
    }
    assert "val_loss" not in (tmp_path / "run/metrics.csv").read_text().splitlines()[0]  # of whole images
