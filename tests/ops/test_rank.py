"""Ranking boxes by the distance of their Gaussians: by hand, against every pair in Python, and the edges."""

import resource
from pathlib import Path

import pytest
import torch
from fresh import run
from match_cases import anchors, pyramid_case
from rank_cases import MEASURES, assert_same, matrix, random_case, reference

import ops
from ops import fallback, ranking

BOXES = torch.tensor(
    [
        [0.0, 0.0, 8.0, 8.0],  # is object 0
        [0.0, 0.0, 8.0, 4.0],  # its centre is 2 off, a side is 4 less
        [4.0, 0.0, 12.0, 8.0],  # 4 from both objects 0 and 1
        [9.0, 0.0, 17.0, 8.0],  # 1 from object 1
    ]
)
OBJECTS = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
NO_CROWD = torch.zeros(2, dtype=torch.bool)


def test_wasserstein_by_hand():
    found = ops.rank_boxes(BOXES, OBJECTS, NO_CROWD, "wasserstein", 1)
    assert found.distance.tolist() == [0.0, 4.0 + 4.0, 16.0, 1.0]
    assert found.matched.tolist() == [0, 0, 0, 1]
    assert found.ranked.tolist() == [0, -1, -1, 1]
    assert ops.rank_boxes(BOXES, OBJECTS, NO_CROWD, "wasserstein", 2).ranked.tolist() == [0, 0, 1, 1]


def test_divergence_by_hand():
    """Of equal Gaussians it is 0; of a box half as high, 2 off: ½ (¼ + 2²/4² - 1 + ln 4), and nothing across."""
    found = ops.rank_boxes(BOXES, OBJECTS, NO_CROWD, "divergence", 1)
    half = 0.5 * (0.25 + 0.25 - 1 + torch.tensor(4.0).log())
    torch.testing.assert_close(found.distance, torch.tensor([0.0, float(half), 0.5, 1 / 32]))
    assert found.matched.tolist() == [0, 0, 0, 1]
    assert found.ranked.tolist() == [0, -1, -1, 1]


def test_equally_near_boxes_are_all_ranked():
    shifts = torch.tensor([[0.0], [3.0], [-3.0], [3.0], [5.0]]) * torch.tensor([1.0, 0.0, 1.0, 0.0])
    boxes = OBJECTS[:1] + shifts
    for topk, expected in ((1, [0, -1, -1, -1, -1]), (2, [0, 0, 0, 0, -1]), (4, [0, 0, 0, 0, -1]), (5, [0] * 5)):
        assert ops.rank_boxes(boxes, OBJECTS[:1], NO_CROWD[:1], "divergence", topk).ranked.tolist() == expected


def test_crowds_are_no_objects():
    found = ops.rank_boxes(BOXES, OBJECTS, torch.tensor([True, False]), "wasserstein", 1)
    assert found.matched.tolist() == [1, 1, 1, 1]
    assert found.ranked.tolist() == [-1, -1, -1, 1]
    nothing = ops.rank_boxes(BOXES, OBJECTS, torch.tensor([True, True]), "wasserstein", 1)
    assert nothing.distance.tolist() == [torch.inf] * 4
    assert nothing.matched.tolist() == [0] * 4
    assert nothing.ranked.tolist() == [-1] * 4


@pytest.mark.parametrize("distance", MEASURES)
def test_equals_every_pair_in_python(distance):
    """200 random cases in float64; ranks follow from the operator's distances of one object, so that ties count."""
    ranked = several = 0
    for seed in range(200):
        boxes, objects, crowd = random_case(seed)
        topk = 1 + seed % 4
        found = ops.rank_boxes(boxes, objects, crowd, distance, topk)
        plain = torch.tensor(matrix(boxes, objects, crowd, distance), dtype=torch.float64).reshape(
            len(crowd), len(boxes)
        )
        pairs = [
            ops.rank_boxes(boxes, o[None], c[None], distance, 1).distance for o, c in zip(objects, crowd, strict=True)
        ]
        exact = torch.stack(pairs) if pairs else plain
        torch.testing.assert_close(exact, plain, rtol=1e-11, atol=1e-11)
        expected = reference(exact, topk, crowd)
        assert_same(found, expected)
        ranked += int((found.ranked >= 0).sum())
        several += int((found.ranked != found.matched)[found.ranked >= 0].sum())
    assert ranked > 500
    assert several > 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("distance", MEASURES)
def test_the_fallback_is_the_same(distance, dtype, monkeypatch):
    for pairs in (1 << 19, 500):
        monkeypatch.setattr(fallback, "CHUNK_PAIRS", pairs)
        for seed in range(40):
            boxes, objects, crowd = random_case(seed, dtype)
            if seed % 8 == 7:
                boxes, objects = boxes * 1e18, objects * 1e18  # the quotients of float32 are subnormal
            arguments = (ranking.gaussians(boxes), ranking.gaussians(objects), crowd, distance, 1 + seed % 5)
            found = ops.rank_boxes(boxes, objects, crowd, distance, 1 + seed % 5)
            assert_same(found, ops.BoxRanks(*fallback.rank(*arguments)))


@pytest.mark.parametrize("distance", MEASURES)
def test_any_number_of_threads_and_any_order(distance):
    boxes, objects, crowd = pyramid_case()
    boxes = torch.cat((boxes, boxes[:1000]))
    expected = ops.rank_boxes(boxes, objects, crowd, distance, 3)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3, 8):
            torch.set_num_threads(number)
            assert_same(ops.rank_boxes(boxes, objects, crowd, distance, 3), expected)
    finally:
        torch.set_num_threads(threads)
    order = torch.randperm(len(boxes))
    shuffled = ops.rank_boxes(boxes[order], objects, crowd, distance, 3)
    assert_same(shuffled, ops.BoxRanks(*(value[order] for value in expected)))


VARIANT = """
import sys; sys.path[:0] = ["tests/ops"]
import ops, torch
from ops import fallback, ranking
from rank_cases import assert_same, random_case
assert "{variant} variant" in ops.backend().reason, ops.backend()
for seed in range(30):
    for distance in ranking.DISTANCES:
        boxes, objects, crowd = random_case(seed, torch.float32)
        arguments = (ranking.gaussians(boxes), ranking.gaussians(objects), crowd, distance, 3)
        assert_same(ops.BoxRanks(*torch.ops.aligned_rcnn.rank(*arguments)), ops.BoxRanks(*fallback.rank(*arguments)))
"""


@pytest.mark.parametrize(("capability", "variant"), [("default", "portable"), ("avx2", "AVX2")])
def test_the_variants_for_other_processors_give_the_same_bits(capability, variant):
    cpuinfo = Path("/proc/cpuinfo")
    if variant == "AVX2" and not (cpuinfo.exists() and "avx2" in cpuinfo.read_text()):
        pytest.skip("this processor has no AVX2")
    code, _, error = run(VARIANT.format(variant=variant), ATEN_CPU_CAPABILITY=capability)
    assert code == 0, error


def test_boxes_without_a_side_are_ranked_nowhere():
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[5.0, 5, 5, 9], [8, 8, 2, 2], [nan, 0, 9, 9], [-inf, 0, inf, 9], [0, 0, 1e30, 1e30]])
    for distance in MEASURES:
        for one, other in ((boxes, OBJECTS), (OBJECTS, boxes), (boxes, boxes[:3])):
            found = ops.rank_boxes(one, other, torch.zeros(len(other), dtype=torch.bool), distance, 2)
            assert found.distance.isinf().all()
            assert (found.ranked == -1).all()


def test_dtypes_strides_and_no_gradients():
    boxes, objects, crowd = pyramid_case()
    expected = ops.rank_boxes(boxes, objects, crowd, "divergence", 3)
    wide = torch.cat((boxes, boxes), 1)[:, :4].requires_grad_()
    found = ops.rank_boxes(wide, objects.T.contiguous().T, torch.stack((crowd, crowd), 1)[:, 0], "divergence", 3)
    assert_same(found, expected)
    assert not any(value.requires_grad for value in found)
    assert ops.rank_boxes(boxes.double(), objects, crowd, "divergence", 3).distance.dtype == torch.float64
    half = ops.rank_boxes(boxes.bfloat16(), objects.half(), crowd, "wasserstein", 3)
    assert_same(half, ops.rank_boxes(boxes.bfloat16().float(), objects.half().float(), crowd, "wasserstein", 3))


def test_opcheck():
    for count, objects in ((4, 2), (0, 2), (4, 0)):
        boxes, others = ranking.gaussians(BOXES[:count]), ranking.gaussians(OBJECTS[:objects])
        arguments = (boxes, others, NO_CROWD[:objects], "divergence", 2)
        torch.library.opcheck(torch.ops.aligned_rcnn.rank.default, arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((BOXES, OBJECTS, NO_CROWD, "iou", 1), ValueError, "distance must be one of 'wasserstein', 'divergence'"),
        ((BOXES, OBJECTS, NO_CROWD, "divergence", 0), ValueError, "topk must be between 1 and 16; got 0"),
        ((BOXES, OBJECTS, NO_CROWD, "divergence", 17), ValueError, "topk must be between 1 and 16; got 17"),
        ((BOXES, OBJECTS, NO_CROWD, "divergence", 1.5), TypeError, r"topk must be an int; got 1\.5"),
        ((BOXES[0], OBJECTS, NO_CROWD, "divergence", 1), ValueError, r"boxes must be Tensor\[N, 4\]"),
        ((BOXES, OBJECTS, NO_CROWD[:1], "divergence", 1), ValueError, r"crowd must be Tensor\[2\], one per object"),
    ],
)
def test_malformed_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.rank_boxes(*arguments)


def test_memory_does_not_grow_with_the_pairs():
    """The matrix of these would take 1.6 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    boxes = anchors(200, 336, 4, 32.0)[:200_000]
    objects = anchors(40, 50, 16, 20.0)[:2_000]
    found = ops.rank_boxes(boxes, objects, torch.zeros(2_000, dtype=torch.bool), "divergence", 3)
    assert int((found.ranked >= 0).sum()) >= 2_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB
