"""Pyramids: level assignment, and pooling from all levels in one call."""

import pytest
import torch
from roi_cases import FORMATS, random_boxes
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

import ops
from ops import native

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def pyramid(channels: int = 20, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, channels, 256 // s, 320 // s, dtype=dtype) for s in (4, 8, 16, 32)]


def test_levels_follow_the_papers_formula():
    sides = torch.tensor([10.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 5000.0])
    boxes = torch.stack((torch.zeros(8), torch.zeros(8), torch.zeros(8), sides, sides), 1)
    assert ops.assign_levels(boxes, SCALES).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert ops.assign_levels(boxes, SCALES, canonical_size=56).tolist() == [0, 2, 3, 3, 3, 3, 3, 3]
    assert ops.assign_levels(boxes, SCALES, canonical_level=3).tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    assert ops.assign_levels(boxes, SCALES, rounding="round").tolist() == [0, 1, 1, 2, 2, 3, 3, 3]
    assert ops.assign_levels(boxes, SCALES[1:3]).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("scales", [SCALES, SCALES[::-1]], ids=["fine first", "coarse first"])
def test_levels_equal_torchvisions(scales):
    boxes = random_boxes(3000, 2, 900, 1200, dtype=torch.float32)
    boxes = boxes[(boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])]
    expected = LevelMapper(2, 5)([boxes[:, 1:]])
    assert len(expected.unique()) == 4
    actual = ops.assign_levels(boxes, scales)
    assert actual.dtype == torch.int64
    assert torch.equal(actual, expected if scales is SCALES else 3 - expected)
    per_image = [boxes[boxes[:, 0] == i, 1:] for i in range(2)]
    assert torch.equal(ops.assign_levels(per_image, SCALES), LevelMapper(2, 5)(per_image))


def test_boxes_without_an_area_are_on_the_finest_level():
    nan, inf = float("nan"), float("inf")
    strange = [[0, 5, 5, 5, 9], [0, 5, 5, 2, 9], [0, nan, 1, 2, 3], [0, 0, 0, inf, 0], [0, 0, 0, inf, inf]]
    assert ops.assign_levels(torch.tensor(strange), SCALES).tolist() == [0, 0, 0, 0, 3]
    assert ops.assign_levels(torch.zeros(0, 5), SCALES).shape == (0,)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
def test_multiscale_align_equals_torchvision(memory_format):
    features = [f.contiguous(memory_format=memory_format) for f in pyramid()]
    boxes = random_boxes(150, 2, 256, 320, dtype=torch.float32)
    ordered = torch.cat([boxes[boxes[:, 0] == i] for i in range(2)])
    per_image = [ordered[ordered[:, 0] == i, 1:] for i in range(2)]
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2, canonical_scale=60)
    expected = pooler(dict(zip("0123", features, strict=True)), per_image, [(256, 320)] * 2)
    levels = ops.assign_levels(ordered, SCALES, canonical_size=60)
    assert len(levels.unique()) == 4
    for rois in (ordered, per_image):
        actual = ops.multiscale_roi_align(features, rois, 7, SCALES, 2, levels=levels)
        torch.testing.assert_close(actual, expected)
        assert actual.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("implementation", ["compiled", "pure"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
def test_multiscale_is_each_level_alone(memory_format, implementation, monkeypatch):
    if implementation == "pure":
        monkeypatch.setattr(native, "available", lambda device: False)
    features = [f.contiguous(memory_format=memory_format) for f in pyramid(6, torch.float64)]
    boxes = random_boxes(60, 2, 256, 320)
    levels = torch.arange(60, dtype=torch.int32) % 6 - 1  # -1 and 4 do not exist
    for multiscale, single in (
        (ops.multiscale_roi_align, ops.roi_align),
        (lambda *a, **k: ops.multiscale_roi_align(*a, aligned=True, mode="max", **k),
         lambda *a: ops.roi_align(*a, aligned=True, mode="max")),
        (ops.multiscale_roi_pool, ops.roi_pool),
        (ops.multiscale_roi_warp, ops.roi_warp),
        (ops.multiscale_ps_roi_align, ops.ps_roi_align),
        (ops.multiscale_ps_roi_pool, ops.ps_roi_pool),
        (lambda *a, **k: ops.multiscale_ps_roi_pool(*a, quantization="rfcn", **k),
         lambda *a: ops.ps_roi_pool(*a, quantization="rfcn")),
        (ops.multiscale_roi_crop, ops.roi_crop),
        (ops.multiscale_crop_and_resize, ops.crop_and_resize),
    ):  # fmt: skip
        leaves = [f.clone().requires_grad_() for f in features]
        output = multiscale(leaves, boxes, (3, 2), SCALES, levels=levels)
        assert (output[(levels < 0) | (levels > 3)] == 0).all()
        cotangent = torch.randn_like(output)
        gradients = torch.autograd.grad(output, leaves, cotangent)
        for i, feature in enumerate(features):
            leaf = feature.clone().requires_grad_()
            expected = single(leaf, boxes[levels == i], (3, 2), SCALES[i])
            (expected_gradient,) = torch.autograd.grad(expected, leaf, cotangent[levels == i])
            torch.testing.assert_close(output[levels == i], expected, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(gradients[i], expected_gradient, rtol=1e-12, atol=1e-12)


def test_levels_default_to_assign_levels():
    features = pyramid()
    boxes = random_boxes(80, 2, 1000, 1000, dtype=torch.float32)
    expected = ops.multiscale_roi_align(features, boxes, 2, SCALES, levels=ops.assign_levels(boxes, SCALES))
    assert torch.equal(ops.multiscale_roi_align(features, boxes, 2, SCALES), expected)


def test_levels_of_mixed_memory_formats():
    features = pyramid()
    features[1] = features[1].contiguous(memory_format=torch.channels_last)
    boxes = random_boxes(40, 2, 256, 320, dtype=torch.float32)
    levels = torch.arange(40) % 4
    output = ops.multiscale_roi_align(features, boxes, 3, SCALES, levels=levels)
    torch.testing.assert_close(output[levels == 1], ops.roi_align(features[1], boxes[levels == 1], 3, SCALES[1]))


def test_only_some_levels_need_gradients():
    features = pyramid(3)
    features[2].requires_grad_()
    boxes = random_boxes(40, 2, 256, 320, dtype=torch.float32)
    levels = torch.arange(40) % 4
    ops.multiscale_roi_align(features, boxes, 3, SCALES, levels=levels).sum().backward()
    (expected,) = torch.autograd.grad(ops.roi_align(features[2], boxes[levels == 2], 3, SCALES[2]).sum(), features[2])
    torch.testing.assert_close(features[2].grad, expected)
    assert features[0].grad is None
