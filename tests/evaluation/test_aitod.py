"""AI-TOD's metric beside pycocotools with its parameters, and many objects in an image."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.aitod import AITODMetric
from detector.evaluation.collector import Collector
from detector.evaluation.measure import measure
from detector.types import Objects


def case(images: int = 3) -> tuple[dict, dict[int, Objects]]:
    """Draw 130 to 260 objects of 2 to 60 px in each image, and detections that are off by some pixels."""
    rng = np.random.default_rng(0)
    annotations, found = [], {}
    for image in range(images):
        sides = np.exp(rng.uniform(np.log(2), np.log(60), (int(rng.integers(130, 260)), 2)))
        corners = rng.uniform(0, 700, sides.shape)
        for corner, side in zip(corners, sides, strict=True):
            box = [*corner, *side]
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": 1 + len(annotations) % 2})
            annotations[-1] |= {"bbox": box, "area": side[0] * side[1], "iscrowd": 0}
        own = [a for a in annotations if a["image_id"] == image]
        boxes = np.array([a["bbox"] for a in own])
        boxes[:, 2:] *= np.exp(rng.normal(0, 0.15, sides.shape))
        boxes[:, :2] += rng.normal(0, 1.0, sides.shape)
        corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)
        labels = torch.tensor([a["category_id"] - 1 for a in own])
        found[image] = Objects(
            torch.tensor(corners, dtype=torch.float32), torch.tensor(rng.random(len(own))).float(), labels
        )
    truth = {
        "images": [{"id": i, "height": 800, "width": 800} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "person"}],
    }
    return truth, found


def collected(limit: int) -> tuple[dict, Collector]:
    truth, found = case()
    collector = Collector(truth, [1, 2], limit=limit)
    collector.update(list(found), list(found.values()), [(800, 800)] * len(found))
    return truth, collector


def test_equals_pycocotools_with_the_authors_parameters() -> None:
    truth, collector = collected(1500)
    known = COCO()
    known.dataset = json.loads(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(list(collector.rows("box", "bbox"))), "bbox")
        evaluation.params.areaRng = [[0, 1e10], [0, 64], [64, 256], [256, 1024], [1024, 1e10]]
        evaluation.params.areaRngLbl = ["all", "verytiny", "tiny", "small", "medium"]
        evaluation.params.maxDets = [1, 100, 1500]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., 2], evaluation.eval["recall"][..., 2]
    expected = {"AP": precision[..., 0].mean(), "AR": recall[..., 0].mean()}
    expected |= {"AP50": precision[0, ..., 0].mean(), "AP75": precision[5, ..., 0].mean()}
    for place, size in enumerate(("vt", "t", "s", "m"), 1):
        expected |= {f"AP{size}": precision[..., place].mean(), f"AR{size}": recall[..., place].mean()}
    results = AITODMetric(collector).results()
    assert results == pytest.approx({f"aitod/{name}": value for name, value in expected.items()}, abs=1e-12)
    assert 0.05 < results["aitod/APvt"] < results["aitod/APt"] < results["aitod/APs"] < results["aitod/APm"] < 1


def test_nothing_detected() -> None:
    truth, _ = case()
    collector = Collector(truth, [1, 2], limit=400)
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    collector.update([0], [nothing], [(800, 800)])
    assert AITODMetric(collector).results()["aitod/AP"] == 0
    assert AITODMetric(Collector(truth, [1, 2])).results() == {}  # no image was seen


def test_more_than_a_hundred_detections_of_an_image_count_where_the_limit_says_so() -> None:
    truth, collector = collected(1500)
    rows = list(collector.rows("box", "bbox"))
    few, many = (measure(truth, rows, "box", (8, 16), resamples=20, limit=limit).values for limit in (100, 1500))
    assert few == measure(truth, rows, "box", (8, 16), resamples=20).values
    results = AITODMetric(collector).results()
    assert many["AP"] == pytest.approx(results["aitod/AP"])
    assert many["AP"] > few["AP"] + 0.01
    assert many["AP[16,32)"] == pytest.approx(results["aitod/APs"], abs=1e-3)
