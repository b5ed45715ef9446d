"""The workloads of `scripts/benchmark.py`, at small sizes."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from detector.evaluation import CocoMetric
from detector.training import against
from detector.training.workloads import data, evaluation, masks, selection

CPU = torch.device("cpu")
NAMES = sorted(p.stem for p in (against.ROOT / "detector/training/workloads").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_each_case_has_this_project_s_code(name: str) -> None:
    module = importlib.import_module(f"detector.training.workloads.{name}")
    assert module.CASES
    assert all(against.OURS in contenders for contenders in module.CASES.values())


def test_images_with_objects_are_written_and_read(tmp_path: Path) -> None:
    path = data.write(tmp_path, 2, (64, 96), 5, (4.0, 10.0))
    content = json.loads(path.read_text())
    assert [len(content[key]) for key in ("images", "annotations", "categories")] == [2, 10, 1]
    x, y, width, height = np.array([a["bbox"] for a in content["annotations"]]).T
    assert min(x.min(), y.min()) >= 0
    assert (x + width).max() <= 96
    assert (y + height).max() <= 64
    threads = torch.get_num_threads()
    try:
        for with_masks in (True, False):
            data.ours(2, (64, 96), 5, (4.0, 10.0), with_masks, CPU)()
    finally:
        torch.set_num_threads(threads)


def test_masks_are_encoded_and_cropped() -> None:
    codes = masks.encode(4, (200, 300), CPU)()
    assert isinstance(codes, list)
    boxes, _ = masks.detections(4, (200, 300))
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert (torch.from_numpy(coco_mask.area(codes)) / area).tolist() == pytest.approx([0.78] * 4, abs=0.1)  # ellipses
    share = masks.crop(4, (200, 300), 9, CPU)()
    assert isinstance(share, torch.Tensor)
    assert share.shape == (9, 28, 28)
    assert share.mean() > 0.8


def test_detections_are_selected_as_by_nms_alone() -> None:
    ours, theirs = selection.ours(400, 50, CPU)(), selection.torchvision(400, 50, CPU)()
    assert isinstance(ours, list)
    assert isinstance(theirs, torch.Tensor)
    scores = selection.candidates(400, CPU)[1]
    assert torch.equal(ours[0].scores, scores[theirs])


def test_ap_is_that_of_pycocotools() -> None:
    ours, theirs = evaluation.ours(CocoMetric, 8, True, CPU)(), evaluation.pycocotools(8, True, CPU)()
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    assert theirs.keys() == {"box/AP", "mask/AP"}
    assert {name: ours[name] for name in theirs} == theirs
