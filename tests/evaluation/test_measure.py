import copy
import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.accumulate import accumulate
from detector.evaluation.bootstrap import average_precisions, resample
from detector.evaluation.matching import match
from detector.evaluation.measure import Measured, difference, match_objects, measure, precision_by
from detector.evaluation.predictions import detections_of
from detector.evaluation.records import Kind, detections, objects_of
from detector.masks import MaskOutput

Truth = dict[str, Any]
Rows = list[dict[str, Any]]
IDS = [2, 5, 9]
SIZE = (96, 112)
BINS = (12.0, 40.0)


def rectangle(x: float, y: float, w: float, h: float) -> Any:
    code = coco_mask.frPyObjects([[x, y, x + w, y, x + w, y + h, x, y + h]], *SIZE)[0]
    return {"size": list(SIZE), "counts": code["counts"].decode()}


def scene(boxes: dict[Any, list[tuple[int, list[float]]]], **extra: Any) -> Truth:
    """A truth of rectangles: image id → (category id, [x, y, w, h])."""
    rows = [(image, category, box) for image, found in boxes.items() for category, box in found]
    return {
        "images": [{"id": image, "height": SIZE[0], "width": SIZE[1]} for image in boxes],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], **extra}
            for i, (image, category, box) in enumerate(rows)
        ],
        "categories": [{"id": c, "name": f"class {c}"} for c in IDS],
    }


def random_scene(rng: np.random.Generator, images: int) -> Truth:
    """Images with none to six objects of 5 to 60 px; a few are crowds or ignored; the last category has no truth."""
    boxes: dict[Any, list[tuple[int, list[float]]]] = {}
    for image in range(1, images + 1):
        sides = np.exp(rng.uniform(np.log(5), np.log(60), (rng.integers(0, 7), 2)))
        boxes[image] = [
            (int(rng.choice(IDS[:2])), [rng.uniform(0, SIZE[1] - w), rng.uniform(0, SIZE[0] - h), w, h])
            for w, h in sides
        ]
    truth = scene(boxes)
    for annotation in truth["annotations"]:
        annotation["segmentation"] = rectangle(*annotation["bbox"])
        chance = rng.random()
        if chance < 0.08:
            annotation["iscrowd"] = 1
        elif chance < 0.16:
            annotation["ignore"] = 1
    return truth


def predict(rng: np.random.Generator, truth: Truth, kind: Kind = "box", noise: float = 0.1) -> Rows:
    """Each true object found none to three times, moved; some of another class; false ones; scores without ties."""
    found: list[tuple[int, int, list[float]]] = []
    for a in truth["annotations"]:
        for _ in range(rng.integers(0, 4)):
            x, y, w, h = np.array(a["bbox"]) + rng.normal(0, noise, 4) * np.tile(a["bbox"][2:], 2)
            category = a["category_id"] if rng.random() < 0.9 else int(rng.choice(IDS))
            found.append((a["image_id"], category, [x, y, max(w, 1.0), max(h, 1.0)]))
    for image in truth["images"]:
        for _ in range(rng.integers(0, 4)):
            box = [rng.uniform(0, 60), rng.uniform(0, 50), *rng.uniform(4, 40, 2)]
            found.append((image["id"], int(rng.choice(IDS)), box))
    scores = rng.permutation(len(found)) / len(found)
    return [
        {"image_id": i, "category_id": c, "score": score}
        | ({"bbox": box} if kind == "box" else {"segmentation": rectangle(*box)})
        for (i, c, box), score in zip(found, scores.tolist(), strict=True)
    ]


def coco_metric(truth: Truth, rows: Rows, kind: Kind) -> CocoMetric:
    collector = Collector(truth, IDS, BINS, [MaskOutput()] if kind == "mask" else [])
    collector.merge([detections_of(kind, rows, [image["id"] for image in truth["images"]], IDS)])
    return CocoMetric(collector)


def results(truth: Truth, rows: Rows, kind: Kind = "box") -> dict[str, float]:
    """The metrics of one kind, by `CocoMetric`."""
    found = coco_metric(truth, rows, kind).results()
    return {n.removeprefix(f"{kind}/"): v for n, v in found.items() if n.startswith(f"{kind}/")}


def repeated(truth: Truth, rows: Rows, counts: list[int]) -> tuple[Truth, Rows]:
    """Each image as often as `counts` says, under new ids: a resample as pycocotools would see it."""
    copies = [(image, copy) for image, n in zip(truth["images"], counts, strict=True) for copy in range(n)]
    more: Truth = {"images": [], "annotations": [], "categories": truth["categories"]}
    predictions: Rows = []
    for number, (image, _) in enumerate(copies):
        more["images"].append({**image, "id": number})
        more["annotations"] += [{**a, "image_id": number} for a in truth["annotations"] if a["image_id"] == image["id"]]
        predictions += [{**row, "image_id": number} for row in rows if row["image_id"] == image["id"]]
    return more, predictions


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_values_are_the_metrics_to_the_last_digit(kind: Kind) -> None:
    rng = np.random.default_rng(1)
    truth = random_scene(rng, 30)
    rows = predict(rng, truth, kind)
    before = copy.deepcopy((truth, rows))
    measured = measure(truth, rows, kind, BINS, resamples=2)
    expected = results(truth, rows, kind)
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert {name: measured.values[name] for name in names} == {name: expected[name] for name in names}
    assert 0.1 < measured.values["AP"] < 0.9
    assert measured.values["AP@0.50"] == measured.values["AP50"]
    assert np.mean([measured.values[f"AP@{t / 100:.2f}"] for t in range(50, 100, 5)]) == pytest.approx(expected["AP"])
    assert (truth, rows) == before


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_weights_of_one_give_the_metrics_precision(kind: Kind) -> None:
    rng = np.random.default_rng(2)
    truth = random_scene(rng, 30)
    rows = [{**row, "score": round(row["score"], 1)} for row in predict(rng, truth, kind)]  # many are equal
    metric = coco_metric(truth, rows, kind)
    objects, found = objects_of(metric.collector, kind), detections(metric.collector, kind)
    accumulated = accumulate(metric.collector, kind, metric.areas(), [1, 10, 100])
    expected = accumulated.precision[..., -1]  # [IoU, recall, class, area]
    matches = match(kind, objects, found, list(metric.areas().values()))
    ones = average_precisions(matches, accumulated.category_ids, np.ones((3, 30), dtype=np.int32))
    absent = expected[:, 0] == -1
    assert np.array_equal(np.isnan(ones), np.stack([absent] * 3))
    assert absent[:, 2].all()
    assert not absent[:, :2, 0].any()
    # the same numbers, summed in another order
    np.testing.assert_allclose(ones[1][~absent], expected.mean(1)[~absent], rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_a_resample_is_what_pycocotools_says_of_repeated_images(kind: Kind) -> None:
    rng = np.random.default_rng(3)
    truth = random_scene(rng, 12)
    rows = predict(rng, truth, kind)
    measured = measure(truth, rows, kind, BINS, seed=5, resamples=6)
    for number, counts in enumerate(resample(12, 5, 6).tolist()):
        again, predictions = repeated(truth, rows, counts)
        expected = measure(again, predictions, kind, BINS, resamples=2).values
        known = {name: s[number] for name, s in measured.samples.items() if not math.isnan(s[number])}
        assert known == pytest.approx(expected, rel=1e-12, abs=0)
        own = results(again, predictions, kind)
        assert [known[n] for n in ("AP", "AP75", "APs")] == pytest.approx([own[n] for n in ("AP", "AP75", "APs")])


def test_objects_and_their_ious_by_hand() -> None:
    truth = scene(
        {
            "b": [(5, [10.0, 10, 20, 20]), (5, [50.0, 10, 10, 10]), (2, [60.0, 60, 7, 7])],
            "a": [(5, [0.0, 0, 30, 40]), (5, [40.0, 40, 30, 30]), (2, [80.0, 10, 20, 20])],
            "c": [],
        }
    )
    truth["annotations"][4]["iscrowd"] = 1
    truth["annotations"][5]["ignore"] = 1
    rows = [
        {"image_id": "a", "category_id": 5, "bbox": [0.0, 0, 30, 20], "score": 0.9},  # IoU 0.5 with the first
        {"image_id": "a", "category_id": 5, "bbox": [45.0, 45, 10, 10], "score": 0.9},  # within the crowd
        {"image_id": "b", "category_id": 5, "bbox": [10.0, 10, 20, 19], "score": 0.3},  # nearer, but comes second
        {"image_id": "b", "category_id": 5, "bbox": [10.0, 10, 20, 16], "score": 0.8},  # IoU 0.8
        {"image_id": "b", "category_id": 5, "bbox": [50.0, 10, 10, 4], "score": 0.9},  # IoU 0.4
        {"image_id": "b", "category_id": 5, "bbox": [60.0, 60, 7, 7], "score": 0.9},  # another class
    ]
    found = match_objects(truth, rows)
    assert len(found) == 4
    table = sorted(zip(found.images, found.categories.tolist(), found.areas.tolist(), strict=True))
    assert table == [("a", 5, 1200.0), ("b", 2, 49.0), ("b", 5, 100.0), ("b", 5, 400.0)]
    by_area = dict(zip(found.areas.tolist(), found.ious.tolist(), strict=True))
    assert [by_area[area] for area in (1200, 400)] == pytest.approx([0.5, 0.8])
    assert math.isnan(by_area[49])
    assert math.isnan(by_area[100])
    assert found.boxes[found.areas.tolist().index(1200)].tolist() == [0, 0, 30, 40]
    values = measure(truth, rows, resamples=20).values
    assert values["IoU"] == pytest.approx(0.65)
    assert values["IoU[16,32)"] == pytest.approx(0.8)
    assert values["IoU[32,64)"] == pytest.approx(0.5)
    assert {"IoU[0,8)", "IoU[8,16)", "AP[64,128)", "APl"}.isdisjoint(values)
    assert values["AP[0,8)"] == 0.0


def test_fine_bins_leave_out_their_upper_edge() -> None:
    truth = scene({1: [(2, [5.0, 5, 8, 8])], 2: [(2, [5.0, 5, 16, 16])]})
    rows = [{"image_id": 1, "category_id": 2, "bbox": [5.0, 5, 8, 8], "score": 0.5}]
    values = measure(truth, rows, resamples=9).values
    assert {n: v for n, v in values.items() if "[" in n} == {
        "AP[8,16)": pytest.approx(1),
        "AP50[8,16)": pytest.approx(1),
        "AP[16,32)": 0.0,
        "AP50[16,32)": 0.0,
        "IoU[8,16)": pytest.approx(1),
    }


def test_nothing_found_and_nothing_to_find() -> None:
    truth = scene({1: [(2, [5.0, 5, 10, 10])], 2: []})
    empty = measure(truth, [], resamples=50)
    assert {n: v for n, v in empty.values.items() if "[" not in n and "@" not in n} == dict.fromkeys(
        ("AP", "AP50", "AP75", "APs"), 0.0
    )
    missing = np.isnan(empty.samples["AP"])
    assert np.array_equal(missing, resample(2, 0, 50)[:, 0] == 0)  # resamples without the image that has the object
    assert missing.any()
    assert np.isnan(match_objects(truth, []).ious).all()
    estimate = empty.estimates()["AP"]
    assert (estimate.low, estimate.high) == (0, 0)
    nothing = scene({1: [], 2: []})
    rows = [{"image_id": 1, "category_id": 2, "bbox": [5.0, 5, 10, 10], "score": 0.5}]
    measured = measure(nothing, rows, resamples=50)
    assert measured.values == measured.estimates() == difference(measured, measured) == {}
    assert len(match_objects(nothing, rows)) == 0


def test_at_most_a_hundred_detections_of_an_image_count() -> None:
    truth = scene({1: [(2, [5.0, 5, 10, 10])]})
    rows: Rows = [{"image_id": 1, "category_id": 2, "bbox": [50.0, 50, 9, 9], "score": 0.9}] * 100
    rows = [*rows, {"image_id": 1, "category_id": 2, "bbox": [5.0, 5, 10, 10], "score": 0.8}]
    assert measure(truth, rows, resamples=2).values["AP"] == 0
    assert measure(truth, rows[1:], resamples=2).values["AP"] == pytest.approx(0.01)


def test_difference_is_paired() -> None:
    rng = np.random.default_rng(4)
    truth = random_scene(rng, 40)
    rows = predict(rng, truth, noise=0.05)
    a, same = (measure(truth, rows, "box", BINS, resamples=200) for _ in range(2))
    assert {(e.value, e.low, e.high) for e in difference(a, same).values()} == {(0.0, 0.0, 0.0)}
    worse = [{**row, "bbox": (row["bbox"] + np.array([0.8, 0, 0, 0])).tolist()} for row in rows]
    b = measure(truth, worse, "box", BINS, resamples=200)
    found = difference(a, b)["AP"]
    low, high = np.quantile(a.samples["AP"] - b.samples["AP"], [0.025, 0.975])
    assert (found.value, found.low, found.high) == pytest.approx((a.values["AP"] - b.values["AP"], low, high), rel=1e-9)
    assert 0 < low < found.value < high
    own = a.estimates()["AP"]
    assert high - low < (cast(float, own.high) - cast(float, own.low)) / 2  # what makes images hard for both cancels
    narrow = difference(a, b, confidence=0.5)["AP"]
    assert low < cast(float, narrow.low) < cast(float, narrow.high) < high


def test_ap_by_another_quantity() -> None:
    rng = np.random.default_rng(3)
    truth = random_scene(rng, 30)
    rows = predict(rng, truth)

    def area(images: Sequence[Any], boxes: np.ndarray) -> np.ndarray:
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    whole = measure(truth, rows)
    by_area = precision_by(truth, rows, area, [0, 8**2, 16**2, 32**2, 64**2])
    fine = [whole.estimates().get(f"AP{name}") for name in ("[0,8)", "[8,16)", "[16,32)", "[32,64)")]
    for found, known in zip(by_area, fine, strict=True):
        assert (found is None) == (known is None)
        if found is not None and known is not None:
            assert (found.value, found.low, found.high) == pytest.approx((known.value, known.low, known.high))
    assert sum(found is not None for found in by_area) >= 3

    def left(images: Sequence[Any], boxes: np.ndarray) -> np.ndarray:
        assert len(images) == len(boxes)
        return np.array([float(image <= 15) for image in images])

    second_half = {image["id"] for image in truth["images"]} - set(range(1, 16))
    parts = {key: truth[key] for key in truth} | {"images": [i for i in truth["images"] if i["id"] in second_half]}
    parts["annotations"] = [a for a in truth["annotations"] if a["image_id"] in second_half]
    alone = measure(parts, [row for row in rows if row["image_id"] in second_half])
    first, second, nothing = precision_by(truth, rows, left, [0, 1, 2, 3])
    assert first is not None
    assert second is not None
    assert nothing is None
    assert first.value == pytest.approx(alone.values["AP"])
    assert first.value != pytest.approx(whole.values["AP"])


def test_runs_that_cannot_be_compared() -> None:
    rng = np.random.default_rng(5)
    truth = random_scene(rng, 6)
    fewer = {**truth, "images": truth["images"][:5]}
    fewer["annotations"] = [a for a in truth["annotations"] if a["image_id"] != 6]
    a = measure(truth, [], resamples=10)
    with pytest.raises(ValueError, match=r"same images .*\['6'\]"):
        difference(a, measure(fewer, [], resamples=10))
    others: list[Measured] = [
        measure(truth, [], "mask", resamples=10),
        measure(truth, [], seed=1, resamples=10),
        measure(truth, [], resamples=11),
    ]
    for other in others:
        with pytest.raises(ValueError, match="alike"):
            difference(a, other)
    with pytest.raises(ValueError, match=r"95, but is 95"):
        a.estimates(confidence=95)
    with pytest.raises(ValueError, match="no images"):
        measure({**truth, "images": [], "annotations": []}, [])


def test_speed() -> None:
    rng = np.random.default_rng(8)
    truth = random_scene(rng, 50)
    rows = predict(rng, truth)
    start = time.process_time()
    measured = measure(truth, rows, resamples=1000)
    assert time.process_time() - start < 10
    assert all(samples.shape == (1000,) for samples in measured.samples.values())
    edges = [measured.values[f"AP@{t / 100:.2f}"] for t in range(50, 100, 5)]
    assert all(low >= high for low, high in pairwise(edges))
