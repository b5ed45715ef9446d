"""Weights of torchvision from the command line: prediction, evaluation, fine-tuning."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from tests.conftest import ROOT
from tests.scripts.conftest import run_script

COCO = ROOT.parent / "shared" / "data" / "coco"
NAME = "maskrcnn_resnet50_fpn"
SMALL = [
    *("schedule.steps=2", "schedule.batch_size=2", "workers=0", "trainer.log_every_n_steps=1"),
    *("dataset.train_augment.short_sizes=[96]", "dataset.val_augment.short_sizes=[96]"),
    *("dataset.rois=16", "dataset.rpn.train.post_nms_topk=32", "dataset.rpn.test.post_nms_topk=16"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save a state dict of torchvision's model that classifies every box as a person."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(NAME, weights=None, weights_backbone=None)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] += 20
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(model.state_dict(), path)
    return f"torchvision:{NAME}:{path}"


def test_prediction(tmp_path: Path, weights: str) -> None:
    Image.new("RGB", (90, 60), (200, 30, 60)).save(tmp_path / "image.png")
    done = run_script("predict", f"checkpoint={weights}", "input=image.png", "output=found", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found" / "detections.json").read_text())["image.png"]
    assert found
    assert {thing["class"] for thing in found} == {"person"}
    assert all(thing["segmentation"]["size"] == [60, 90] for thing in found)


@pytest.mark.skipif(not COCO.is_dir(), reason="the sample of COCO is not beside the repository")
def test_evaluation(tmp_path: Path, weights: str) -> None:
    few = ["dataset=coco", f"data_dir={COCO.parent}", "dataset.val.limit=2", "dataset.val_augment.short_sizes=[96]"]
    done = run_script("evaluate", f"checkpoint={weights}", *few, "workers=0", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {"box/AP", "mask/AP"} <= metrics.keys()
    assert metrics["env/precision"] == "32-true"
    found = json.loads((tmp_path / "run" / "predictions" / "mask.json").read_text())
    assert {thing["category_id"] for thing in found} == {1}  # COCO's own id of a person


def test_evaluation_on_other_classes_is_refused(tmp_path: Path, weights: str) -> None:
    few = ["dataset=shapes", "dataset.train.train=2", "dataset.train.val=2", "data_dir=data"]
    done = run_script("evaluate", f"checkpoint={weights}", *few, cwd=tmp_path)
    assert done.returncode == 1
    assert "knows 80 classes" in done.stderr
    assert "Traceback" not in done.stderr


def test_fine_tuning_on_other_classes(tmp_path: Path, weights: str) -> None:
    few = ["dataset=shapes", "dataset.train.train=4", "dataset.train.val=2", "data_dir=data"]
    few += ["schedule.optimizer.momentum=0.75"]  # a key of the weights' preset
    done = run_script("train", f"weights={weights}", *few, *SMALL, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("weights: "))
    assert "instead of 80" in line
    for layer in ("heads.box_head.classify", "heads.box_head.regress", "heads.further.mask.predictor."):
        assert layer in line
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "eps: 1.0e-05" in config  # this file has trained norms; the published weights have eps=0
    assert "aligned: false" in config
    assert "momentum: 0.75" in config
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    theirs = torch.load(weights.rpartition(":")[2], weights_only=True)
    frozen = state["model.backbone.body.layer1.0.conv1.weight"]
    assert torch.equal(frozen, theirs["backbone.body.layer1.0.conv1.weight"])
    (tmp_path / "data").rename(tmp_path / "moved")
    done = run_script("evaluate", f"checkpoint={checkpoint}", "data_dir=moved", "workers=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_studies_take_keys_of_the_preset(tmp_path: Path, weights: str) -> None:
    few = ["dataset=shapes", "dataset.train.train=4", "dataset.train.val=2", *SMALL, "study.seeds=[0]"]
    study = ["study=half_pixel", "arms=[without]", f"weights={weights}", *few, "schedule.optimizer.momentum=0.75"]
    done = run_script("ablate", *study, "schedule.steps=0", cwd=tmp_path)  # composes, and reads the weights
    assert "schedule.steps must be a whole number" in done.stderr, done.stderr
    wrong = run_script("ablate", *study, "trainer.precison=32-true", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "unknown key 'trainer.precison'; did you mean trainer.precision?" in wrong.stderr


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("torchvision:retinanet_resnet50_fpn", ["retinanet_resnet50_fpn", NAME]),
        ("nowhere.pkl", ["nowhere.pkl", "no such file"]),
    ],
)
def test_missing_weights_are_named(tmp_path: Path, source: str, words: list[str]) -> None:
    for script, key in (("train", "weights"), ("evaluate", "checkpoint")):
        done = run_script(script, f"{key}={source}", cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert all(word in done.stderr for word in words), done.stderr
