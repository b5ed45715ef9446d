"""CUDA kernels of ranking, run on the host: equal to the bit to the CPU's."""

import pytest
import torch
from cuda_host import operator, reversed_threads
from match_cases import anchors, pyramid_case
from rank_cases import MEASURES, assert_same, random_case

import ops
from ops import ranking


def on_host(boxes, objects, crowd, distance, topk):
    arguments = (ranking.gaussians(boxes), ranking.gaussians(objects), crowd, distance, topk)
    return ops.BoxRanks(*operator("rank")(*arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("distance", MEASURES)
def test_equals_the_cpu(distance, dtype):
    for seed in range(40):
        case = (*random_case(seed, dtype), distance, 1 + seed % 5)
        assert_same(on_host(*case), ops.rank_boxes(*case))


def test_several_tiles_of_objects():
    """The first tile holds only crowd regions, so that the first object lies in the second."""
    boxes, objects = anchors(12, 12, 8, 16.0), anchors(16, 18, 10, 14.0)
    crowd = torch.arange(len(objects)) < 300
    assert len(objects) > 3 * 256
    boxes[5, 2] = boxes[5, 0]  # at no distance from anything
    found = on_host(boxes, objects, crowd, "divergence", 3)
    assert_same(found, ops.rank_boxes(boxes, objects, crowd, "divergence", 3))
    assert int(found.matched.min()) == 300 == int(found.matched[5])


def test_the_order_of_threads_does_not_matter():
    case = (*pyramid_case(), "divergence", 3)
    expected = on_host(*case)
    with reversed_threads():
        assert_same(on_host(*case), expected)


@pytest.mark.parametrize("boxes", [0, 1, 255, 257])
@pytest.mark.parametrize("objects", [0, 1, 33, 256, 257])
def test_any_sizes(boxes, objects):
    given, truth = anchors(10, 10, 8, 16.0)[:boxes], anchors(10, 10, 8, 20.0)[:objects]
    crowd = torch.arange(objects) % 5 == 2
    assert_same(on_host(given, truth, crowd, "wasserstein", 4), ops.rank_boxes(given, truth, crowd, "wasserstein", 4))
