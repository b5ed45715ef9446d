"""Polygons of masks that lose no pixel."""

import numpy as np
import pytest
from pycocotools import mask as rle

from detector.data.outlines import joined, pixel_rings


def filled(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    (code,) = rle.frPyObjects([polygon.reshape(-1).tolist()], *size)
    return rle.decode(code).astype(bool)


def test_a_pixel_and_a_hole():
    mask = np.zeros((5, 6), bool)
    mask[1, 2] = True
    (ring,) = pixel_rings(mask)
    assert sorted(map(tuple, ring.tolist())) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    mask[1:4, 1:5], mask[2, 2] = True, False
    outer, inner = sorted(pixel_rings(mask), key=len)
    assert (len(outer), len(inner)) == (4, 4)
    assert len(joined([outer, inner])) == 10
    assert pixel_rings(np.zeros((5, 6), bool)) == []


def test_pixels_that_touch_at_a_corner_are_apart():
    mask = np.array([[1, 0], [0, 1]], bool)
    assert [len(ring) for ring in pixel_rings(mask)] == [4, 4]
    assert np.array_equal(filled(joined(pixel_rings(mask)), (2, 2)), mask)
    hole = np.pad(~mask, 1, constant_values=True)
    assert np.array_equal(filled(joined(pixel_rings(hole)), (4, 4)), hole)


@pytest.mark.parametrize("seed", range(40))
def test_no_pixel_is_lost(seed):
    random = np.random.default_rng(seed)
    size = tuple(int(v) for v in random.integers(1, 30, 2))
    mask = random.random(size) < random.choice([0.1, 0.5, 0.9])
    if seed % 2:  # larger parts with holes
        mask = np.kron(mask, np.ones((3, 2), bool))
    mask.flat[random.integers(mask.size)] = True
    assert np.array_equal(filled(joined(pixel_rings(mask)), mask.shape), mask)
