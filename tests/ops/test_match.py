"""Matching boxes with objects: by hand, against the matrix of all pairs, and the edges."""

import resource

import pytest
import torch
from fresh import run
from match_cases import anchors, assert_same, pyramid_case, random_case, reference
from roi_cases import hostile_boxes

import ops
from ops import fallback

BOXES = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],  # is object 0
        [0.0, 0.0, 10.0, 5.0],  # half of it
        [5.0, 0.0, 15.0, 10.0],  # 50 of 150 common with objects 0 and 1 alike
        [30.0, 30.0, 32.0, 32.0],  # 4 of 100 common with object 2
        [80.0, 80.0, 90.0, 90.0],  # alone
    ]
)
OBJECTS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0], [30.0, 30.0, 40.0, 40.0]])
NO_CROWD = torch.zeros(3, dtype=torch.bool)


def test_by_hand():
    found = ops.match_boxes(BOXES, OBJECTS, NO_CROWD)
    torch.testing.assert_close(found.iou, torch.tensor([1.0, 0.5, 1 / 3, 0.04, 0.0]))
    assert found.matched.tolist() == [0, 0, 0, 2, 0]  # of equal IoUs, 0 among them, the first object's
    assert found.nearest.tolist() == [True, False, True, True, False]
    assert found.covered.tolist() == [0.0] * 5


def test_crowds_are_no_objects():
    found = ops.match_boxes(BOXES, OBJECTS, torch.tensor([True, False, False]))
    torch.testing.assert_close(found.iou, torch.tensor([0.0, 0.0, 1 / 3, 0.04, 0.0]))
    assert found.matched.tolist() == [1, 1, 1, 2, 1]
    assert found.nearest.tolist() == [False, False, True, True, False]
    assert found.covered.tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("objects", [OBJECTS, OBJECTS[:0]], ids=["only crowds", "nothing"])
def test_without_objects(objects):
    found = ops.match_boxes(BOXES, objects, torch.ones(len(objects), dtype=torch.bool))
    assert found.iou.tolist() == [-1.0] * 5
    assert found.matched.tolist() == [0] * 5
    assert not found.nearest.any()


def test_all_boxes_of_equal_iou_are_nearest():
    shifts = torch.tensor([[0.0], [1000.0], [3.0], [-3.0], [3.0]]) * torch.tensor([1.0, 0.0, 1.0, 0.0])
    found = ops.match_boxes(OBJECTS[:1] + shifts, OBJECTS, NO_CROWD)
    assert found.nearest.tolist() == [True, False, True, False, True]  # 0 of object 0; 2 and 4 of object 1


def test_degenerate_boxes_overlap_nothing():
    nan = float("nan")
    boxes = torch.tensor([[5.0, 5, 5, 9], [8, 8, 2, 2], [5, 5, 5, 5], [nan, 0, 9, 9], [0, 0, nan, nan]])
    for one, other in ((boxes, OBJECTS), (OBJECTS, boxes), (boxes, boxes)):
        found = ops.match_boxes(one, other, torch.zeros(len(other), dtype=torch.bool))
        assert not found.iou.any()
        assert not found.matched.any()
        assert not found.nearest.any()
        covered = ops.match_boxes(one, other, torch.ones(len(other), dtype=torch.bool)).covered
        assert not covered.any()


def test_hostile_boxes():
    """Any boxes and objects; of crowd regions only those whose area does not overflow."""
    boxes, objects = hostile_boxes(700)[:, 1:], hostile_boxes(300, seed=1)[:, 1:]
    crowd = (torch.arange(300) % 3 == 0) & (objects.abs().amax(1) < 1e15)
    assert_same(ops.match_boxes(boxes, objects, crowd), reference(boxes, objects, crowd))
    assert_same(ops.match_boxes(objects, objects, crowd), reference(objects, objects, crowd))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_the_matrix_of_all_pairs(dtype):
    found = torch.zeros(3, dtype=torch.int64)
    for seed in range(40):
        case = random_case(seed, dtype)
        expected = reference(*case)
        assert_same(ops.match_boxes(*case), expected)
        found += torch.stack([(expected.iou > 0).sum(), expected.nearest.sum(), (expected.covered > 0).sum()])
    assert found.min() > 1000


def test_the_fallback_is_the_same(monkeypatch):
    for pairs, seeds in ((1 << 19, range(20)), (20_000, range(20, 40))):
        monkeypatch.setattr(fallback, "CHUNK_PAIRS", pairs)
        for seed in seeds:
            case = random_case(seed)
            assert_same(ops.BoxMatches(*fallback.match(*case)), reference(*case))


def test_anchors_of_a_pyramid_in_any_order():
    boxes, objects, crowd = pyramid_case()
    found = ops.match_boxes(boxes, objects, crowd)
    assert_same(found, reference(boxes, objects, crowd))
    order = torch.randperm(len(boxes))
    shuffled = ops.match_boxes(boxes[order], objects, crowd)
    assert_same(shuffled, ops.BoxMatches(*(value[order] for value in found)))


def test_any_number_of_threads():
    boxes = torch.cat([anchors(64, 64, 4, side) for side in (8.0, 16.0, 32.0)])
    _, objects, crowd = pyramid_case()
    expected = ops.match_boxes(boxes, objects, crowd)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3, 8):
            torch.set_num_threads(number)
            for _ in range(3):
                assert_same(ops.match_boxes(boxes, objects, crowd), expected)
    finally:
        torch.set_num_threads(threads)


VARIANT = """
import sys; sys.path[:0] = ["tests/ops"]
import ops
from match_cases import assert_same, random_case, reference
assert "{variant} variant" in ops.backend().reason, ops.backend()
for seed in range(12):
    case = random_case(seed)
    assert_same(ops.match_boxes(*case), reference(*case))
"""


@pytest.mark.skipif("portable" in ops.backend().reason, reason="the portable variant has run already")
def test_the_portable_variant_gives_the_same_bits():
    code, _, error = run(VARIANT.format(variant="portable"), ATEN_CPU_CAPABILITY="default")
    assert code == 0, error


def test_dtypes_and_strides():
    boxes, objects, crowd = pyramid_case()
    expected = reference(boxes, objects, crowd)
    wide = torch.cat((boxes, boxes), 1)[:, :4]
    turned = objects.T.contiguous().T
    assert_same(ops.match_boxes(wide, turned, torch.stack((crowd, crowd), 1)[:, 0]), expected)
    assert_same(ops.match_boxes(boxes.double(), objects, crowd), reference(boxes.double(), objects.double(), crowd))
    half = ops.match_boxes(boxes.bfloat16(), objects.half(), crowd)
    assert_same(half, reference(boxes.bfloat16().float(), objects.half().float(), crowd))


def test_no_gradients():
    found = ops.match_boxes(BOXES.clone().requires_grad_(), OBJECTS.clone().requires_grad_(), NO_CROWD)
    assert not any(value.requires_grad for value in found)


def test_opcheck():
    for count, objects in ((5, 3), (0, 3), (5, 0)):
        arguments = (BOXES[:count], OBJECTS[:objects], NO_CROWD[:objects])
        torch.library.opcheck(torch.ops.aligned_rcnn.match.default, arguments)


def test_compile_whole_and_dynamic():
    torch.compiler.reset()
    compiled = torch.compile(ops.match_boxes, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (5, 3, 4):
        assert_same(compiled(BOXES[:count], OBJECTS, NO_CROWD), ops.match_boxes(BOXES[:count], OBJECTS, NO_CROWD))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0.0, 0, 1, 1]], OBJECTS, NO_CROWD), TypeError, "boxes must be a tensor; got list"),
        ((BOXES[0], OBJECTS, NO_CROWD), ValueError, r"boxes must be Tensor\[N, 4\]; got shape \(4,\)"),
        ((BOXES, OBJECTS[:, 1:], NO_CROWD), ValueError, r"objects must be Tensor\[G, 4\]; got shape \(3, 3\)"),
        ((BOXES.long(), OBJECTS, NO_CROWD), TypeError, "boxes must be of a floating dtype; got torch.int64"),
        ((BOXES, OBJECTS.int(), NO_CROWD), TypeError, "objects must be of a floating dtype; got torch.int32"),
        ((BOXES, OBJECTS, NO_CROWD.long()), TypeError, "crowd must be a bool tensor; got torch.int64"),
        ((BOXES, OBJECTS, [False] * 3), TypeError, "crowd must be a bool tensor; got list"),
        ((BOXES, OBJECTS, NO_CROWD[:2]), ValueError, r"crowd must be Tensor\[3\], one per object; got shape \(2,\)"),
        ((BOXES, OBJECTS.to("meta"), NO_CROWD), ValueError, "objects must be on the boxes' device, cpu; got meta"),
        ((BOXES, OBJECTS, NO_CROWD.to("meta")), ValueError, "crowd must be on the boxes' device, cpu; got meta"),
    ],
)
def test_malformed_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.match_boxes(*arguments)


def test_memory_does_not_grow_with_the_pairs():
    """The matrix of these would take 1.6 GB, or 12 MB eight boxes at a time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    boxes = anchors(200, 336, 4, 32.0)[:200_000]
    objects = anchors(40, 50, 16, 20.0)[:2_000]
    found = ops.match_boxes(boxes, objects, torch.zeros(2_000, dtype=torch.bool))
    assert int(found.nearest.sum()) >= 2_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB
