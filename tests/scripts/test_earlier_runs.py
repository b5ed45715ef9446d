"""Runs of version 0.1.0, whose configurations have other keys and whose checkpoints have format 3."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scripts.conftest import run_script

CONFIG = """
seed: 0
data_dir: data
workers: 0
classes: [ellipse, rectangle, triangle, ring, cross]
num_classes: 5
dataset:
  name: shapes_coco
  train: &shapes {_target_: detector.data.shapes.ShapesDataset, masks: true, root: data/shapes_coco, split: train,
    shares: [0.41, 0.34, 0.24], size_bins: [16, 48], image_size: 192, train: 2, val: 3, seed: 0}
  val: {<<: *shapes, split: val}
  train_augment: {_target_: detector.data.augment.Augment, horizontal_flip: 0.5, colour: 0.0}
  canonical_size: 54
  anchor_sizes: [8, 16, 32, 64, 128]
  size_bins: [16, 48]
  metrics: [coco]
  proposals: {train: {pre_nms: 500, post_nms: 256}, test: {pre_nms: 500, post_nms: 128}}
  rois: 128
  detections: 50
backbone: {roi_strides: [4, 8, 16, 32], stage: null}
pooler:
  assign: {_target_: ops.assign_levels, _partial_: true, canonical_size: 54, canonical_level: 4, rounding: floor}
  operator: {_target_: ops.multiscale_roi_align, _partial_: true, sampling_ratio: 2, aligned: true, mode: avg}
model:
  _target_: detector.models.rcnn.RCNN
  proposer:
    _target_: detector.models.rpn.RPN
    train: {_target_: detector.models.rpn.Limits, pre_nms: 500, post_nms: 256}
    nms: 0.7
  heads:
    _target_: detector.models.roi_heads.StandardHeads
    append_truth: true
    select: {_target_: detector.models.selection.Select, score: 0.05, nms: 0.5, detections: 50}
    mask_head: {_target_: detector.models.mask_head.MaskHead, threshold: 0.5}
schedule: {steps: 600, batch_size: 4}
trainer: {accelerator: auto, precision: 32-true, accumulate_grad_batches: 1}
"""
STUDY = ["study=pooler", "arms=[roipool,roialign]", "datasets=[shapes_coco]", "study.seeds=[0]"]
ARMS = {"roipool": 0.25, "roialign": 0.5}


def measurement(path: Path, kind: str, value: float) -> None:
    """Write a run's `measured-KIND.npz`."""
    facts = {"kind": kind, "images": [1, 2, 3], "seed": 0, "values": {"AP": value, "AP50": value}}
    samples = np.full((2, 1000), value) + np.linspace(-0.1, 0.1, 1000)
    np.savez_compressed(path / f"measured-{kind}.npz", facts=np.array(json.dumps(facts)), samples=samples)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study with two runs, whose commands have `workers=0`."""
    for arm, value in ARMS.items():
        run = tmp_path / "multirun" / "pooler" / "runs" / arm / "shapes_coco" / "0"
        (run / "predictions").mkdir(parents=True)
        (run / "checkpoints").mkdir()
        torch.save({"aligned_rcnn": {"format": 3, "config": {}}}, run / "checkpoints" / "last.ckpt")
        command = f"python scripts/train.py dataset=shapes_coco pooler={arm} schedule.steps=600 data_dir=data workers=0"
        (run / "command.txt").write_text(f"{command} seed=0\n")
        (run / "config.yaml").write_text(CONFIG)
        (run / "metrics.json").write_text(json.dumps({"box/AP": value, "env/parameters": "99", "time/total": 60.0}))
        (run / "metrics.csv").write_text("step,loss/total,box/AP\n300,2.5,\n600,1.5,0.5\n")
        for kind in ("box", "mask"):
            (run / "predictions" / f"{kind}.json").write_text("[]")
            measurement(run, kind, value)
    return tmp_path / "multirun" / "pooler"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_earlier_runs_count_as_finished_and_give_records(study: Path, tmp_path: Path) -> None:
    shown = run_script("ablate", *STUDY, "dry_run=true", cwd=tmp_path)
    assert shown.stdout.count("done python scripts/train.py") == len(ARMS), shown.stderr
    remeasured = study / "runs" / "roialign" / "shapes_coco" / "0" / "measured-mask.npz"
    remeasured.unlink()
    before = {path: path.read_bytes() for path in study.glob("runs/**/*") if path.is_file()}
    result = run_script("ablate", *STUDY, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "run 1 of" not in result.stdout
    after = {path: path.read_bytes() for path in study.glob("runs/**/*") if path.is_file()}
    assert after.pop(remeasured)
    assert after == before
    runs = {row["arm"]: (row["steps"], row["params"]) for row in rows(study / "records" / "runs.csv")}
    assert runs == dict.fromkeys(ARMS, ("600", "99"))
    metrics = rows(study / "records" / "metrics.csv")
    values = {(r["arm"], r["kind"]): float(r["value"]) for r in metrics if r["metric"] == "AP"}
    boxes = {(arm, "box"): value for arm, value in ARMS.items()}
    assert values == boxes | {("roipool", "mask"): 0.25, ("roialign", "mask"): 0}  # it has no predictions
    assert (study / "report" / "report.html").is_file()
    assert (study / "showcases" / "shapes_coco" / "mask" / "showcase.png").is_file()

    folders = [str(study / "runs" / arm / "shapes_coco" / "0") for arm in ARMS]
    compared = run_script("ablate", "--compare", *folders, "--output", "two", "--trust", "some.package", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    differences = rows(tmp_path / "two" / "records" / "differences.csv")
    gains = {row["kind"]: float(row["value"]) for row in differences if row["metric"] == "AP"}
    assert gains == {"box": 0.25, "mask": -0.25}


def test_unfinished_earlier_runs_are_refused_with_the_reason(study: Path, tmp_path: Path) -> None:
    run = study / "runs" / "roipool" / "shapes_coco" / "0"
    (run / "metrics.json").unlink()
    drawn = ["dataset.train.train=2", "dataset.train.val=3"]  # as in its configuration
    result = run_script("ablate", STUDY[0], "arms=[roipool]", *STUDY[2:], *drawn, cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"{run.relative_to(tmp_path)} holds a run with other values of" in result.stderr
    assert "remove that one" in result.stderr
