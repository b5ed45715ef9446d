"""Two runs' errors side by side, by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detector.evaluation import Collector
from detector.evaluation.bootstrap import resample
from detector.evaluation.collector import ImageDetections
from detector.evaluation.errors import CLASSIFICATION, KINDS, LOCALISATION, MISSED, NO_ERROR, find_errors
from detector.evaluation.measure import Estimate
from detector.evaluation.paired_errors import FoundBy, errors_of_other, found_by, outcomes, pair_errors
from detector.evaluation.records import Kind
from detector.masks import MaskOutput
from tests.evaluation.test_accumulate import random_collector

Box = tuple[float, float, float, float]
"""x, y, width, height"""

CAT, DOG = 3, 7

Images = list[tuple[list[tuple[int, Box]], list[tuple[int, Box, float]]]]
"""For each image its objects and its detections, these with scores."""


def collector_of(images: Images) -> Collector:
    annotations = [
        {"id": 10 * image + place, "image_id": image, "category_id": category, "bbox": list(box)}
        for image, (objects, _) in enumerate(images)
        for place, (category, box) in enumerate(objects)
    ]
    truth: dict[str, Any] = {
        "images": [{"id": image, "height": 200, "width": 200} for image in range(len(images))],
        "annotations": annotations,
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}],
    }
    collector = Collector(truth, [CAT, DOG])
    found = {
        image: ImageDetections(
            np.array([box for _, box, _ in detections], np.float64).reshape(-1, 4),
            np.array([score for _, _, score in detections], np.float64),
            np.array([[CAT, DOG].index(category) for category, _, _ in detections], np.int64),
        )
        for image, (_, detections) in enumerate(images)
    }
    collector.merge([found])
    return collector


HERE: Box = (10, 10, 20, 20)
BESIDE: Box = (20, 10, 20, 20)  # an IoU of 1/3

OBJECTS: list[tuple[int, Box]] = [
    (CAT, (0, 0, 20, 20)),
    (CAT, (50, 0, 10, 10)),
    (DOG, (100, 0, 40, 40)),
    (CAT, (0, 100, 20, 20)),
    (DOG, (50, 100, 10, 10)),
]
FIRST = [
    (CAT, (0, 0, 20, 20), 0.9),
    (DOG, (50, 0, 10, 10), 0.8),  # of another class, and before the next one
    (CAT, (55, 0, 10, 10), 0.7),
    (DOG, (100, 0, 40, 40), 0.6),
    (DOG, (50, 100, 10, 10), 0.5),
]
SECOND = [
    (DOG, (0, 0, 20, 20), 0.95),  # of another class, though the next one finds the object
    (CAT, (0, 0, 20, 20), 0.9),
    (CAT, (50, 0, 10, 10), 0.85),
    (DOG, (120, 0, 40, 40), 0.8),  # beside the object, and before the next one
    (CAT, (100, 0, 40, 40), 0.7),
    (CAT, (55, 100, 10, 10), 0.6),  # beside an object of another class, which no mending makes a match
]
RUNS: tuple[Images, Images] = [(OBJECTS, FIRST)], [(OBJECTS, SECOND)]  # type: ignore[assignment]


def test_what_becomes_of_each_object() -> None:
    first, second = (find_errors(collector_of(images), "box") for images in RUNS)
    assert outcomes(first).tolist() == [NO_ERROR, CLASSIFICATION, NO_ERROR, MISSED, NO_ERROR]
    assert outcomes(second).tolist() == [NO_ERROR, NO_ERROR, LOCALISATION, MISSED, MISSED]
    assert errors_of_other(first, second) == {"classification": 0, "localisation": 1, "missed": 1}
    assert errors_of_other(second, first) == {"classification": 1, "localisation": 0, "missed": 0}


def test_which_run_finds_how_many() -> None:
    paired = pair_errors(*(collector_of(images) for images in RUNS), "box", resamples=2)
    found = found_by(paired, (20, 40))  # the sides of the first and the third object are those of the bins
    assert found == {
        "all": FoundBy(both=1, first=2, second=1, neither=1),
        "small": FoundBy(both=0, first=1, second=1, neither=0),
        "medium": FoundBy(both=1, first=0, second=0, neither=1),
        "large": FoundBy(both=0, first=1, second=0, neither=0),
    }
    assert [count.objects for count in found.values()] == [5, 2, 2, 1]


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(3))
def test_missed_objects_are_those_without_a_detection_to_mend(kind: Kind, seed: int) -> None:
    errors = find_errors(random_collector(seed, 3), kind)
    assert errors.missed.any()
    assert ((outcomes(errors) == MISSED) == errors.missed).all()


def test_costs_on_resamples_by_hand() -> None:
    collector = collector_of([([(CAT, HERE)], [(CAT, BESIDE, 0.8)]), ([(CAT, HERE)], [(CAT, HERE, 0.9)])])
    repeats = np.array([[1, 1], [2, 0], [0, 2], [1, 3], [0, 0]], np.int32)
    costs = find_errors(collector, "box").resampled_costs(repeats)
    # half of the objects are found with a precision of 1: 51 of the 101 recalls; three of four: 76
    expected = [50 / 101, 1, 0, 25 / 101, np.nan]
    assert costs.pop("localisation") == pytest.approx(expected, abs=1e-12, nan_ok=True)
    for values in costs.values():
        assert values == pytest.approx([0, 0, 0, 0, np.nan], abs=1e-12, nan_ok=True)


def repeated(collector: Collector, counts: list[int]) -> Collector:
    """Each image so many times; scores are drawn, without ties."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found = {}
    for place, image in enumerate(collector.images):
        detections = collector.detections(image)
        scores = np.random.default_rng(place).random(len(detections.scores))
        for copy in range(counts[place]):
            name = f"{image}, {copy}"
            images.append({**collector.image(image), "id": name})
            annotations += [{**annotation, "image_id": name} for annotation in collector.annotations(image)]
            found[name] = replace(detections, scores=scores)
    categories = [{"id": category, "name": str(category)} for category in collector.category_ids]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    result = Collector(truth, collector.category_ids, outputs=[MaskOutput()], limit=collector.limit)
    result.merge([found])
    return result


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(3))
def test_costs_on_a_resample_are_those_of_its_images(kind: Kind, seed: int) -> None:
    collector = random_collector(seed, 60)
    images = len(collector.images)
    repeats = np.concatenate((np.ones((1, images), np.int32), resample(images, seed, 5)))
    once = find_errors(repeated(collector, [1] * images), kind)
    costs = once.resampled_costs(repeats)
    assert sum(value[0] > 0 for value in costs.values()) > 2
    for place, counts in enumerate(repeats.tolist()):
        expected = find_errors(repeated(collector, counts), kind).costs()
        assert {name: costs[name][place] for name in KINDS} == pytest.approx(expected, abs=1e-12)


def test_differences_are_paired_by_image() -> None:
    first: Images = [([(CAT, HERE)], [(CAT, BESIDE, 0.8)]), ([(CAT, HERE)], [(CAT, HERE, 0.9)])]
    second: Images = [([(CAT, HERE)], [(CAT, HERE, 0.8)]), ([(CAT, HERE)], [(CAT, HERE, 0.9)])]
    found = pair_errors(collector_of(first), collector_of(second), "box").differences
    # a quarter of the resamples has the first image only, another quarter the second
    assert found["localisation"].value == pytest.approx(-50 / 101)
    assert (found["localisation"].low, found["localisation"].high) == pytest.approx((-1, 0))
    assert found["missed"] == Estimate(0, 0, 0)
    same = pair_errors(collector_of(first), collector_of(first), "box").differences
    assert same == dict.fromkeys(KINDS, Estimate(0, 0, 0))  # though the costs vary


def test_only_runs_on_the_same_images_and_objects_are_paired() -> None:
    one: Images = [([(CAT, HERE)], [])]
    with pytest.raises(ValueError, match=r"on the same objects only; these have \(1, 2\)"):
        pair_errors(collector_of(one), collector_of([([(CAT, HERE), (CAT, BESIDE)], [])]), "box")
    with pytest.raises(ValueError, match="on the same objects only"):
        pair_errors(collector_of(one), collector_of([([(DOG, HERE)], [])]), "box")
    with pytest.raises(ValueError, match="on the same images only"):
        pair_errors(collector_of(one), collector_of([*one, ([], [])]), "box")
