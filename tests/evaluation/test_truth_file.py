"""The ground truth beside the predictions, as other programs read it."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.collector import ImageDetections, ImageId
from detector.evaluation.truth_file import write_truth
from tests.evaluation.test_accumulate import random_collector


def measured(folder: Path, predictions: str, kind: str) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "predictions/truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "predictions" / predictions)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def numbered(collector: Collector) -> Collector:
    """The same images by numbers."""
    name: dict[ImageId, ImageId] = {image: 7 * place for place, image in enumerate(collector.images)}
    truth: dict[str, Any] = {
        "images": [{**collector.image(i), "id": name[i]} for i in collector.images],
        "annotations": [{**a, "image_id": name[i]} for i in collector.images for a in collector.annotations(i)],
        "categories": [{"id": i, "name": n} for i, n in zip(collector.category_ids, collector.classes, strict=True)],
    }
    result = Collector(truth, collector.category_ids, outputs=collector.outputs)
    result.merge([{name[i]: collector.detections(i) for i in collector.images}])
    return result


@pytest.mark.parametrize("named", [False, True])
def test_pycocotools_measures_the_same_from_the_files(tmp_path: Path, named: bool) -> None:
    collector = random_collector(3, 100, plain=True)
    collector = collector if named else numbered(collector)
    collector.write(tmp_path)
    write_truth(collector, tmp_path)
    end = ".numbered.json" if named else ".json"
    results = CocoMetric(collector).results()
    assert measured(tmp_path, f"box{end}", "bbox") == results["box/AP"]
    assert measured(tmp_path, f"mask{end}", "segm") == results["mask/AP"]
    assert (tmp_path / "predictions/box.numbered.json").exists() is named
    content = json.loads((tmp_path / "predictions/truth.json").read_text())
    assert all(type(image["id"]) is int for image in content["images"])
    assert [annotation["id"] for annotation in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    )


def test_ignored_objects_and_other_classes(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 0, "height": 9, "width": 9, "file_name": "a.png"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": np.array([1, 1, 2, 3]), "area": np.float32(6)},
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 2, 4], "ignore": 1},
            {"id": 0, "image_id": 0, "category_id": 2, "bbox": [1, 1, 2, 5], "iscrowd": 1},
            {"id": 0, "image_id": 0, "category_id": 3, "bbox": [1, 1, 2, 5]},
        ],
        "categories": [{"id": i, "name": f"c{i}"} for i in (1, 2, 3)],
    }
    collector = Collector(truth, [1, 2])
    collector.merge([{0: ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))}])
    (tmp_path / "predictions").mkdir()
    write_truth(collector, tmp_path)
    shared = {"image_id": 0, "iscrowd": 0}
    assert json.loads((tmp_path / "predictions/truth.json").read_text()) == {
        "images": [{"id": 0, "file_name": "a.png", "height": 9, "width": 9}],
        "categories": [{"id": 1, "name": "c1"}, {"id": 2, "name": "c2"}],
        "annotations": [
            {"id": 1, **shared, "category_id": 1, "bbox": [1, 1, 2, 3], "area": 6},
            {"id": 2, **shared, "category_id": 1, "bbox": [1, 1, 2, 4], "area": 8, "ignore": 1},
            {"id": 3, **shared, "category_id": 2, "bbox": [1, 1, 2, 5], "area": 10, "iscrowd": 1},
        ],
    }
