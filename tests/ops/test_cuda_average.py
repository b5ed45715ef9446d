"""The CUDA kernels of the averages, run on the host, against those of the CPU: the same bits."""

import cuda_host
import pytest
import torch
from roi_cases import hostile_boxes, random_boxes
from torch import Tensor

import ops

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
RULES = ["align", "align_half", "warp"]


def average(features: list[Tensor], *arguments: object) -> Tensor:
    cuda_host.load()
    return torch.ops.aligned_rcnn_host.average(features, *arguments)


def expected_average(features: list[Tensor], *arguments: object) -> Tensor:
    """The CPU's result channels last: in NCHW its sums run in another order."""
    # With a channel more, so that no map is both.
    last = [torch.cat((f, f[:, :1]), 1).contiguous(memory_format=torch.channels_last) for f in features]
    return torch.ops.aligned_rcnn.average(last, *arguments)[:, :-1]


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == expected.dtype
    if "portable" in ops.backend().reason:  # without fused operations the CPU rounds otherwise
        torch.testing.assert_close(actual, expected)
    else:
        assert torch.equal(actual, expected)


def pyramid(channels: int, dtype: torch.dtype, memory_format: str, images: int = 2) -> list[Tensor]:
    torch.manual_seed(channels)
    shapes = ((13, 17), (7, 9), (1, 1))
    maps = [torch.randn(images, channels, *shape).to(dtype) for shape in shapes]
    return [m.contiguous(memory_format=FORMATS[memory_format]) for m in maps]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sampling_ratio", [2, -1])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_cpu(dtype, memory_format, sampling_ratio, rule):
    for channels in (16, 5):
        features = pyramid(channels, dtype, memory_format)
        boxes = random_boxes(12, 2, 52, 68)
        levels = torch.arange(12) % 3
        arguments = (boxes, levels, [0.25, 0.125, 0.0625], 4, 3, sampling_ratio, rule)
        actual, expected = average(features, *arguments), expected_average(features, *arguments)
        assert_same(actual, expected)
        assert actual.stride() == torch.ops.aligned_rcnn.average(features, *arguments).stride()


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 31, 64, 72, 260, 264])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_any_number_of_channels(memory_format, channels):
    features = pyramid(channels, torch.float32, memory_format)
    arguments = (random_boxes(3, 2, 26, 34), torch.tensor([0, 1, 2]), [0.5, 0.25, 0.1], 2, 2, 2, "align_half")
    assert_same(average(features, *arguments), expected_average(features, *arguments))


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (14, 14), (1, 70), (70, 1), (33, 2), (2, 65)])
def test_any_number_of_bins(size):
    features = pyramid(8, torch.float32, "channels_last")[:1]
    for sampling_ratio in (1, 3, -1):
        arguments = (random_boxes(3, 2, 26, 34), None, [0.5], *size, sampling_ratio, "align")
        assert_same(average(features, *arguments), expected_average(features, *arguments))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("sampling_ratio", [2, -1])
@pytest.mark.parametrize("rule", RULES)
def test_hostile_boxes(rule, sampling_ratio, memory_format):
    features = pyramid(4, torch.float32, memory_format)
    boxes = hostile_boxes(200)
    levels = torch.randint(-1, 4, (200,), generator=torch.Generator().manual_seed(0))
    arguments = (boxes, levels, [1.0, 0.5, 0.25], 3, 2, sampling_ratio, rule)
    assert_same(average(features, *arguments), expected_average(features, *arguments))


def test_more_weights_than_shared_memory_holds():
    """Adaptive sampling of RoIs thousands of cells long; and as many samples as may be asked for."""
    boxes = torch.tensor([[0, -20.0, 0, 6050, 1], [0, 6000.0, 0.2, 30, 0.9], [0, 5.0, 0, 700, 1]])
    wide = torch.randn(1, 4, 1, 6000).to(memory_format=torch.channels_last)
    tall = wide.transpose(2, 3).to(memory_format=torch.channels_last)
    for sampling_ratio, rule in ((-1, "align"), (5000, "align_half")):
        arguments = (None, [1.0], 2, 2, sampling_ratio, rule)
        assert_same(average([wide], boxes, *arguments), expected_average([wide], boxes, *arguments))
        turned = boxes[:, [0, 2, 1, 4, 3]]
        assert_same(average([tall], turned, *arguments), expected_average([tall], turned, *arguments))


def test_maps_off_the_vectors_alignment():
    storage = torch.randn(1 + 2 * 13 * 17 * 8)
    view = storage[1:].view(2, 13, 17, 8).permute(0, 3, 1, 2)
    arguments = (random_boxes(5, 2, 13, 17), None, [1.0], 3, 3, 2, "align")
    assert_same(average([view], *arguments), expected_average([view], *arguments))


def test_strided_and_expanded_maps():
    base = torch.randn(2, 6, 13, 34)
    arguments = (random_boxes(5, 2, 13, 17), None, [1.0], 3, 3, 2, "align")
    for view in (base[..., ::2], base[:, :1, :, ::2].expand(2, 6, 13, 17), base.flip(0)[..., 1::2]):
        assert_same(average([view], *arguments), expected_average([view], *arguments))


def test_nothing_to_do():
    features = pyramid(4, torch.float32, "nchw")[:1]
    for memory_format in FORMATS.values():
        maps = [features[0].contiguous(memory_format=memory_format)]
        assert average(maps, torch.zeros(0, 5), None, [1.0], 2, 3, 2, "align").shape == (0, 4, 2, 3)
        none = [maps[0][:0].contiguous(memory_format=memory_format)]
        assert (average(none, torch.zeros(2, 5), None, [1.0], 2, 3, 2, "align") == 0).all()
        assert average([maps[0][:, :0]], torch.zeros(2, 5), None, [1.0], 2, 3, 2, "align").shape == (2, 0, 2, 3)


def test_the_order_of_threads_changes_nothing():
    features = pyramid(40, torch.float32, "nchw")
    arguments = (random_boxes(12, 2, 52, 68), torch.arange(12) % 3, [0.25, 0.125, 0.0625], 7, 7, -1, "align")
    forwards = average(features, *arguments)
    cuda_host.reverse_threads(True)
    try:
        assert torch.equal(average(features, *arguments), forwards)
    finally:
        cuda_host.reverse_threads(False)


def test_errors():
    features = pyramid(4, torch.float32, "nchw")
    arguments = (torch.zeros(1, 5), None, [1.0] * 33, 2, 2, 2, "align")
    with pytest.raises(RuntimeError, match="at most 32 levels on CUDA; got 33"):
        average(features[:1] * 33, *arguments)
