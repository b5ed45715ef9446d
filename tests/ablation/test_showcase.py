"""The images on which two runs differ most."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco_mask

from detector.ablation.report.showcase import TILE, cases, showcase, showcases
from detector.config import build
from detector.evaluation.measure import MatchedObjects
from tests.conftest import compose_config


def truth(images: list[int | str], ious: list[float]) -> MatchedObjects:
    n = len(images)
    return MatchedObjects(list(images), np.ones(n, int), np.ones(n), np.arange(4.0 * n).reshape(n, 4), np.array(ious))


def test_the_largest_difference_comes_first_whoever_is_better() -> None:
    images: list[int | str] = [1, 1, 2, 3, "x"]
    first = truth(images, [0.6, 0.8, 0.9, 0.7, 0.5])
    second = truth(images, [0.7, 0.9, math.nan, 0.9, 0.5])
    found = cases(first, second)
    assert [case.image for case in found] == [2, 3, 1, "x"]
    assert [case.difference for case in found] == pytest.approx([-0.9, 0.2, 0.1, 0.0])
    assert (found[2].objects, found[2].first, found[2].second) == (2, pytest.approx(0.7), pytest.approx(0.8))
    assert cases(first, second, 2) == found[:2]


def test_other_objects_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="on the same objects only"):
        cases(truth([1], [0.5]), truth([2], [0.5]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One run finds all; the other is off by a sixth of each object's width on every third image."""
    root = tmp_path_factory.mktemp("runs")
    config = compose_config(f"data_dir={root / 'data'}", "dataset.train.train=2", "dataset.train.val=9")
    annotations = build.build_dataset(config, "val").ground_truth()["annotations"]
    folders = root / "a", root / "b"
    for folder, off in zip(folders, (1 / 6, 0), strict=True):
        rows: list[dict[str, Any]] = []
        for a in annotations:
            x, y, w, h = a["bbox"]
            moved = x + (off * w if a["image_id"] % 3 == 0 else 0)
            found = {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": [moved, y, w, h], "score": 0.9}
            rows.append(found)
        (folder / "predictions").mkdir(parents=True)
        (folder / "predictions" / "box.json").write_text(json.dumps(rows))
        OmegaConf.save(config, folder / "config.yaml", resolve=True)
    return folders


def test_draws_the_images_that_differ(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = showcase(*runs, tmp_path, ("RoIPool, which is a very long name " * 4, "RoIAlign"), most=3)
    assert {case.image for case in found} == {3, 6, 9}
    for case in found:
        assert case.first == pytest.approx(5 / 7, abs=0.03)
        assert case.second == pytest.approx(1)
    picture = Image.open(tmp_path / "showcase.png")
    assert picture.size[0] > 3 * TILE
    assert picture.size[1] > 3 * TILE
    third = picture.size[0] // 3
    truth, first, second = (np.asarray(picture.crop((i * third, 40, (i + 1) * third, TILE))) for i in range(3))
    assert first.std() > 10
    assert (truth != second).any()
    assert (first != second).any()
    with (tmp_path / "showcase.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0][-1] == "difference"
    assert [line[0] for line in lines[1:]] == [str(case.image) for case in found]


def test_says_what_is_missing(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.yaml; give a folder that train.py has written"):
        showcase(tmp_path, runs[1], tmp_path / "out", ("a", "b"))
    (tmp_path / "config.yaml").write_text((runs[0] / "config.yaml").read_text())
    with pytest.raises(ValueError, match="there are no predictions"):
        showcase(runs[0], tmp_path, tmp_path / "out", ("a", "b"))
    other = OmegaConf.load(runs[0] / "config.yaml")
    other.dataset.name = "shapes_voc"
    OmegaConf.save(other, tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="these are on shapes_coco and shapes_voc"):
        showcase(runs[0], tmp_path, tmp_path / "out", ("a", "b"))
    with pytest.raises(ValueError, match="most must be at least 1, not 0"):
        showcase(*runs, tmp_path / "out", ("a", "b"), most=0)


def test_masks_are_drawn_where_both_runs_have_them(tmp_path: Path) -> None:
    config = compose_config("model=mask_rcnn", f"data_dir={tmp_path}", "dataset.train.train=2", "dataset.train.val=4")
    dataset = build.build_dataset(config, "val")
    truth = dataset.ground_truth()
    for name in "ab":
        rows = []
        for annotation in truth["annotations"]:
            segmentation = annotation["segmentation"]
            if name == "b" and annotation["image_id"] == truth["images"][1]["id"]:  # the left half of each mask
                mask = coco_mask.decode(segmentation)
                x, _, w, _ = annotation["bbox"]
                mask[:, int(x + w / 2) :] = 0
                half = coco_mask.encode(np.asfortranarray(mask))
                segmentation = {**half, "counts": half["counts"].decode()}
            keys = ("image_id", "category_id", "bbox")
            rows.append({**{key: annotation[key] for key in keys}, "segmentation": segmentation, "score": 0.9})
        (tmp_path / name / "predictions").mkdir(parents=True)
        for kind in ("box", "mask"):
            (tmp_path / name / "predictions" / f"{kind}.json").write_text(json.dumps(rows))
        OmegaConf.save(config, tmp_path / name / "config.yaml", resolve=True)
    found = showcases(tmp_path / "a", tmp_path / "b", tmp_path / "out", ("A", "B"))
    assert list(found.values()) == [tmp_path / "out/showcase.png", tmp_path / "out/mask/showcase.png"]
    with (tmp_path / "out/mask/showcase.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["image"] == str(truth["images"][1]["id"])
    assert float(lines[0]["difference"]) < -0.3
    assert all(float(line["difference"]) == 0 for line in lines[1:])
    boxes, masks = (np.asarray(Image.open(path), dtype=int) for path in found.values())
    assert boxes.shape == masks.shape
    assert np.abs(boxes - masks).max() > 50
    second = masks[40:TILE, TILE + 12 : 2 * TILE] - masks[40:TILE, 2 * TILE + 24 : 3 * TILE + 12]
    assert np.abs(second).max() > 50  # the halves are missing
