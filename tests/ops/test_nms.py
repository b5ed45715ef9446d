"""Non-maximum suppression: by hand, equal to torchvision's, and the edges."""

import pytest
import torch
import torch._dynamo.testing
import torchvision

import ops
from ops import native

BOXES = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],
        [0.0, 0.0, 10.0, 8.0],  # IoU 0.8 with box 0
        [0.0, 0.0, 10.0, 6.0],  # 0.6 with box 0, 0.75 with box 1
        [50.0, 50.0, 60.0, 60.0],  # alone
    ]
)
SCORES = torch.tensor([0.6, 0.9, 0.5, 0.7])
ONE_GROUP = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.7, [1, 3]), (0.75, [1, 3, 2]), (0.81, [1, 3, 0, 2]), (0.1, [1, 3])]
)
def test_by_hand(threshold, expected):
    assert ops.batched_nms(BOXES, SCORES, ONE_GROUP, threshold).tolist() == expected


def test_groups_do_not_suppress_each_other():
    assert ops.batched_nms(BOXES, SCORES, torch.tensor([0, 1, 0, 0]), 0.5).tolist() == [1, 3, 0]
    shifted = BOXES - 100  # also where coordinates are negative
    assert ops.batched_nms(shifted, SCORES, torch.tensor([0, 1, 0, 0]), 0.5).tolist() == [1, 3, 0]


def test_topk_are_the_first_of_all():
    boxes, scores, idxs = case(0, torch.float32)
    every = ops.batched_nms(boxes, scores, idxs, 0.5)
    for topk in (0, 1, 7, len(every), len(every) + 1):
        assert ops.batched_nms(boxes, scores, idxs, 0.5, topk).tolist() == every[:topk].tolist()


def test_equal_scores_keep_the_first():
    assert ops.batched_nms(BOXES, torch.ones(4), ONE_GROUP, 0.1).tolist() == [0, 3]


def case(seed, dtype):
    """Draw up to 1,500 boxes, most in clusters, with equal scores, equal boxes and IoUs that are simple fractions."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    count, groups, extent = number(0, 1500), number(1, 12), 2.0 ** number(4, 11)
    side = extent / 4 * torch.rand(count, 2, generator=generator)
    corner = extent * torch.rand(count, 2, generator=generator)
    if count and seed % 2:  # near duplicates
        near = torch.randint(count, (count,), generator=generator)
        corner, side = corner[near] + torch.rand(count, 2, generator=generator), side[near]
    boxes = torch.cat((corner, corner + side), 1)
    if seed % 3 == 0:
        boxes = boxes.round()
    scores = torch.rand(count, generator=generator)
    if seed % 5 == 0:
        scores = (scores * 10).round() / 10
    return boxes.to(dtype), scores.to(dtype), torch.randint(groups, (count,), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_torchvision(dtype):
    suppressed = 0
    for seed in range(120):
        boxes, scores, idxs = case(seed, dtype)
        threshold = (0.3, 0.5, 0.7, 1 / 3)[seed % 4]
        expected = torchvision.ops.batched_nms(boxes, scores, idxs, threshold).sort().values
        expected = expected[scores[expected].argsort(stable=True, descending=True)]  # its sort of many is not stable
        assert ops.batched_nms(boxes, scores, idxs, threshold).tolist() == expected.tolist(), seed
        suppressed += len(boxes) - len(expected)
    assert suppressed > 10_000


def test_sixteen_bits_are_computed_in_float32():
    boxes, scores, idxs = case(1, torch.bfloat16)
    expected = ops.batched_nms(boxes.float(), scores, idxs, 0.5)
    assert ops.batched_nms(boxes, scores, idxs, 0.5).tolist() == expected.tolist()


NAN, INF = float("nan"), float("inf")
ODD = torch.tensor(
    [
        [5.0, 5, 5, 9],  # empty, twice
        [5, 5, 5, 9],
        [8, 8, 2, 2],  # inverted
        [NAN, 0, 9, 9],
        [0, 0, INF, 9],
        [20, 0, 30, 10],  # twice
        [20, 0, 30, 10],
    ]
)


@pytest.mark.parametrize("copies", [1, 300])
def test_odd_boxes_suppress_nothing_and_spoil_nothing(copies):
    """Also among more boxes than torchvision moves apart; each copy is a group."""
    boxes, idxs = ODD.repeat(copies, 1), torch.arange(copies).repeat_interleave(len(ODD))
    found = ops.batched_nms(boxes, torch.arange(len(boxes), 0.0, -1), idxs, 0.5)
    assert found.tolist() == [i for i in range(len(boxes)) if i % len(ODD) != 6]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 999, 1000, 1001, 1500])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_equals_torchvision_at_the_edges(count, threshold):
    generator = torch.Generator().manual_seed(count)
    corner = 300 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat((corner, corner + 50), 1).T.contiguous().T  # strided
    scores = torch.randperm(count, generator=generator).float()
    idxs = torch.randint(5, (count,), generator=generator)
    expected = torchvision.ops.batched_nms(boxes, scores, idxs, threshold)
    assert ops.batched_nms(boxes, scores, idxs, threshold).tolist() == expected.tolist()
    assert ops.batched_nms(boxes, scores, idxs.int(), threshold, 9).tolist() == expected[:9].tolist()


def test_groups_may_have_any_number():
    idxs = torch.tensor([-(2**63), 2**63 - 1, -1, -1])
    boxes = BOXES[[0, 0, 0, 0]].repeat(300, 1)
    found = ops.batched_nms(boxes, torch.ones(1200), idxs.repeat(300), 0.5)
    assert found.tolist() == [0, 1, 2]


def test_without_a_compiler(monkeypatch):
    for seed in (1, 2, 3, 5):
        boxes, scores, idxs = case(seed, torch.float32)
        expected = ops.batched_nms(boxes, scores, idxs, 0.5, 50)
        with monkeypatch.context() as patch:
            patch.setattr(native, "available", lambda device: False)
            assert ops.batched_nms(boxes, scores, idxs, 0.5, 50).tolist() == expected.tolist()


def test_compiles_once_for_any_number_of_boxes():
    counted = torch._dynamo.testing.CompileCounter()

    @torch.compile(backend=counted, fullgraph=True, dynamic=True)
    def best(boxes, scores, idxs):
        return ops.batched_nms(boxes, scores, idxs, 0.5)

    for count in (50, 70, 90):
        boxes = torch.rand(count, 2).repeat(1, 2) + torch.tensor([0.0, 0, 1, 1])
        scores, idxs = torch.rand(count), torch.arange(count) % 3
        assert best(boxes, scores, idxs).tolist() == ops.batched_nms(boxes, scores, idxs, 0.5).tolist()
    assert counted.frame_count == 1


def test_exports_with_any_number_of_boxes():
    class Best(torch.nn.Module):
        def forward(self, boxes, scores, idxs):
            return ops.batched_nms(boxes, scores, idxs, 0.5)

    def inputs(count):
        corner = 30 * torch.rand(count, 2)
        return torch.cat((corner, corner + 9), 1), torch.rand(count), torch.arange(count) % 3

    count = torch.export.Dim("count", min=2, max=900)
    exported = torch.export.export(Best(), inputs(50), dynamic_shapes=({0: count},) * 3).module()
    for given in (inputs(50), inputs(333)):
        assert exported(*given).tolist() == ops.batched_nms(*given, 0.5).tolist()


def test_nothing():
    none = ops.batched_nms(BOXES[:0], SCORES[:0], ONE_GROUP[:0], 0.5)
    assert none.shape == (0,)
    assert none.dtype == torch.int64


def test_no_gradient():
    boxes = BOXES.clone().requires_grad_()
    assert not ops.batched_nms(boxes, SCORES.requires_grad_(), ONE_GROUP, 0.5).requires_grad
    SCORES.requires_grad_(False)


def test_fake_kernel():
    arguments = (BOXES, torch.arange(4), ONE_GROUP, 0.5, 4)
    torch.library.opcheck(torch.ops.aligned_rcnn.nms.default, arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((BOXES[:, :3], SCORES, ONE_GROUP), ValueError, r"boxes must be Tensor\[N, 4\]; got shape \(4, 3\)"),
        ((BOXES, SCORES[:3], ONE_GROUP), ValueError, r"scores must be Tensor\[4\], one per box; got shape \(3,\)"),
        ((BOXES, SCORES, ONE_GROUP.float()), TypeError, "idxs must be of an integer dtype; got torch.float32"),
        ((BOXES, [1.0] * 4, ONE_GROUP), TypeError, "scores must be a tensor; got list"),
        ((BOXES.long(), SCORES, ONE_GROUP), TypeError, "boxes must be of a floating dtype; got torch.int64"),
    ],
)
def test_malformed_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.batched_nms(*arguments, 0.5)


@pytest.mark.parametrize(
    ("threshold", "topk", "error", "message"),
    [
        (0.5, -1, ValueError, "topk must be at least 0, or None for all; got -1"),
        (0.5, 2.5, TypeError, "topk must be a whole number, or None for all; got 2.5"),
        ("0.5", 1, TypeError, "iou_threshold must be a number; got '0.5'"),
        (NAN, 1, ValueError, "iou_threshold must be a number; got NaN"),
    ],
)
def test_malformed_numbers(threshold, topk, error, message):
    with pytest.raises(error, match=message):
        ops.batched_nms(BOXES, SCORES, ONE_GROUP, threshold, topk)


def test_malformed_order_is_refused_by_the_operator():
    with pytest.raises(RuntimeError, match="order must index the boxes"):
        torch.ops.aligned_rcnn.nms(BOXES, torch.arange(4) + 1, ONE_GROUP, 0.5, 4)
