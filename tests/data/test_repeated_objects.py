"""Objects that are there twice are found as by comparing all pairs, in memory that does not grow with these."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from detector.data.annotations import Annotations
from detector.data.check.objects import repeated_objects
from detector.data.packed import Ids, Strings, starts_of


def made(counts: list[int], boxes: np.ndarray, labels: np.ndarray, side: int = 10_000) -> Annotations:
    total = sum(counts)
    return Annotations(
        Path("set.json"), ["cat", "dog"], [1, 2], Ids.pack(list(range(len(counts)))),
        Strings.pack(f"{i}.png" for i in range(len(counts))), np.full((len(counts), 2), side, np.int32),
        starts_of(np.array(counts)), np.arange(1, total + 1), labels.astype(np.int32), boxes.astype(float),
        np.full(total, np.nan), np.arange(total) % 50 == 3, np.zeros(total, bool),
    )  # fmt: skip


def by_all_pairs(table: Annotations) -> list[tuple[int, int, float]]:
    corners, found = table.corners(), []
    for image in range(len(table)):
        for second in table.objects(image)[::-1]:
            for first in range(table.objects(image)[0], second):
                if table.crowd[first] or table.crowd[second] or table.labels[first] != table.labels[second]:
                    continue
                a, b = corners[first], corners[second]
                common = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0).prod()
                union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common
                if common / max(union, 1e-9) > 0.95:
                    found.append((first, second, common / max(union, 1e-9)))
                    break
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_repeated_objects_are_those_of_all_pairs(seed):
    draw = np.random.default_rng(seed)
    counts = [0, 1, 120, 90, 0, 40]
    total = sum(counts)
    boxes = np.column_stack((draw.uniform(0, 99, (25, 2)), draw.uniform(0.5, 40, (25, 2))))
    boxes = boxes[draw.integers(0, 25, total)] + draw.choice([0, 0.1, 0.4], (total, 4)) * draw.normal(size=(total, 4))
    boxes[:, 2:] = boxes[:, 2:].clip(0)  # some without width
    table = made(counts, boxes, draw.integers(-1, 2, total), 100)
    found, wanted = list(repeated_objects(table)), by_all_pairs(table)
    assert len(wanted) > 30
    assert [pair[:2] for pair in found] == [pair[:2] for pair in wanted]
    assert [pair[2] for pair in found] == [pair[2] for pair in wanted]


@pytest.mark.parametrize("where", ["anywhere", "a column", "one box"])
def test_many_objects_of_an_image_take_little_memory(where):
    draw = np.random.default_rng(0)
    places = draw.uniform(0, 9900, (20_000, 2))
    if where == "a column":
        places[:, 0] = 5
    if where == "one box":
        places[:] = 5
    table = made([20_000], np.column_stack((places, np.full((20_000, 2), 20.0))), np.zeros(20_000))
    tracemalloc.start()
    found = list(repeated_objects(table))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(found) == 19_599) == (where == "one box")
    assert all(first < second and iou > 0.95 for first, second, iou in found)
    assert peak < 50 * 2**20
