"""TIDE's errors by hand; tidecv's own numbers on the COCO sample are in detector/evaluation/README.md."""

from typing import Any

import numpy as np
import pytest

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.collector import ImageDetections
from detector.evaluation.errors import KINDS, NO_ERROR, Errors, find_errors
from detector.evaluation.records import Kind
from detector.masks import MaskOutput
from tests.evaluation.test_accumulate import masks_of, random_collector

Box = tuple[float, float, float, float]
"""x, y, width, height"""

CAT, DOG = 3, 7


def found(
    objects: list[tuple[int, Box]],
    detections: list[tuple[int, Box]],
    crowds: list[tuple[int, Box]] = [],  # noqa: B006
    kind: Kind = "box",
    limit: int = 100,
) -> Errors:
    """Of one image; detections by descending score."""
    rows = [*((c, b, 0) for c, b in objects), *((c, b, 1) for c, b in crowds)]
    annotations: list[dict[str, Any]] = [
        {"id": i, "image_id": 1, "category_id": category, "bbox": list(box), "iscrowd": crowd}
        for i, (category, box, crowd) in enumerate(rows)
    ]
    boxes = np.array([box for _, box in detections], np.float64).reshape(-1, 4)
    for annotation in annotations:
        annotation["segmentation"] = masks_of(np.array([annotation["bbox"]]))[0]
    truth: dict[str, Any] = {"images": [{"id": 1, "height": 64, "width": 64}], "annotations": annotations}
    truth["categories"] = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    collector = Collector(truth, [CAT, DOG], outputs=[MaskOutput()], limit=limit)
    labels = np.array([[CAT, DOG].index(category) for category, _ in detections], np.int64)
    scores = 0.9 - 0.01 * np.arange(len(detections))
    collector.merge([{1: ImageDetections(boxes, scores, labels, {"mask": masks_of(boxes)})}])
    return find_errors(collector, kind)


HERE: Box = (10, 10, 20, 20)
BESIDE: Box = (18, 10, 20, 20)  # an IoU of 12/28
FAR: Box = (40, 40, 20, 20)


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize(
    ("objects", "detections", "errors", "costs"),
    [
        # in each case AP is 0 or 1/2 at first; mending the error brings the rest of it
        ([(CAT, HERE)], [(CAT, HERE)], [None], {}),
        ([(CAT, HERE)], [(DOG, HERE)], ["classification"], {"classification": 1}),
        ([(CAT, HERE)], [(CAT, BESIDE)], ["localisation"], {"localisation": 1}),
        ([(CAT, HERE)], [(DOG, BESIDE)], ["both"], {}),
        ([(CAT, HERE)], [(CAT, FAR)], ["background"], {}),
        ([(CAT, HERE), (CAT, FAR)], [(CAT, HERE)] * 2 + [(CAT, FAR)], [None, "duplicate", None], {"duplicate": 1}),
        ([(CAT, HERE)], [(CAT, FAR), (CAT, HERE)], ["background", None], {"background": 1}),
        ([(CAT, HERE), (CAT, FAR)], [(CAT, HERE)], [None], {"missed": 1}),
        ([], [(CAT, HERE)], ["background"], {}),
        # the better of two that would match the object does, and the other one goes
        ([(CAT, HERE)], [(DOG, HERE), (CAT, BESIDE)], ["classification", "localisation"], {"classification": 1}),
        # an object that is matched already gains nothing
        ([(CAT, HERE)], [(CAT, HERE), (CAT, BESIDE)], [None, "localisation"], {}),
    ],
)  # fmt: skip
def test_each_error(
    kind: Kind,
    objects: list[tuple[int, Box]],
    detections: list[tuple[int, Box]],
    errors: list[str | None],
    costs: dict[str, float],
) -> None:
    result = found(objects, detections, kind=kind)
    assert [None if number == NO_ERROR else KINDS[number] for number in result.kind] == errors
    found_costs = {name: value for name, value in result.costs().items() if value}
    assert found_costs.keys() == costs.keys()
    for name in costs:
        assert result.average_precision() + found_costs[name] == pytest.approx(1, abs=0.01)
    numbers = {name: number for name, number in result.numbers().items() if number and name != "missed"}
    assert numbers == {name: errors.count(name) for name in errors if name}
    assert result.numbers()["missed"] == np.count_nonzero(result.missed)


def test_an_object_is_missed_where_mending_class_or_place_does_not_help() -> None:
    result = found([(CAT, HERE), (CAT, FAR)], [(DOG, HERE), (CAT, (0, 0, 4, 4))])
    assert result.missed.tolist() == [False, True]
    assert found([(CAT, HERE)], []).missed.tolist() == [True]
    assert found([(CAT, HERE)], []).costs() == dict.fromkeys(KINDS, 0.0)


def test_ignored_detections_do_not_count() -> None:
    result = found([(CAT, HERE)], [(CAT, FAR), (DOG, FAR), (CAT, HERE)], crowds=[(CAT, (32, 32, 30, 30))])
    assert result.counts.tolist() == [False, True, True]  # the crowd is of another class than the second
    assert result.numbers()["background"] == 1
    assert result.average_precision() == pytest.approx(1)


def test_costs_of_some_objects_alone() -> None:
    result = found([(CAT, HERE), (CAT, FAR)], [(CAT, BESIDE)])
    some = result.costs(objects=np.array([True, False]), detections=np.zeros(1, bool))
    assert some == dict.fromkeys(KINDS, 0.0)
    assert result.costs(objects=np.array([False, True]))["missed"] == 0.0  # there is no true positive
    assert result.costs()["localisation"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(3))
def test_with_all_errors_it_is_cocos_ap(kind: Kind, seed: int) -> None:
    collector = random_collector(seed, 150, plain=True)
    errors = find_errors(collector, kind)
    assert sum(number > 0 for number in errors.numbers().values()) > 2
    assert errors.average_precision() == pytest.approx(CocoMetric(collector).results()[f"{kind}/AP50@150"], abs=1e-9)


def test_a_class_that_is_missed_as_a_whole_costs_its_share() -> None:
    errors = found([(CAT, HERE), (DOG, FAR)], [(CAT, HERE)])
    assert errors.present == pytest.approx(0.5)
    assert errors.costs()["missed"] == pytest.approx(0.5)
    assert errors.resampled_costs(np.ones((2, 1), np.int32))["missed"] == pytest.approx([0.5, 0.5])
