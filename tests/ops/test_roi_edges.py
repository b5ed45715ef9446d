"""Edge cases: invalid RoIs, maps and batches of any size, and bitwise equal results in every run."""

import math

import pytest
import torch
import torchvision
from roi_cases import CASES, FORMATS, PS, SOME, Case, hostile_boxes, random_boxes, value_and_gradient
from torch import Tensor

import ops
from ops import native

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("case", SOME, ids=str)
def test_rois_without_an_image_are_zero_and_change_nothing(case: Case, memory_format):
    input = torch.rand(2, 20, 9, 9).contiguous(memory_format=memory_format) + 1
    boxes = random_boxes(12, 2, 9, 9, dtype=torch.float32)
    expected, expected_gradient = value_and_gradient(case.run, input, boxes, (2, 2), 1.0)
    assert (expected_gradient != 0).any()
    strangers = boxes[:8].clone()
    strangers[:, 0] = torch.tensor([-1, 2, 1e9, -1e30, NAN, INF, -INF, 2.0**31])
    output = case.run(input, torch.cat((strangers, boxes)), (2, 2), 1.0)
    assert (output[:8] == 0).all()
    assert torch.equal(output[8:], expected)
    leaf = input.clone().requires_grad_()
    case.run(leaf, strangers, (2, 2), 1.0).sum().backward()
    assert (leaf.grad == 0).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nan_and_infinite_boxes_give_zeros(case: Case):
    boxes = torch.tensor([[0, NAN, 1, 4, 4], [0, 1, 1, INF, 4], [0, -INF, 1, 4, 4], [0, 1, NAN, 4, NAN]])
    assert (case.run(torch.ones(1, 4, 6, 6), boxes, 2, 1.0) == 0).all()


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_hostile_boxes_are_safe_and_cheap(case: Case, memory_format, monkeypatch):
    """Boxes of up to 1e38 cells with adaptive grids: a loop over all their samples would never end."""
    input = torch.rand(2, 18, 8, 12).contiguous(memory_format=memory_format)
    boxes = hostile_boxes(400)
    output, gradient = value_and_gradient(case.run, input, boxes, (3, 2), 1.0)
    assert output.isfinite().all()
    assert gradient.isfinite().all()
    assert output.min() >= 0
    assert output.max() <= 1.00001
    monkeypatch.setattr(native, "available", lambda device: False)
    expected, expected_gradient = value_and_gradient(case.run, input, boxes, (3, 2), 1.0)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_roi_far_larger_than_the_map_reads_all_of_it(case: Case):
    input = torch.full((1, 2, 8, 8), 3.0)
    box = torch.tensor([[0, -1e5, -1e5, 1e5, 1e5]])
    output = case.run(input, box, 1, 1.0)
    if "pool" in case.name or ("max" in case.name and "-1" in case.name):
        torch.testing.assert_close(output, torch.full_like(output, 3))
    else:
        assert output.min() >= 0
        assert output.max() <= 3


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("case", SOME, ids=str)
def test_any_size(case: Case, memory_format):
    """Channels that do not fill vectors, maps down to one cell, no RoIs, no images."""
    boxes = random_boxes(9, 2, 10, 10)
    for channels in (1, 7, 16, 33, 130):
        for height, width in ((1, 1), (17, 1), (6, 35)):
            input = torch.randn(2, channels, height, width, dtype=torch.float64).contiguous(memory_format=memory_format)
            picked = [0, channels // 2, channels - 1]
            actual, gradient = value_and_gradient(case.run, input, boxes, (2, 3), 1.0)
            expected = case.reference(input[:, picked], boxes, (2, 3), 1.0)
            torch.testing.assert_close(actual[:, picked], expected, rtol=1e-12, atol=1e-12)
            assert gradient.shape == input.shape
    empty = torch.zeros(0, 4, 5, 5).contiguous(memory_format=memory_format).requires_grad_()
    output = case.run(empty, torch.tensor([[0, 1.0, 1, 3, 3]]), 2, 1.0)
    assert output.shape == (1, 4, 2, 2)
    assert (output == 0).all()
    output.sum().backward()
    some = torch.randn(2, 4, 5, 5).contiguous(memory_format=memory_format).requires_grad_()
    output = case.run(some, torch.zeros(0, 5), (3, 2), 1.0)
    assert output.shape == (0, 4, 3, 2)
    output.sum().backward()
    assert torch.equal(some.grad, torch.zeros_like(some))
    no_channels = torch.zeros(1, 0, 5, 5, requires_grad=True)
    case.run(no_channels, torch.tensor([[0, 1.0, 1, 3, 3]]), 2, 1.0).sum().backward()


@pytest.mark.parametrize("case", SOME, ids=str)
def test_any_strides(case: Case):
    input = torch.randn(2, 20, 12, 9, dtype=torch.float64)
    boxes = random_boxes(10, 2, 12, 12)
    expected = case.run(input, boxes, (3, 3), 1.0)
    transposed = input.transpose(2, 3).contiguous().transpose(2, 3)
    sliced = torch.randn(2, 40, 12, 18, dtype=torch.float64)[:, ::2, :, ::2]
    sliced.copy_(input)
    for strange in (transposed, sliced):
        assert not strange.is_contiguous()
        leaf = strange.detach().requires_grad_()
        output = case.run(leaf, boxes, (3, 3), 1.0)
        assert torch.equal(output, expected)
    wide = torch.randn(10, 10, dtype=torch.float64)[:, ::2]
    wide.copy_(boxes)
    assert torch.equal(case.run(input, wide, (3, 3), 1.0), expected)
    leaf = input.clone().requires_grad_()
    case.run(leaf, boxes, (3, 3), 1.0).sum().backward()  # the gradient of a sum has strides 0
    ones = input.clone().requires_grad_()
    output = case.run(ones, boxes, (3, 3), 1.0)
    output.backward(torch.ones_like(output))
    assert torch.equal(leaf.grad, ones.grad)


@pytest.mark.parametrize("case", [c for c in CASES if c.linear or "pool" in c.name], ids=str)
def test_a_cell_outside_the_roi_is_not_read(case: Case):
    for memory_format in FORMATS:
        input = torch.full((1, 18, 12, 40), NAN)
        input[:, :, 2:10, 2:10] = 1
        output = case.run(input.contiguous(memory_format=memory_format), torch.tensor([[0, 3.5, 3.5, 8, 8]]), 3, 1.0)
        torch.testing.assert_close(output, torch.ones_like(output))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("case", SOME + PS[:1], ids=str)
def test_the_same_bits_for_any_number_of_threads(case: Case, memory_format, dtype):
    input = torch.randn(2, 49, 50, 60).to(dtype).contiguous(memory_format=memory_format)
    boxes = random_boxes(150, 2, 50, 60, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5, 2):
            torch.set_num_threads(threads)
            results.append(value_and_gradient(case.run, input, boxes, 7, 1.0))
    finally:
        torch.set_num_threads(before)
    for output, gradient in results[1:]:
        assert torch.equal(output, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
def test_many_rois(memory_format):
    input = torch.randn(2, 2, 40, 40).contiguous(memory_format=memory_format)
    boxes = random_boxes(25_000, 2, 40, 40, dtype=torch.float32)
    for mine, theirs in ((ops.roi_align, torchvision.ops.roi_align), (ops.roi_pool, torchvision.ops.roi_pool)):
        actual, gradient = value_and_gradient(mine, input, boxes, 7)
        expected, expected_gradient = value_and_gradient(theirs, input, boxes, 7)
        assert actual.numel() > 4096 * 512
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_many_rois_are_each_as_in_smaller_calls(case: Case):
    input = torch.randn(1, 98 if case.own_channels else 2, 12, 14, dtype=torch.float64, requires_grad=True)
    boxes = random_boxes(22_000, 1, 24, 28)

    def run(rois: Tensor) -> tuple[Tensor, Tensor]:
        output = case.run(input, rois, 7, 0.5)
        return output.detach(), torch.autograd.grad(output.sum(), input)[0]

    whole, gradient = run(boxes)
    assert whole.numel() > 4096 * 512
    parts = [run(part) for part in boxes.split(4000)]
    assert torch.equal(whole, torch.cat([value for value, _ in parts]))
    torch.testing.assert_close(gradient, torch.stack([part for _, part in parts]).sum(0))


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
def test_the_output_keeps_the_memory_format(memory_format):
    input = torch.randn(2, 18, 9, 9).contiguous(memory_format=memory_format).requires_grad_()
    for case in CASES:
        output = case.run(input, random_boxes(5, 2, 9, 9), 3, 1.0)
        assert output.is_contiguous(memory_format=memory_format)
        (gradient,) = torch.autograd.grad(output.sum(), input)
        assert "crop" in case.name or gradient.is_contiguous(memory_format=memory_format)
