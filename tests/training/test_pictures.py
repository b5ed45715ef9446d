"""Detections and precision-recall curves in TensorBoard."""

from typing import Any

import numpy as np
import pytest
import torch

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.coco import Curves
from detector.training.pictures import THRESHOLDS, at_thresholds
from detector.types import Objects

BOX = [10.0, 10.0, 30.0, 30.0]


def metric(scores: list[tuple[float, bool]], objects: int) -> CocoMetric:
    """Measure detections of one class, right or wrong, on an image of its own each, and objects that are missed."""
    count = max(len(scores), objects)
    x, y, right, bottom = BOX
    box = [x, y, right - x, bottom - y]
    truth: dict[str, Any] = {
        "images": [{"id": i, "height": 64, "width": 64} for i in range(2 * count)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],  # in another order than the labels
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 2, "bbox": box, "area": 400, "iscrowd": 0}
            for i in range(objects)
        ],
    }
    collector = Collector(truth, [2, 1])
    found = {image: ([], []) for image in range(2 * count)}
    free, beyond = iter(range(objects)), iter(range(objects, 2 * count))
    for score, right_one in scores:
        image = next(free) if right_one else next(beyond)
        found[image] = ([BOX], [score])
    for image, (boxes, values) in found.items():
        labels = torch.zeros(len(values), dtype=torch.int64)
        detections = Objects(torch.tensor(boxes).reshape(-1, 4), torch.tensor(values), labels)
        collector.update([image], [detections], [(64, 64)])
    return CocoMetric(collector)


def test_the_curve_counts_what_each_score_finds() -> None:
    measured = metric([(0.95, True), (0.85, True), (0.7, False), (0.6, True), (0.3, False)], objects=4)
    measured.results()
    (curves,) = measured.curves.values()
    assert curves.objects.tolist() == [4, 0]
    assert (curves.precision[:, 1] == -1).all()
    (true, false, negative, missed), precision, recall = at_thresholds(curves, 0)
    for score, found, wrong in ((0.99, 0, 0), (0.9, 1, 0), (0.8, 2, 0), (0.65, 2, 0), (0.5, 3, 1), (0.0, 3, 1)):
        place = round(score * (THRESHOLDS - 1))
        # COCO's recalls are 0, 0.01, ...; the interpolated curve leaves out false detections after the last right one.
        assert true[place] == pytest.approx(found, abs=0.04)
        assert false[place] == pytest.approx(wrong, abs=0.04)
        assert missed[place] == pytest.approx(4 - found, abs=0.04)
        assert recall[place] == pytest.approx(found / 4, abs=0.01)
        assert precision[place] == pytest.approx(found / max(found + wrong, 1) if found else 1)
    assert not negative.any()


def test_without_detections_nothing_is_found() -> None:
    curves = Curves(np.zeros((101, 1)), np.zeros((101, 1)), np.array([5]))
    counts, precision, recall = at_thresholds(curves, 0)
    assert counts[:3].max() == recall.max() == 0
    assert (counts[3] == 5).all()
    assert (precision == 1).all()
