"""The papers' recipes: presets that hold what was published, and that can be rehearsed without a GPU."""

import csv
import json
from pathlib import Path

import pytest
import torch

from detector.config import build
from detector.config.resolve import with_classes
from detector.weights.checkpoints import portable_config
from tests.conftest import CLASSES, ROOT, compose_config
from tests.scripts.conftest import run_script

SHARED = ROOT.parent / "shared" / "data"
EVEN = 0.02 / 3


@pytest.mark.parametrize(
    ("experiment", "images", "rates", "steps", "decay", "rois", "proposals"),
    [
        ("mask_rcnn_c4", 16, {0: EVEN, 500: 0.02, 119999: 0.02, 120000: 0.002}, 160000, 1e-4, 64, 300),
        ("mask_rcnn_c5", 16, {0: EVEN, 500: 0.02, 119999: 0.02, 120000: 0.002}, 160000, 1e-4, 64, 300),
        ("mask_rcnn_fpn", 16, {0: EVEN, 500: 0.02, 119999: 0.02, 120000: 0.002}, 160000, 1e-4, 512, 1000),
        ("fpn_table3", 16, {0: EVEN, 500: 0.02, 59999: 0.02, 60000: 0.002}, 80000, 1e-4, 512, 1000),
        ("voc07_vgg16", 1, {0: 0.001, 49999: 0.001, 50000: 0.0001}, 70000, 5e-4, 128, 300),
        ("voc0712_vgg16", 1, {0: 0.001, 79999: 0.001, 80000: 0.0001}, 110000, 5e-4, 128, 300),
        ("rfcn_voc0712", 8, {0: 0.001, 19999: 0.001, 20000: 0.0001}, 30000, 5e-4, 128, 300),
        (
            "voc0712_c4",
            16,
            {0: 0.00002, 100: 0.02, 11999: 0.02, 12000: 0.002, 15999: 0.002, 16000: 0.0002},
            18000,
            1e-4,
            512,
            1000,
        ),
    ],
)
def test_presets_hold_what_was_published(
    experiment: str, images: int, rates: dict[int, float], steps: int, decay: float, rois: int, proposals: int
) -> None:
    config = with_classes(compose_config(f"experiment={experiment}"), CLASSES)
    assert (config.schedule.steps, config.schedule.batch_size) == (steps, images)
    optimizer = build.instantiate(config.schedule.optimizer)([{"params": [torch.nn.Parameter(torch.zeros(3, 3))]}])
    start, decays, momentum = (optimizer.param_groups[0][key] for key in ("lr", "weight_decay", "momentum"))
    factor = build.instantiate(config.schedule.scheduler)(optimizer).lr_lambdas[0]
    assert {step: start * factor(step) for step in rates} == pytest.approx(rates)
    assert (decays, momentum) == (decay, 0.9)
    with torch.device("meta"):
        config.backbone.weights = None
        model = build.build_model(config)
    heads = config.model.heads
    assert (heads.get("hard_examples") or heads.sampler.batch_size_per_image) == rois
    assert heads.sampler.positive_fraction == 0.25
    assert model.proposer.test_limits.post_nms_topk == proposals
    assert not any(p.requires_grad for p in next(model.backbone.body.children()).parameters())


PAPERS = [
    *("mask_rcnn_c4", "mask_rcnn_c5", "mask_rcnn_fpn", "fpn_table3"),
    *("voc07_vgg16", "voc0712_vgg16", "rfcn_voc0712", "voc0712_c4"),
]


@pytest.mark.parametrize("experiment", PAPERS)
def test_a_rehearsal_changes_neither_the_images_nor_the_model(experiment: str) -> None:
    whole, dry = (compose_config(f"experiment={e}") for e in (experiment, f"[{experiment},dry]"))
    assert (dry.trainer.accelerator, dry.schedule.steps, dry.schedule.batch_size) == ("cpu", 2, 1)
    assert (dry.dataset.train.limit, dry.dataset.val.limit, dry.backbone.weights) == (2, 2, None)
    for key in ("train_augment", "val_augment", "rois", "rpn", "anchor_sizes"):
        assert dry.dataset[key] == whole.dataset[key]
    plain, other = (portable_config(with_classes(c, CLASSES))["model"] for c in (whole, dry))
    assert plain["heads"]["select"].pop("score_thresh") == 0.05
    assert other["heads"]["select"].pop("score_thresh") == 0.0
    told = json.dumps(plain["heads"]["select"]), json.dumps(other["heads"]["select"])
    assert told[0] == told[1]
    assert plain["proposer"] == other["proposer"]


@pytest.mark.slow(minutes=1)
@pytest.mark.skipif(not (SHARED / "coco").is_dir(), reason="the sample data are not beside the repository")
def test_table_2c_from_command_to_report(tmp_path: Path) -> None:
    """On smaller images and with fewer proposals, for the time's sake."""
    sizes = {"short_sizes": "[160]", "max_size": "240"}
    small = [f"dataset.{split}_augment.{key}={value}" for split in ("train", "val") for key, value in sizes.items()]
    overrides = json.dumps(
        ["experiment=dry", *small, "dataset.rpn.test.post_nms_topk=20", "dataset.rois=16", "dataset.detections=5"]
    )
    result = run_script(
        "ablate",
        *("study=table2c", "arms=[roipool,roialign]", "study.seeds=[0]", f"overrides={overrides}"),
        *(f"data_dir={SHARED}", "hydra.run.dir=dry"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    with (tmp_path / "dry" / "records" / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert [(run["arm"], run["steps"], run["images"]) for run in runs] == [
        ("roipool", "2", "2"),
        ("roialign", "2", "2"),
    ]
    assert all("'experiment=[study_defaults,mask_rcnn_c4,dry]'" in run["command"] for run in runs)
    for arm in ("roipool", "roialign"):
        found = json.loads((tmp_path / f"dry/runs/{arm}/coco/0/predictions/mask.json").read_text())
        assert found
    assert "table 2c" in (tmp_path / "dry" / "report" / "report.html").read_text()
