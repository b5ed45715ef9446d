"""What is measured of a run's folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco_mask

from detector.ablation.collect import FinishedRun, collect_records, measure_run
from detector.ablation.description import Arm, StudyInfo
from tests.conftest import compose_config


def a_run(folder: Path, annotation: dict[str, Any]) -> Path:
    """A run's folder with one image, one object and one detection of it, box and mask."""
    Image.new("RGB", (40, 30)).save(folder / "1.png")
    about = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    images = [{"id": 1, "file_name": "1.png", "width": 40, "height": 30}]
    content = {"images": images, "annotations": [about | annotation], "categories": [{"id": 1, "name": "thing"}]}
    (folder / "truth.json").write_text(json.dumps(content))
    parts = [f"dataset.{part}.annotations={folder}/truth.json" for part in ("train", "val")]
    config = compose_config("dataset=custom", "model=mask_rcnn", *parts)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    found = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 18], "score": 0.9}
    pixels = np.zeros((30, 40, 1), np.uint8, order="F")
    pixels[4:22, 4:24] = 1
    (code,) = coco_mask.encode(pixels)
    mask = {"size": code["size"], "counts": code["counts"].decode()}
    (folder / "predictions").mkdir()
    (folder / "predictions" / "box.json").write_text(json.dumps([found]))
    (folder / "predictions" / "mask.json").write_text(json.dumps([found | {"segmentation": mask}]))
    return folder


def test_masks_are_measured_where_there_is_a_truth_of_them(tmp_path: Path) -> None:
    kinds = measure_run(a_run(tmp_path, {}))
    assert list(kinds) == ["box"]
    assert kinds["box"].values["AP"] == pytest.approx(0.9)  # the IoU is 0.9
    assert list(measure_run(tmp_path)) == ["box"]


def test_a_run_without_an_object_that_counts_is_said_to_be_one(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"iscrowd": 1})
    with pytest.raises(ValueError, match="nothing can be measured on custom: no object of its val part counts"):
        measure_run(folder)


def test_metrics_of_the_users_own_are_recorded_where_they_are_fractions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = a_run(tmp_path, {})
    written = {
        **{"box/AP": 0.9, "box/AP/thing": 0.9, "box/AR1": 0.9, "mask/AP": 0.5, "env/parameters": 9, "time/total": 1.0},
        **{"box/F1": 0.8, "voc/mAP": 0.7, "voc/AP/thing": 0.7, "radius/error": 0, "radius/error/thing": 0.1},
        **{"radius/pixels": 3.5, "radius/none": float("nan"), "radius/found": True, "radius/unit": "px", "plain": 0.5},
    }
    (folder / "metrics.json").write_text(json.dumps(written))
    study = StudyInfo("s", "t", "q", "a", {"a": Arm("A", [])}, ["custom"], [0])
    records = collect_records(study, [FinishedRun("a", "custom", 0, folder, "python scripts/train.py")])
    others = [(m.kind, m.metric, m.value) for m in records.metrics if m.low is None]
    assert others == [("box", "F1", 0.8), ("box", "mAP", 0.7), ("radius", "error", 0.0)]
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 4
    assert f"radius/pixels is left out of the records where it is no fraction in 0..1: 3.5 in {folder}" in warned[0]
