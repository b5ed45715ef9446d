"""CUDA kernels of the maxima, run on the host: bitwise equal to the CPU's."""

import cuda_host
import pytest
import torch
from cuda_host import DTYPES, FORMATS, SCALES, assert_same, cotangent, on_cpu, operator, pyramid
from roi_cases import hostile_boxes, random_boxes
from torch import Tensor

RULES = ["align", "align_half", "warp", "pool_round", "pool_floor"]


def check(features: list[Tensor], boxes: Tensor, levels: Tensor | None, scales: list[float], *rest: object) -> Tensor:
    """Compare forward and backward with the CPU; return the output."""
    actual, argmax = operator("maximum")(features, boxes, levels, scales, *rest)
    expected, expected_argmax = on_cpu("maximum", features, boxes, levels, scales, *rest)
    assert_same(actual, expected)
    assert_same(argmax, expected_argmax)
    like, _ = torch.ops.aligned_rcnn.maximum(features, boxes, levels, scales, *rest)
    assert actual.stride() == argmax.stride() == like.stride()
    sizes = [size for feature in features for size in feature.shape]
    arguments = (cotangent(actual), argmax, boxes, levels, sizes, scales, *rest[2:])
    expected_gradients = torch.ops.aligned_rcnn.maximum_backward(*arguments, True)
    for channels_last in (True, False):
        gradients = operator("maximum_backward")(*arguments, channels_last)
        for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
            assert_same(gradient, expected_gradient)
    return actual


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_cpu(dtype, memory_format, rule):
    for channels in (16, 5):
        features, boxes = pyramid(channels, dtype, memory_format), random_boxes(12, 2, 52, 68)
        for sampling_ratio in (2, -1):
            check(features, boxes, torch.arange(12) % 3, SCALES, 4, 3, sampling_ratio, rule)


@pytest.mark.parametrize("channels", [1, 3, 8, 31, 72, 264])
def test_any_number_of_channels(channels):
    for rule in ("align_half", "pool_round"):
        features, boxes = pyramid(channels, torch.float32, "nchw"), random_boxes(3, 2, 52, 68)
        check(features, boxes, torch.tensor([0, 1, 2]), SCALES, 2, 2, 2, rule)


@pytest.mark.parametrize("size", [(1, 1), (14, 14), (1, 70), (70, 1), (2, 65)])
def test_any_number_of_bins(size):
    features = pyramid(8, torch.float32, "channels_last")[:1]
    for rule in ("align", "pool_round"):
        check(features, random_boxes(3, 2, 52, 68), None, SCALES[:1], *size, -1, rule)


@pytest.mark.parametrize("rule", RULES)
def test_hostile_boxes(rule):
    levels = torch.randint(-1, 4, (200,), generator=torch.Generator().manual_seed(0))
    features = pyramid(4, torch.float32, "nchw")
    for sampling_ratio in (2, -1):
        check(features, hostile_boxes(200), levels, [1.0, 0.5, 0.25], 3, 2, sampling_ratio, rule)


@pytest.mark.parametrize("rule", ["align", "pool_round"])
def test_nan(rule):
    feature = torch.randn(1, 8, 9, 9)
    feature[:, ::2, 4, 4] = float("nan")
    feature[:, ::3, 2, 2] = float("inf")
    feature[:, 5] = -float("inf")
    boxes = torch.tensor([[0, 0.0, 0, 9, 9], [0, 1, 1, 4, 4], [0, 3, 3, 5, 5]])
    actual, argmax = operator("maximum")([feature], boxes, None, [1.0], 2, 2, 2, rule)
    last = feature.contiguous(memory_format=torch.channels_last)
    expected, expected_argmax = torch.ops.aligned_rcnn.maximum([last], boxes, None, [1.0], 2, 2, 2, rule)
    assert torch.equal(argmax, expected_argmax)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    assert actual.isnan().any() == (rule == "align")


def test_an_argmax_that_no_bin_can_have_reads_and_writes_nothing_else():
    arguments = (torch.tensor([[0, 0.0, 0, 9, 9]]), None, [1, 4, 9, 9], [1.0], 2)
    for rule in ("align", "pool_round"):
        argmax = torch.full((1, 4, 2, 2), 2**31 - 1, dtype=torch.int32)
        (gradient,) = operator("maximum_backward")(torch.ones(1, 4, 2, 2), argmax, *arguments, rule, True)
        assert gradient.isfinite().all()


def test_empty_inputs():
    (feature,) = pyramid(4, torch.float32, "nchw")[:1]
    for channels, images, rois in ((4, 2, 0), (4, 0, 2), (0, 2, 2)):
        maps = [feature[:images, :channels]]
        boxes = torch.zeros(rois, 5)
        output, argmax = operator("maximum")(maps, boxes, None, [1.0], 2, 3, -1, "pool_round")
        assert output.shape == argmax.shape == (rois, channels, 2, 3)
        assert (output == 0).all()
        arguments = (output, argmax, boxes, None, [*maps[0].shape], [1.0], -1, "pool_round", False)
        (gradient,) = operator("maximum_backward")(*arguments)
        assert gradient.shape == maps[0].shape
        assert (gradient == 0).all()


@pytest.mark.parametrize("rule", ["align", "pool_round"])
def test_the_order_of_threads_changes_nothing(rule):
    features, boxes = pyramid(40, torch.float32, "nchw"), random_boxes(12, 2, 52, 68)
    arguments = (features, boxes, torch.arange(12) % 3, SCALES, 7, 7, -1, rule)
    sizes = [size for feature in features for size in feature.shape]
    output, argmax = operator("maximum")(*arguments)
    backward = (cotangent(output), argmax, boxes, arguments[2], sizes, SCALES, -1, rule, False)
    gradients = operator("maximum_backward")(*backward)
    with cuda_host.reversed_threads():
        for forward, reverse in zip((output, argmax), operator("maximum")(*arguments), strict=True):
            assert torch.equal(forward, reverse)
        for gradient, reverse in zip(gradients, operator("maximum_backward")(*backward), strict=True):
            assert torch.equal(gradient, reverse)


def test_errors():
    boxes = torch.zeros(1, 5)
    for argmax in (torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 3, dtype=torch.int32)):
        arguments = (boxes, None, [1, 4, 9, 9], [1.0], 2, "align", True)
        with pytest.raises(RuntimeError, match="argmax must be int32 and of the output's shape"):
            operator("maximum_backward")(torch.ones(1, 4, 2, 2), argmax, *arguments)
