"""Boundary AP: boundaries pixel by pixel, and matches by the lesser of two IoUs."""

import re

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from detector.evaluation.boundary import BoundaryMetric, boundary
from detector.evaluation.coco import CocoMetric
from detector.evaluation.collector import Collector
from detector.masks import MaskOutput
from detector.types import Objects
from tests.evaluation.test_coco import truth


def code(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@pytest.mark.parametrize(("ratio", "pixels"), [(0.02, 1), (0.05, 2), (0.1, 4), (0.001, 1)])
def test_a_boundary_is_what_lies_near_the_outside(ratio: float, pixels: int) -> None:
    """By the definition: pixels of the mask with one outside of it, or of the image, so many rows or columns away."""
    rng = np.random.default_rng(0)
    height, width = 24, 32  # the diagonal is 40
    for _ in range(20):
        mask = np.zeros((height, width), bool)
        for _ in range(3):
            y, x = rng.integers(0, height - 4), rng.integers(0, width - 4)
            mask[y : y + rng.integers(3, 16), x : x + rng.integers(3, 16)] = True
        framed = np.pad(mask, pixels)
        expected = np.zeros_like(mask)
        for y, x in zip(*np.nonzero(mask), strict=True):
            expected[y, x] = not framed[y : y + 2 * pixels + 1, x : x + 2 * pixels + 1].all()
        assert np.array_equal(coco_mask.decode(boundary(code(mask), ratio)).astype(bool), expected)


def test_a_mask_whose_edges_are_off_counts_less() -> None:
    """A square of 60 px, found 4 px too far right: of the masks 56 columns are common, 64 are of either; of the
    boundaries, of 3 px, by hand."""
    known = truth({1: [(3, [20, 20, 60, 60])]}, size=(100, 100))
    mask, shifted = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    mask[20:80, 20:80] = shifted[20:80, 24:84] = True
    edges = [coco_mask.decode(boundary(code(m))).astype(bool) for m in (mask, shifted)]
    assert edges[0].sum() == 60 * 60 - 54 * 54
    iou = (edges[0] & edges[1]).sum() / (edges[0] | edges[1]).sum()
    assert 0.3 < iou < 0.5 < 56 / 64
    collector = Collector(known, [3, 7], outputs=[MaskOutput()])
    found = Objects(
        torch.tensor([[24.0, 20, 84, 80]]), torch.ones(1), torch.zeros(1, dtype=torch.int64), torch.ones(1, 28, 28)
    )
    collector.update([1], [found], [(100, 100)])
    results = BoundaryMetric(collector).results()
    assert CocoMetric(collector).results()["mask/AP50"] == pytest.approx(1)
    assert (results["boundary/AP50"], results["boundary/AP"]) == (0, 0)
    # Of 42 px the whole mask is boundary, and its IoU of 56 / 64 is above 8 of the 10 thresholds.
    assert BoundaryMetric(collector, ratio=0.3).results()["boundary/AP"] == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r"ratio must be .* not 0"):
        BoundaryMetric(collector, ratio=0)


def test_equal_masks_count_as_in_coco() -> None:
    known = truth({1: [(3, [20, 20, 60, 60]), (7, [5, 5, 10, 10])], 2: [(3, [0, 0, 30, 50])]}, size=(100, 100))
    collector = Collector(known, [3, 7], outputs=[MaskOutput()])
    for image, boxes, labels in ((1, [[20.0, 20, 80, 80], [5, 5, 15, 15]], [0, 1]), (2, [[0.0, 0, 30, 50]], [0])):
        n = len(boxes)
        found = Objects(torch.tensor(boxes), torch.linspace(1, 0.5, n), torch.tensor(labels), torch.ones(n, 28, 28))
        collector.update([image], [found], [(100, 100)])
    results = BoundaryMetric(collector).results()
    coco = CocoMetric(collector).results()
    known_ap = {name: value for name, value in coco.items() if re.fullmatch(r"mask/AP(50|75|s|m|l)?", name)}
    assert results == pytest.approx({name.replace("mask", "boundary"): value for name, value in known_ap.items()})
    assert results["boundary/AP"] == pytest.approx(1)


def test_without_masks_there_is_nothing() -> None:
    collector = Collector(truth({1: [(3, [20, 20, 60, 60])]}), [3, 7])
    collector.update([1], [Objects(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))], [(100, 120)])
    assert BoundaryMetric(collector).results() == {}
