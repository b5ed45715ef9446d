import contextlib
import copy
import io
import json
import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation import CocoMetric, Collector
from detector.masks import MaskOutput
from detector.types import Objects

SAMPLE = Path(__file__).resolve().parents[2] / "../shared/data/coco/annotations/instances_val2017.json"
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
"""COCO's twelve numbers, in pycocotools' order."""

Truth = dict[str, Any]


def objects(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int], full: bool = True
) -> Objects:
    """Detections; `full`: with masks that fill their boxes."""
    n = len(boxes)
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(n, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        torch.ones(n, 28, 28) if full else None,
    )


def truth(boxes: dict[Any, list[tuple[int, list[float]]]], size: tuple[int, int] = (100, 120), **extra: Any) -> Truth:
    """A ground truth of rectangles: image id → (category id, [x, y, w, h])."""
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, **extra}
        for i, (image, category, box) in enumerate((m, c, b) for m, found in boxes.items() for c, b in found)
    ]
    for a in annotations:
        x, y, w, h = a["bbox"]
        a["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        a["area"] = w * h
    return {
        "images": [{"id": image, "height": size[0], "width": size[1]} for image in boxes],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


def perfect(ground_truth: Truth, category_ids: Sequence[int]) -> dict[Any, Objects]:
    """The truths as detections, image by image."""
    found: dict[Any, Objects] = {}
    for image in ground_truth["images"]:
        own = [a for a in ground_truth["annotations"] if a["image_id"] == image["id"]]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)]
        found[image["id"]] = objects(boxes, [0.9] * len(own), [category_ids.index(a["category_id"]) for a in own])
    return found


def measure(ground_truth: Truth, detections: dict[Any, Objects], **arguments: Any) -> dict[str, float]:
    return CocoMetric(filled(ground_truth, detections, **arguments)).results()


def filled(
    ground_truth: Truth,
    detections: dict[Any, Objects],
    ids: Sequence[int] = (3, 7),
    masks: bool = True,
    size_bins: tuple[float, float] = (32, 96),
) -> Collector:
    collector = Collector(ground_truth, ids, size_bins, [MaskOutput()] if masks else [])
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    for image, found in detections.items():
        collector.update([image], [found], [sizes[image]])
    return collector


SIMPLE: dict[Any, list[tuple[int, list[float]]]] = {
    1: [(3, [10.0, 10, 20, 30]), (7, [50, 40, 40, 40])],
    2: [(3, [0, 0, 100, 98])],
    4: [],
}


def test_perfect_detections_reach_one() -> None:
    ground_truth = truth(SIMPLE)
    results = measure(ground_truth, perfect(ground_truth, [3, 7]))
    assert results == {
        f"{kind}/{name}": pytest.approx(1.0) for kind in ("box", "mask") for name in [*NAMES, "AP/cat", "AP/dog"]
    }


def test_no_detections_give_zero_and_no_truth_gives_nothing() -> None:
    empty = objects([], [], [])
    ground_truth = truth(SIMPLE)
    results = measure(ground_truth, {1: empty, 2: empty, 4: empty})
    assert set(results) == {f"{k}/{n}" for k in ("box", "mask") for n in [*NAMES, "AP/cat", "AP/dog"]}
    assert set(results.values()) == {0.0}
    assert measure(ground_truth, {4: objects([[0, 0, 9, 9]], [0.9], [0])}) == {}
    assert measure(ground_truth, {}) == {}
    only = measure(ground_truth, {2: empty}, masks=False)
    expected = [*NAMES[:3], "APl", "AR1", "AR10", "AR100", "ARl", "AP/cat"]
    assert only == {f"box/{name}": 0.0 for name in expected}


def test_a_missed_object_and_a_false_detection_by_hand() -> None:
    # one class, two objects of which one is found with IoU 0.8, below a better scored false detection
    ground_truth = truth({1: [(3, [0.0, 0, 10, 10]), (3, [50, 50, 10, 10])]})
    found = {1: objects([[0, 0, 8, 10], [80, 10, 90, 20]], [0.6, 0.7], [0, 0])}
    results = measure(ground_truth, found, masks=False)
    ap = 0.5 * 51 / 101  # precision 1/2 up to recall 1/2, which 51 of the 101 levels reach
    assert results["box/AP50"] == pytest.approx(ap)
    assert results["box/AP75"] == pytest.approx(ap)
    assert results["box/AP"] == pytest.approx(ap * 7 / 10)  # IoU 0.5 to 0.8
    assert results["box/AR1"] == 0.0
    assert results["box/AR100"] == pytest.approx(0.5 * 7 / 10)


def test_size_bins_part_the_objects() -> None:
    ground_truth = truth({1: [(3, [0.0, 0, 12, 12]), (3, [20, 20, 30, 30]), (3, [50, 40, 50, 60])]})
    found = {1: objects([[0, 0, 12, 12], [50, 40, 100, 100]], [0.9, 0.8], [0, 0])}
    results = measure(ground_truth, found, masks=False, size_bins=(16, 48))
    assert [results[f"box/AP{s}"] for s in "sml"] == [pytest.approx(1), 0.0, pytest.approx(1)]
    coarse = measure(ground_truth, found, masks=False)
    assert coarse["box/APs"] == pytest.approx(51 / 101)  # 12 and 30 px are both small now
    assert "box/APl" not in coarse


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_ignored_objects_count_neither_way_and_are_no_crowds(kind: str) -> None:
    ground_truth = truth({1: [(3, [0.0, 0, 20, 20]), (3, [40, 40, 40, 40])]})
    ground_truth["annotations"][1]["ignore"] = 1
    ap = f"{kind}/AP"
    one = objects([[0, 0, 20, 20]], [0.5], [0])
    assert measure(ground_truth, {1: one})[ap] == pytest.approx(1)
    both = objects([[0, 0, 20, 20], [40, 40, 80, 80]], [0.5, 0.9], [0, 0])
    assert measure(ground_truth, {1: both})[ap] == pytest.approx(1)
    # a small box within the ignored object would be forgiven within a crowd; here it is a false detection
    inside = objects([[0, 0, 20, 20], [50, 50, 60, 60]], [0.5, 0.9], [0, 0])
    assert measure(ground_truth, {1: inside})[ap] == pytest.approx(0.5)
    ground_truth["annotations"][1]["iscrowd"] = 1
    assert measure(ground_truth, {1: inside})[ap] == pytest.approx(1)
    ground_truth["annotations"][0]["ignore"] = 1
    assert measure(ground_truth, {1: inside}) == {}


def test_annotations_with_the_least_that_can_be_said() -> None:
    ground_truth = truth({1: [(3, [0.0, 0, 20, 20]), (7, [40, 40, 40, 40])]})
    for a in ground_truth["annotations"]:
        del a["segmentation"], a["area"]
    found = perfect(ground_truth, [3, 7])
    results = measure(ground_truth, found)
    assert results["box/AP"] == results["box/APs"] == results["box/APm"] == pytest.approx(1)
    assert not any(name.startswith("mask") for name in results)  # without masks there is nothing to measure them by
    ground_truth["annotations"][0]["segmentation"] = [[0, 0, 20, 0, 20, 20, 0, 20]]
    results = measure(ground_truth, found)
    assert results["mask/AP"] == results["mask/AP/cat"] == pytest.approx(1)
    assert "mask/AP/dog" not in results


def test_detections_of_objects_without_a_mask_are_ignored_in_mask_ap() -> None:
    boxes = [[0.0, 0, 20, 20], [40.0, 40, 40, 40], [0.0, 50, 30, 30]]
    ground_truth = truth({1: [(3, box) for box in boxes]})
    del ground_truth["annotations"][1]["segmentation"]
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    found = objects(corners, [0.7, 0.9, 0.8], [0, 0, 0])
    assert found.masks is not None
    found.masks[1] = torch.eye(28)  # its mask, a line, is far from its box
    results = measure(ground_truth, {1: found})
    assert results["mask/AP"] == results["mask/AP75"] == results["box/AP"] == pytest.approx(1)
    shifted = replace(found, boxes=found.boxes.clone())
    shifted.boxes[1] = torch.tensor([44.0, 44, 84, 84])  # IoU 0.68 with its box
    assert measure(ground_truth, {1: shifted})["mask/AP"] == pytest.approx(1)
    shifted.boxes[1] = torch.tensor([60.0, 60, 100, 100])  # IoU 0.14: a false positive before the others
    assert measure(ground_truth, {1: shifted})["mask/AP"] == pytest.approx(2 / 3, abs=0.01)
    twice = Objects.join([found, found.select(torch.tensor([1]))])  # an object is found once
    assert measure(ground_truth, {1: twice})["mask/AP"] < 1


def test_missing_area_is_the_masks() -> None:
    ground_truth = truth({1: [(3, [0.0, 0, 40, 40])]})
    del ground_truth["annotations"][0]["area"]
    ground_truth["annotations"][0]["segmentation"] = [[0, 0, 40, 0, 0, 40]]  # 800 of the box's 1600 square pixels
    results = measure(ground_truth, perfect(ground_truth, [3, 7]), masks=False)
    assert "box/APm" not in results
    assert results["box/APs"] == pytest.approx(1)


@pytest.mark.parametrize("counts", ["compressed", "list"])
def test_run_lengths_as_truth(counts: str) -> None:
    ground_truth = truth({1: [(3, [1.0, 0, 1, 4])]}, size=(4, 3))
    ground_truth["annotations"][0]["segmentation"] = {
        "size": [4, 3],
        "counts": [4, 4, 4] if counts == "list" else "444",  # small numbers encode as themselves plus 48
    }
    assert measure(ground_truth, perfect(ground_truth, [3, 7]))["mask/AP"] == pytest.approx(1)
    ground_truth["annotations"][0]["segmentation"]["size"] = [3, 4]
    with pytest.raises(ValueError, match="mask of annotation 0"):
        measure(ground_truth, perfect(ground_truth, [3, 7]))


def test_names_as_image_ids(tmp_path: Path) -> None:
    numbers = truth({1: SIMPLE[1], 2: SIMPLE[2], 10: SIMPLE[1]})
    names = truth({"000001": SIMPLE[1], "000002": SIMPLE[2], "000010": SIMPLE[1]})
    found = perfect(numbers, [3, 7])
    found[10] = objects([[10, 10, 28, 40], [51, 40, 91, 79]], [0.8, 0.95], [0, 1])
    named = {f"{image:06d}": o for image, o in found.items()}
    assert measure(names, named) == measure(numbers, found)
    collector = filled(names, named)
    collector.write(tmp_path)
    rows = json.loads((tmp_path / "predictions/box.json").read_text())
    assert [row["image_id"] for row in rows] == ["000001", "000001", "000002", "000010", "000010"]


def jittered(ground_truth: Truth, category_ids: list[int], seed: int) -> dict[Any, Objects]:
    """For each image its truths, moved, some missing, some of another class, and false ones; scores with ties."""
    generator = np.random.default_rng(seed)
    found: dict[Any, Objects] = {}
    for image in ground_truth["images"]:
        boxes, labels = [], []
        for a in (a for a in ground_truth["annotations"] if a["image_id"] == image["id"]):
            x, y, w, h = a["bbox"]
            for _ in range(generator.integers(0, 4)):
                dx, dy, dw, dh = generator.normal(0, 0.08, 4) * (w, h, w, h)
                boxes.append([x + dx, y + dy, x + dx + max(w + dw, 1), y + dy + max(h + dh, 1)])
                label = category_ids.index(a["category_id"])
                labels.append(label if generator.random() < 0.9 else int(generator.integers(len(category_ids))))
        n = len(boxes)
        found[image["id"]] = Objects(
            torch.tensor(boxes, dtype=torch.float32).reshape(n, 4),
            torch.tensor(generator.random(n).round(2), dtype=torch.float32),
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor(generator.random((n, 14, 14)), dtype=torch.float32).sqrt(),
        )
    return found


def by_pycocotools(ground_truth: Truth, rows: list[dict[str, Any]], kind: str) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(ground_truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox" if kind == "box" else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {f"{kind}/{name}": value for name, value in zip(NAMES, evaluation.stats.tolist(), strict=True)}


@pytest.fixture(scope="module")
def sample() -> Truth:
    if not SAMPLE.is_file():
        pytest.skip("the real COCO sample is not beside the repository")
    loaded: Truth = json.loads(SAMPLE.read_text())
    return loaded


@pytest.fixture(scope="module")
def measured(sample: Truth, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], Path]:
    """Results on the sample, and the folder of the detections that they are of."""
    folder = tmp_path_factory.mktemp("measured")
    ids = [c["id"] for c in sample["categories"]]
    before = copy.deepcopy(sample)
    collector = filled(sample, jittered(sample, ids, seed=3), ids=ids)
    collector.write(folder)
    results = CocoMetric(collector).results()
    assert sample == before  # the truth is not written to
    return results, folder / "predictions"


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_equal_to_pycocotools_on_real_annotations(
    sample: Truth, measured: tuple[dict[str, float], Path], kind: str
) -> None:
    results, folder = measured
    expected = by_pycocotools(sample, json.loads((folder / f"{kind}.json").read_text()), kind)
    assert {name: results[name] for name in expected} == expected  # to the last digit
    assert 0.05 < expected[f"{kind}/AP"] < 0.95
    assert all(0 <= value <= 1 for value in results.values())


def test_order_parts_and_repetition_change_nothing(sample: Truth) -> None:
    ids = [c["id"] for c in sample["categories"]]
    found = jittered(sample, ids, seed=4)
    for o in found.values():
        o.masks = None
    whole = filled(sample, found, ids=ids, masks=False)
    images = list(found)
    parts = [
        filled(sample, {image: found[image] for image in part}, ids=ids, masks=False)
        for part in (images[::2][::-1], images[1::2], images[:5])  # the last ones are repetitions, as a sampler pads
    ]
    parts[0].merge([pickle.loads(pickle.dumps(part.state())) for part in parts])
    assert parts[0].images == whole.images
    assert CocoMetric(parts[0]).results() == CocoMetric(whole).results()
    parts[0].reset()
    assert CocoMetric(parts[0]).results() == {}


def test_an_image_counts_once() -> None:
    ground_truth = truth(SIMPLE)
    collector = filled(ground_truth, perfect(ground_truth, [3, 7]))
    once = CocoMetric(collector).results()
    collector.update([1, 1], [objects([[0, 0, 5, 5]], [1.0], [1])] * 2, [(100, 120)] * 2)
    assert CocoMetric(collector).results() == once


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: ([9], [objects([], [], [])], [(100, 120)]), "image 9"),
        (lambda: ([1], [objects([[0, 0, math.nan, 5]], [0.5], [0])], [(100, 120)]), "diverged"),
        (lambda: ([1], [objects([[0, 0, 5, 5]], [math.inf], [0])], [(100, 120)]), "diverged"),
        (lambda: ([1], [objects([[0, 0, 5, 5]], [0.5], [2])], [(100, 120)]), r"labels .* 0\.\.1"),
        (lambda: ([1], [objects([[0, 0, 5, 5]], [0.5], [0], full=False)], [(100, 120)]), "have none"),
        (lambda: ([1], [objects([[0, 0, 5, 5]], [0.5], [0])], [(120, 100)]), "100x120"),
        (lambda: ([1, 2], [objects([], [], [])], [(100, 120)]), "argument"),
    ],
)
def test_detections_that_cannot_be_measured(change: Callable[[], tuple[Any, Any, Any]], message: str) -> None:
    collector = Collector(truth(SIMPLE), [3, 7], outputs=[MaskOutput()])
    with pytest.raises(ValueError, match=message):
        collector.update(*change())


def test_truths_and_settings_that_cannot_be_used() -> None:
    ground_truth = truth(SIMPLE)
    with pytest.raises(ValueError, match="ascending"):
        Collector(ground_truth, [3, 7], (96, 32))
    with pytest.raises(ValueError, match=r"\[8\]"):
        Collector(ground_truth, [3, 8])
    ground_truth["annotations"][0]["image_id"] = 77
    with pytest.raises(ValueError, match="image 77"):
        Collector(ground_truth, [3, 7])


def test_speed_on_150_images() -> None:
    generator = np.random.default_rng(0)
    boxes = {
        i: [(3, [*generator.uniform(0, 100, 2), *generator.uniform(6, 80, 2)]) for _ in range(7)] for i in range(150)
    }
    ground_truth = truth(boxes, size=(192, 192))
    collector = filled(ground_truth, jittered(ground_truth, [3, 7], 0), masks=False)
    start = time.process_time()
    CocoMetric(collector).results()
    assert time.process_time() - start < 2
