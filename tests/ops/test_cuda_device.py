"""The operators on a GPU: equal to the CPU's, without synchronisation, under streams, graphs and torch.compile."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cuda_host import DTYPES, FORMATS, SCALES, assert_same, cotangent, on_cpu, pyramid
from match_cases import assert_same as assert_same_matches
from match_cases import pyramid_case, random_case, reference
from rank_cases import MEASURES
from rank_cases import assert_same as assert_same_ranks
from rank_cases import random_case as random_tiny_case
from roi_cases import CASES, PS, SOME, Case, hostile_boxes, random_boxes, value_and_gradient
from torch import Tensor

import ops
from ops import compile_cuda, ranking

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

KERNELS = [case for case in CASES if not case.name.startswith("crop")]
"""The cases with CUDA kernels of their own."""


def on_gpu(case: Case) -> Callable[..., Tensor]:
    """Run the case on the GPU, with arguments and results on the CPU."""

    def run(input: Tensor, boxes: Tensor, *rest: object) -> Tensor:
        return case.run(input.cuda(), boxes.cuda(), *rest).cpu()

    return run


def check(case: Case, input: Tensor, *arguments: object) -> None:
    """Values and gradients are equal within rounding; in NCHW the order of summation differs."""
    actual, gradient = value_and_gradient(on_gpu(case), input, *arguments)
    expected, expected_gradient = value_and_gradient(case.run, input, *arguments)
    assert actual.stride() == expected.stride()
    assert gradient.stride() == expected_gradient.stride()
    torch.testing.assert_close(actual, expected)
    tolerance = {} if input.dtype != torch.float32 else {"rtol": 1e-5, "atol": 2e-5}
    torch.testing.assert_close(gradient, expected_gradient, **tolerance)


def channels_for(case: Case, bins: int) -> int:
    return 2 * bins if case.own_channels else 16


def test_the_backend_is_cuda():
    assert ops.backend().name == "cuda", ops.backend()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_cpu(dtype, memory_format, case: Case):
    torch.manual_seed(0)
    input = torch.randn(2, channels_for(case, 12), 25, 33).to(dtype)
    boxes = random_boxes(40, 2, 100, 132, dtype=torch.float32)
    check(case, input.contiguous(memory_format=FORMATS[memory_format]), boxes, (4, 3), 0.25)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_averages_and_maxima_are_the_cpus_bits(dtype):
    """Channels last, where the order of summation is the same on all devices."""
    features, boxes = pyramid(40, dtype, "channels_last"), random_boxes(30, 2, 52, 68)
    levels = torch.arange(30) % 4
    given = [feature.cuda() for feature in features], boxes.cuda(), levels.cuda()
    sizes = [size for feature in features for size in feature.shape]
    for rule in ("align", "align_half", "warp"):
        for sampling_ratio in (2, -1):
            rest = (SCALES, 7, 7, sampling_ratio, rule)
            actual = torch.ops.aligned_rcnn.average(*given, *rest).cpu()
            assert_same(actual, on_cpu("average", features, boxes, levels, *rest)[0])
            backward = (sizes, SCALES, sampling_ratio, rule, True)
            grad = cotangent(actual)
            gradients = torch.ops.aligned_rcnn.average_backward(grad.cuda(), *given[1:], *backward)
            expected = torch.ops.aligned_rcnn.average_backward(grad, boxes, levels, *backward)
            for mine, theirs in zip(gradients, expected, strict=True):
                assert_same(mine.cpu(), theirs)
    for rule in ("align", "warp", "pool_round", "pool_floor"):
        rest = (SCALES, 7, 7, 2, rule)
        actual, argmax = torch.ops.aligned_rcnn.maximum(*given, *rest)
        expected_values = on_cpu("maximum", features, boxes, levels, *rest)
        assert_same(actual.cpu(), expected_values[0])
        assert_same(argmax.cpu(), expected_values[1])


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("case", SOME + PS, ids=str)
def test_any_size(case: Case, memory_format):
    boxes = random_boxes(9, 2, 10, 10, dtype=torch.float32)
    for channels in (1, 2, 7, 16, 33, 80, 264):
        for height, width in ((1, 1), (1, 9), (17, 1), (6, 35)):
            count = 6 * channels if case.own_channels else channels
            input = torch.randn(2, count, height, width).contiguous(memory_format=FORMATS[memory_format])
            check(case, input, boxes, (2, 3), 1.0)
    for rois, images in ((0, 2), (3, 0)):
        check(case, torch.randn(images, 12, 5, 5), boxes[:rois], (2, 3), 1.0)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_hostile_boxes(case: Case, memory_format):
    input = torch.rand(2, channels_for(case, 6), 8, 12).contiguous(memory_format=FORMATS[memory_format])
    output, gradient = value_and_gradient(on_gpu(case), input, hostile_boxes(2000), (3, 2), 1.0)
    expected, expected_gradient = value_and_gradient(case.run, input, hostile_boxes(2000), (3, 2), 1.0)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("case", KERNELS, ids=str)
def test_gradients_of_any_strides(case: Case):
    input = torch.randn(2, channels_for(case, 6), 9, 12, device="cuda", requires_grad=True)
    boxes = random_boxes(12, 2, 9, 12, dtype=torch.float32).cuda()
    output = case.run(input, boxes, (3, 2), 1.0)
    whole = torch.randn(*output.shape[:3], 4, device="cuda")
    for grad in (whole[..., ::2], torch.ones((), device="cuda").expand(output.shape)):
        (actual,) = torch.autograd.grad(output, input, grad, retain_graph=True)
        (expected,) = torch.autograd.grad(output, input, grad.contiguous(), retain_graph=True)
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("case", KERNELS, ids=str)
def test_repeated_runs_are_the_same_bits(case: Case):
    torch.use_deterministic_algorithms(True)
    try:
        input = torch.randn(2, channels_for(case, 49), 50, 68).contiguous(memory_format=torch.channels_last)
        boxes = random_boxes(2000, 2, 200, 272, dtype=torch.float32)
        first = value_and_gradient(on_gpu(case), input, boxes, (7, 7), 0.25)
        for _ in range(3):
            again = value_and_gradient(on_gpu(case), input, boxes, (7, 7), 0.25)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


def matched_on_gpu(*arguments: Tensor) -> ops.BoxMatches:
    return ops.BoxMatches(*(value.cpu() for value in ops.match_boxes(*(a.cuda() for a in arguments))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_are_the_cpus_bits(dtype):
    for seed in range(60):
        case = random_case(seed, dtype)
        assert_same_matches(matched_on_gpu(*case), reference(*case))
    expected = ops.match_boxes(*pyramid_case())
    for _ in range(5):
        assert_same_matches(matched_on_gpu(*pyramid_case()), expected)


def test_matching_in_a_graph_without_waiting():
    given = [tensor.cuda() for tensor in pyramid_case()]
    ops.match_boxes(*given)  # loads kernels
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.match_boxes(*given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with torch.cuda.graph(graph):
        found = ops.match_boxes(*given)
    for shift in (3.0, 40.0):
        given[1].add_(shift)
        graph.replay()
        assert_same_matches(found, ops.match_boxes(*given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("distance", MEASURES)
def test_ranks_of_the_same_gaussians_are_the_cpus_bits(distance, dtype):
    """Of the same Gaussians, since the logarithm in them may differ in the last bit."""
    for seed in range(60):
        boxes, objects, crowd = random_tiny_case(seed, dtype)
        given = (ranking.gaussians(boxes), ranking.gaussians(objects), crowd)
        rank = torch.ops.aligned_rcnn.rank
        found = rank(*(tensor.cuda() for tensor in given), distance, 1 + seed % 5)
        expected = rank(*given, distance, 1 + seed % 5)
        assert_same_ranks(ops.BoxRanks(*(value.cpu() for value in found)), ops.BoxRanks(*expected))


def test_ranking_in_a_graph_without_waiting():
    given = [tensor.cuda() for tensor in pyramid_case()]
    ops.rank_boxes(*given, "divergence", 3)  # loads kernels
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.rank_boxes(*given, "divergence", 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with torch.cuda.graph(graph):
        found = ops.rank_boxes(*given, "divergence", 3)
    given[1].add_(3.0)
    graph.replay()
    assert_same_ranks(found, ops.rank_boxes(*given, "divergence", 3))


def gpu_pyramid(channels: int = 16, memory_format: str = "channels_last") -> list[Tensor]:
    return [f.cuda().requires_grad_() for f in pyramid(channels, torch.float32, memory_format)]


def pooled(features: list[Tensor], boxes: Tensor) -> Tensor:
    """Pool a pyramid with all kinds of kernels, levels assigned by area."""
    result = ops.multiscale_roi_align(features, boxes, 3, SCALES, 2, True)
    result = result + ops.multiscale_roi_align(features, boxes, 3, SCALES, -1, mode="max")
    return result + ops.multiscale_roi_pool(features, boxes, 3, SCALES)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_host_never_waits(memory_format):
    features, boxes = gpu_pyramid(16, memory_format), random_boxes(12, 2, 52, 68, dtype=torch.float32).cuda()
    pooled(features, boxes).sum().backward()  # loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        pooled(features, boxes).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("memory_format", FORMATS)
def test_cuda_graphs(memory_format):
    features, boxes = gpu_pyramid(16, memory_format), random_boxes(12, 2, 52, 68, dtype=torch.float32).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(pooled(features, boxes).square().sum(), features)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = pooled(features, boxes)
        gradients = torch.autograd.grad(output.square().sum(), features)
    for seed in (1, 2):
        boxes.copy_(random_boxes(12, 2, 52, 68, seed=seed, dtype=torch.float32))
        with torch.no_grad():
            for feature in features:
                feature.mul_(-1.5)
        graph.replay()
        expected = pooled(features, boxes)
        assert torch.equal(output, expected)
        for mine, theirs in zip(gradients, torch.autograd.grad(expected.square().sum(), features), strict=True):
            assert torch.equal(mine, theirs)


def test_other_streams():
    features, boxes = gpu_pyramid(), random_boxes(12, 2, 52, 68, dtype=torch.float32).cuda()
    expected = pooled(features, boxes)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        actual = pooled(features, boxes)
    stream.synchronize()
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_compile_whole_and_dynamic(memory_format):
    torch.compiler.reset()
    compiled = torch.compile(pooled, fullgraph=True, dynamic=True)
    for count in (5, 12, 7):
        features = gpu_pyramid(16, memory_format)
        boxes = random_boxes(count, 2, 52, 68, seed=count, dtype=torch.float32).cuda()
        actual, expected = compiled(features, boxes), pooled(features, boxes)
        torch.testing.assert_close(actual, expected)
        grads = torch.autograd.grad(actual.sum(), features), torch.autograd.grad(expected.sum(), features)
        for mine, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own
def test_opcheck():
    boxes = random_boxes(9, 2, 52, 68, dtype=torch.float32).cuda()
    for memory_format in FORMATS:
        for name in ("average", "ps_average", "maximum"):
            features = gpu_pyramid(12, memory_format)
            arguments = (features, boxes, None, SCALES, 3, 2, 2, "align")
            torch.library.opcheck(getattr(torch.ops.aligned_rcnn, name).default, arguments)


def test_gradgradcheck():
    input = torch.randn(1, 2, 4, 4, dtype=torch.float64, device="cuda", requires_grad=True)
    boxes = torch.tensor([[0, 0.3, 0.1, 4.2, 3.9]], dtype=torch.float64, device="cuda")
    assert torch.autograd.gradgradcheck(lambda x: ops.roi_align(x, boxes, 2, 0.9), input)


def test_offsets_beyond_32_bits():
    free, _ = torch.cuda.mem_get_info()
    side, channels = 6000, 64
    if free < 6 * side * side * channels * 2:
        pytest.skip("the GPU has too little memory free")
    input = torch.zeros(1, channels, side, side, dtype=torch.bfloat16, device="cuda")
    input = input.contiguous(memory_format=torch.channels_last)
    assert input.numel() > 2**31
    corner = torch.randn(1, channels, 20, 20, device="cuda").to(torch.bfloat16)
    input[:, :, -20:, -20:] = corner
    box = torch.tensor([[0, side - 18.0, side - 18.0, side - 3.0, side - 3.0]], device="cuda")
    moved = torch.tensor([[0, 2.0, 2.0, 17.0, 17.0]], device="cuda")
    input.requires_grad_()
    output = ops.roi_align(input, box, 5, 1.0, 2, True)
    leaf = corner.contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = ops.roi_align(leaf, moved, 5, 1.0, 2, True)
    torch.testing.assert_close(output, expected)
    (gradient,) = torch.autograd.grad(output.float().sum(), input)
    (expected_gradient,) = torch.autograd.grad(expected.float().sum(), leaf)
    torch.testing.assert_close(gradient[:, :, -20:, -20:], expected_gradient)


SANITIZED = """
import sys; sys.path[:0] = ["tests/ops"]
import torch, ops
from match_cases import random_case
from roi_cases import CASES, hostile_boxes, random_boxes, value_and_gradient
for seed in range(12):
    ops.match_boxes(*(tensor.cuda() for tensor in random_case(seed)))
for case in CASES:
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for channels in (12, 16, 96):
            channels = 6 * (channels // 6) if case.own_channels else channels
            input = torch.rand(2, channels, 9, 11).contiguous(memory_format=memory_format)
            for boxes in (random_boxes(20, 2, 18, 22, dtype=torch.float32), hostile_boxes(50)):
                run = lambda x, *rest: case.run(x.cuda(), boxes.cuda(), *rest).cpu()
                value_and_gradient(run, input, (3, 2), 0.5)
torch.cuda.synchronize()
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_compute_sanitizer_finds_nothing(tool):
    nvcc = compile_cuda.find_nvcc()
    folder = str(compile_cuda.cuda_home(nvcc) / "bin") if nvcc else ""
    sanitizer = shutil.which("compute-sanitizer", path=os.pathsep.join((folder, os.environ["PATH"])))
    if sanitizer is None:
        pytest.skip("there is no compute-sanitizer")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", SANITIZED]
    # No caching of allocations, so that the sanitizer sees their bounds.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:]
