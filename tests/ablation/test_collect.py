"""What is measured of a run's folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco_mask

from detector.ablation.collect import measure_run
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
