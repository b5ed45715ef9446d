"""hotcoco's arrays are pycocotools' to the bit, and as many detections count as there are."""

from typing import Any

import numpy as np
import pytest
import torch

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.accumulate import accumulate
from detector.evaluation.collector import ImageDetections
from detector.evaluation.comparison import Comparison
from detector.evaluation.records import Kind, detections, truths
from detector.evaluation.table import beyond
from detector.masks import MaskOutput
from detector.run_lengths import encode
from detector.types import Masks, Objects

AREAS = {"all": (0.0, 1e10), "small": (0.0, 300.0), "large": (300.0, 1e10), "none": (1e6, 2e6)}
SIDE = 64


def masks_of(boxes: np.ndarray) -> list[Any]:
    """The boxes' pixels, cut at the image, without one corner."""
    x1, y1, x2, y2 = (
        np.clip(side, 0, SIDE)[:, None, None] for side in (*boxes[:, :2].T, *(boxes[:, :2] + boxes[:, 2:]).T)
    )
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    pixels = (x > x1) & (x < x2) & (y > y1) & (y < y2) & (x - x1 + y - y1 > 3)
    return encode(Masks.from_dense(torch.from_numpy(pixels), (SIDE, SIDE)))


def random_collector(seed: int, limit: int, plain: bool = False) -> Collector:
    """Images with crowds, ignored objects, none, equal scores, names for ids, and classes that do not ascend.

    Plain: without crowds, ignored objects and equal scores.
    """
    generator = np.random.default_rng(seed)
    categories = [30, 4, 7]
    images = [{"id": f"image {i}", "height": SIDE, "width": SIDE} for i in range(8)]
    annotations: list[dict[str, Any]] = []
    found = {}
    for image in images:
        count = int(generator.integers(0, 9))
        boxes = np.concatenate((generator.integers(0, 40, (count, 2)), generator.integers(4, 30, (count, 2))), 1) + 0.0
        labels = generator.integers(0, 3, count)
        for box, label, code in zip(boxes, labels, masks_of(boxes), strict=True):
            kind = 0.5 if plain else generator.random()
            flags = {"iscrowd": int(kind < 0.1), "ignore": int(0.1 < kind < 0.3)}
            area = {"area": float(generator.integers(1, 900))} if kind < 0.8 else {}
            annotation = {"id": len(annotations), "image_id": image["id"], "category_id": categories[label]}
            annotations.append(annotation | {"bbox": box.tolist(), "segmentation": code} | flags | area)
        many = int(generator.integers(0, 150)) if count else 3
        near = generator.integers(0, max(count, 1), many)
        moved = (boxes[near] if count else np.full((many, 4), 10.0)) + generator.integers(-3, 4, (many, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        wrong = generator.random(many) < 0.2
        given = np.where(wrong | (count == 0), generator.integers(0, 3, many), labels[near] if count else 0)
        scores = generator.random(many) if plain else generator.integers(1, 10, many) / 10
        found[image["id"]] = ImageDetections(moved, scores, given, {"mask": masks_of(moved)})
    truth = {"images": images, "annotations": annotations}
    truth["categories"] = [{"id": c, "name": str(c)} for c in categories]
    collector = Collector(truth, categories, (16, 40), [MaskOutput()], limit)
    collector.merge([found])
    return collector


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_last_bit(kind: Kind, seed: int) -> None:
    collector, most = random_collector(seed, 150), (1, 10, 100, 150)
    fast = accumulate(collector, kind, AREAS, most)
    known, found = truths(collector, kind), detections(collector, kind).records()
    slow = Comparison(kind, collector.images, [4, 7, 30], AREAS, known, found, most)
    assert 0 < fast.precision[..., 0, 3].mean() < 1
    assert (fast.precision[..., 3, :] == -1).all()  # no object is so large
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(getattr(fast, name), slow.eval[name]), name
    assert np.array_equal(fast.thresholds, slow.params.iouThrs)
    assert fast.category_ids == [4, 7, 30]


def crowded(limit: int, count: int = 200) -> Collector:
    """An image of so many objects, all found exactly."""
    boxes = [[8.0 * (i % 15), 8.0 * (i // 15), 6.0, 6.0] for i in range(count)]
    annotations = [{"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": 36} for i, box in enumerate(boxes)]
    truth = {"images": [{"id": 1, "height": 128, "width": 128}], "annotations": annotations}
    collector = Collector(truth | {"categories": [{"id": 1, "name": "cell"}]}, [1], limit=limit)
    corners = torch.tensor(boxes) + torch.tensor([[0, 0, 1, 1]]) * torch.tensor(boxes)[:, [0, 1, 0, 1]]
    collector.update([1], [Objects(corners, torch.linspace(0.9, 0.5, count), torch.zeros(count).long())], [(128, 128)])
    return collector


def test_more_than_a_hundred_detections_count() -> None:
    metrics = CocoMetric(crowded(300)).results()
    assert metrics["box/AP"] == metrics["box/AP50"] == pytest.approx(0.505, abs=1e-3)
    assert metrics["box/AP@300"] == metrics["box/AP75@300"] == metrics["box/APs@300"] == pytest.approx(1)
    assert (metrics["box/AR100"], metrics["box/AR@300"], metrics["box/ARs@300"]) == pytest.approx((0.5, 1, 1))
    assert not any("300" in name or "@" in name for name in CocoMetric(crowded(100)).results())


@pytest.mark.parametrize(
    ("limit", "count", "words"),
    [
        (300, 200, "of an image and class, and count as missed: the rows of the best 300 count more."),
        (150, 200, "the rows of the best 150 count more, but an image has up to 200: raise dataset.detections."),
        (100, 200, "a higher dataset.detections counts them."),
        (300, 100, ""),
    ],
)
def test_objects_beyond_the_limit_are_said(limit: int, count: int, words: str) -> None:
    said = beyond(crowded(limit, count))
    assert said.startswith("100 of 200 objects (50.0 %) are beyond COCO's limit of 100 detections" if words else "")
    assert said.endswith(words)
    assert bool(said) is bool(words)
