"""CUDA kernels of the averages, run on the host: bitwise equal to the CPU's."""

import cuda_host
import pytest
import torch
from cuda_host import DTYPES, FORMATS, SCALES, assert_same, cotangent, on_cpu, operator, pyramid
from roi_cases import hostile_boxes, random_boxes
from torch import Tensor

RULES = ["align", "align_half", "warp"]


def check(features: list[Tensor], boxes: Tensor, levels: Tensor | None, scales: list[float], *rest: object) -> Tensor:
    """Compare forward and backward with the CPU; return the output."""
    actual = operator("average")(features, boxes, levels, scales, *rest)
    (expected,) = on_cpu("average", features, boxes, levels, scales, *rest)
    assert_same(actual, expected)
    assert actual.stride() == torch.ops.aligned_rcnn.average(features, boxes, levels, scales, *rest).stride()
    sizes = [size for feature in features for size in feature.shape]
    arguments = (cotangent(actual), boxes, levels, sizes, scales, *rest[2:])
    expected_gradients = torch.ops.aligned_rcnn.average_backward(*arguments, True)
    for channels_last in (True, False):
        gradients = operator("average_backward")(*arguments, channels_last)
        likes = torch.ops.aligned_rcnn.average_backward(*arguments, channels_last)
        for gradient, expected_gradient, like in zip(gradients, expected_gradients, likes, strict=True):
            assert_same(gradient, expected_gradient)
            assert gradient.stride() == like.stride()
    return actual


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sampling_ratio", [2, -1])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_cpu(dtype, memory_format, sampling_ratio, rule):
    for channels in (16, 5):
        features, boxes = pyramid(channels, dtype, memory_format), random_boxes(12, 2, 52, 68)
        output = check(features, boxes, torch.arange(12) % 3, SCALES, 4, 3, sampling_ratio, rule)
        assert output.count_nonzero() > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 31, 64, 72, 260, 264])
def test_any_number_of_channels(channels):
    for memory_format in FORMATS:
        features, boxes = pyramid(channels, torch.float32, memory_format), random_boxes(3, 2, 52, 68)
        check(features, boxes, torch.tensor([0, 1, 2]), SCALES, 2, 2, 2, "align_half")


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (14, 14), (1, 70), (70, 1), (33, 2), (2, 65)])
def test_any_number_of_bins(size):
    features = pyramid(8, torch.float32, "channels_last")[:1]
    for sampling_ratio in (1, 3, -1):
        check(features, random_boxes(3, 2, 52, 68), None, SCALES[:1], *size, sampling_ratio, "align")


@pytest.mark.parametrize("sampling_ratio", [2, -1])
@pytest.mark.parametrize("rule", RULES)
def test_hostile_boxes(rule, sampling_ratio):
    levels = torch.randint(-1, 4, (200,), generator=torch.Generator().manual_seed(0))
    for memory_format in FORMATS:
        features = pyramid(4, torch.float32, memory_format)
        check(features, hostile_boxes(200), levels, [1.0, 0.5, 0.25], 3, 2, sampling_ratio, rule)


def test_more_weights_than_shared_memory_holds():
    """Adaptive sampling of RoIs thousands of cells long, and the largest sampling ratio."""
    boxes = torch.tensor([[0, -20.0, 0, 6050, 1], [0, 6000.0, 0.2, 30, 0.9], [0, 5.0, 0, 700, 1]])
    wide = torch.randn(1, 4, 1, 6000).to(memory_format=torch.channels_last)
    tall = wide.transpose(2, 3).to(memory_format=torch.channels_last)
    for sampling_ratio, rule in ((-1, "align"), (5000, "align_half")):
        check([wide], boxes, None, [1.0], 2, 2, sampling_ratio, rule)
        check([tall], boxes[:, [0, 2, 1, 4, 3]], None, [1.0], 2, 2, sampling_ratio, rule)


def test_more_rois_than_are_listed_at_once():
    features = pyramid(4, torch.float32, "channels_last", images=1)[:2]
    boxes = random_boxes(2500, 1, 52, 68)
    check(features, boxes, torch.arange(2500) % 2, SCALES[:2], 2, 2, 1, "align")


@pytest.mark.parametrize("count", [40, 300, 2000])
def test_a_map_of_many_tiles_and_rois(count):
    """Where a bit for each RoI and tile would take too much memory, tiles are grouped."""
    features = [torch.randn(2, 1, 70, 90), torch.randn(2, 1, 35, 45)]
    tiles, words = 2 * (9 * 12 + 5 * 6), (count + 31) // 32
    assert tiles * words * 4 > cuda_host.BINNING_BYTES
    check(features, random_boxes(count, 2, 70, 90), torch.arange(count) % 2, [1.0, 0.5], 2, 2, 1, "align")


def test_maps_and_gradients_off_the_vectors_alignment():
    view = torch.randn(1 + 2 * 13 * 17 * 8)[1:].view(2, 13, 17, 8).permute(0, 3, 1, 2)
    boxes = random_boxes(5, 2, 13, 17)
    check([view], boxes, None, [1.0], 3, 3, 2, "align")
    arguments = (boxes, None, list(view.shape), [1.0], 2, "align", True)
    grad = torch.randn(1 + 5 * 3 * 3 * 8)[1:].view(5, 3, 3, 8).permute(0, 3, 1, 2)
    (actual,) = operator("average_backward")(grad, *arguments)
    (expected,) = torch.ops.aligned_rcnn.average_backward(grad, *arguments)
    assert_same(actual, expected)


def test_strided_and_expanded_maps_and_gradients():
    base, boxes = torch.randn(2, 6, 13, 34), random_boxes(5, 2, 13, 17)
    for view in (base[..., ::2], base[:, :1, :, ::2].expand(2, 6, 13, 17), base.flip(0)[..., 1::2]):
        check([view], boxes, None, [1.0], 3, 3, 2, "align")
    for grad in (torch.ones(()).expand(5, 6, 3, 3), torch.randn(3, 6, 3, 5).permute(3, 1, 0, 2)):
        arguments = (grad, boxes, None, [2, 6, 13, 17], [1.0], 2, "align", True)
        (actual,) = operator("average_backward")(*arguments)
        (expected,) = torch.ops.aligned_rcnn.average_backward(*arguments)
        assert_same(actual, expected)


def test_infinity_does_not_reach_cells_of_weight_0():
    """Infinite features and gradients reach no cell or bin whose weight is 0."""
    feature = torch.ones(1, 4, 9, 9)
    feature[:, :, 4, 4] = float("inf")
    boxes = torch.tensor([[0, 0.0, 0, 3, 3], [0, 5, 5, 9, 9], [0, 3, 3, 6, 6]])
    output = check([feature], boxes, None, [1.0], 2, 2, 2, "align_half")
    assert output[:2].isfinite().all()
    grad = torch.zeros(3, 4, 2, 2)
    grad[0, :, 1, 1] = float("nan")
    (gradient,) = operator("average_backward")(grad, boxes, None, [1, 4, 9, 9], [1.0], 2, "align_half", True)
    assert gradient[:, :, 1:4, 1:4].isnan().all()
    assert gradient.isnan().sum() == 4 * 9


def test_empty_inputs():
    for memory_format in FORMATS:
        (feature,) = pyramid(4, torch.float32, memory_format)[:1]
        for channels, images, rois in ((4, 2, 0), (4, 0, 2), (0, 2, 2)):
            maps = [feature[:images, :channels].contiguous(memory_format=FORMATS[memory_format])]
            output = operator("average")(maps, torch.zeros(rois, 5), None, [1.0], 2, 3, 2, "align")
            assert output.shape == (rois, channels, 2, 3)
            assert (output == 0).all()
            arguments = (output, torch.zeros(rois, 5), None, [*maps[0].shape], [1.0], 2, "align", True)
            (gradient,) = operator("average_backward")(*arguments)
            assert gradient.shape == maps[0].shape
            assert (gradient == 0).all()


@pytest.mark.parametrize("rule", ["align", "warp", "ps_pool", "ps_pool_rfcn"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_position_sensitive(dtype, rule):
    for channels, height, width in ((24, 3, 2), (7, 1, 7), (9, 3, 3)):
        for memory_format in FORMATS:
            features, boxes = pyramid(channels, dtype, memory_format), random_boxes(9, 2, 52, 68)
            levels = torch.arange(9) % 4
            rest = (height, width, -1, rule)
            actual = operator("ps_average")(features, boxes, levels, SCALES, *rest)
            expected = torch.ops.aligned_rcnn.ps_average(features, boxes, levels, SCALES, *rest)
            assert_same(actual, expected)
            assert actual.stride() == expected.stride()
            sizes = [size for feature in features for size in feature.shape]
            last = memory_format == "channels_last"
            arguments = (cotangent(actual), boxes, levels, sizes, SCALES, -1, rule, last)
            gradients = operator("ps_average_backward")(*arguments)
            for gradient, like in zip(gradients, torch.ops.aligned_rcnn.ps_average_backward(*arguments), strict=True):
                assert_same(gradient, like)
                assert gradient.stride() == like.stride()


def test_position_sensitive_with_more_bins_than_a_word_has_bits():
    features, boxes = [torch.randn(1, 2 * 40, 11, 9)], random_boxes(6, 1, 11, 9)
    for size in ((40, 1), (1, 40)):
        actual = operator("ps_average")(features, boxes, None, [1.0], *size, 2, "align")
        assert_same(actual, torch.ops.aligned_rcnn.ps_average(features, boxes, None, [1.0], *size, 2, "align"))
        arguments = (cotangent(actual), boxes, None, [1, 80, 11, 9], [1.0], 2, "align", True)
        (gradient,) = operator("ps_average_backward")(*arguments)
        assert_same(gradient, torch.ops.aligned_rcnn.ps_average_backward(*arguments)[0])


def test_the_order_of_threads_changes_nothing():
    features, boxes = pyramid(40, torch.float32, "nchw"), random_boxes(12, 2, 52, 68)
    levels = torch.arange(12) % 3
    arguments = (features, boxes, levels, SCALES, 7, 7, -1, "align")
    sizes = [size for feature in features for size in feature.shape]
    forwards = operator("average")(*arguments)
    backward = (cotangent(forwards), boxes, levels, sizes, SCALES, -1, "align", False)
    gradients = operator("average_backward")(*backward)
    with cuda_host.reversed_threads():
        assert torch.equal(operator("average")(*arguments), forwards)
        for gradient, reverse in zip(gradients, operator("average_backward")(*backward), strict=True):
            assert torch.equal(gradient, reverse)


def test_errors():
    (feature,) = pyramid(4, torch.float32, "nchw")[:1]
    boxes = torch.zeros(1, 5)
    with pytest.raises(RuntimeError, match="at most 32 levels on CUDA; got 33"):
        operator("average")([feature] * 33, boxes, None, [1.0] * 33, 2, 2, 2, "align")
    arguments = ([*feature.shape] * 33, [1.0] * 33, 2, "align", True)
    with pytest.raises(RuntimeError, match="at most 32 levels on CUDA; got 33"):
        operator("average_backward")(torch.ones(1, 4, 2, 2), boxes, None, *arguments)
    with pytest.raises(RuntimeError, match="channels must be a multiple of the number of bins"):
        operator("ps_average")([feature], boxes, None, [1.0], 3, 3, 2, "align")
