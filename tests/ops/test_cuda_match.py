"""CUDA kernels of box matching, run on the host: equal to the bit to the CPU's and to the matrix of all pairs."""

import pytest
import torch
from cuda_host import operator, reversed_threads
from match_cases import anchors, assert_same, pyramid_case, random_case, reference

import ops


def on_host(boxes, objects, crowd):
    return ops.BoxMatches(*operator("match")(boxes, objects, crowd))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_the_matrix_of_all_pairs(dtype):
    for seed in range(40):
        case = random_case(seed, dtype)
        assert_same(on_host(*case), reference(*case))


def test_several_tiles_of_objects():
    """The first tile holds only crowd regions, so that the first object lies in the second."""
    boxes = anchors(20, 20, 8, 16.0)
    objects = anchors(16, 20, 10, 14.0)
    crowd = torch.arange(len(objects)) < 300
    assert len(objects) > 3 * 256
    found = on_host(boxes, objects, crowd)
    assert_same(found, reference(boxes, objects, crowd))
    assert_same(found, ops.match_boxes(boxes, objects, crowd))
    assert int(found.matched.min()) == 300


def test_the_order_of_threads_does_not_matter():
    case = pyramid_case()
    expected = on_host(*case)
    with reversed_threads():
        assert_same(on_host(*case), expected)


@pytest.mark.parametrize("boxes", [0, 1, 255, 256, 257])
@pytest.mark.parametrize("objects", [0, 1, 31, 32, 33, 256, 257])
def test_any_sizes(boxes, objects):
    given = anchors(10, 10, 8, 16.0)[:boxes]
    truth = anchors(10, 10, 8, 20.0)[:objects]
    crowd = torch.arange(objects) % 5 == 2
    assert_same(on_host(given, truth, crowd), reference(given, truth, crowd))


def test_not_a_number_overlaps_nothing():
    boxes = torch.tensor([[0.0, 0, 8, 8], [float("nan"), 0, 8, 8], [0, 0, 8, float("nan")]])
    for one, other in ((boxes, boxes[:1]), (boxes[:1], boxes)):
        for flag in (False, True):
            crowd = torch.full((len(other),), flag)
            assert_same(on_host(one, other, crowd), ops.match_boxes(one, other, crowd))
