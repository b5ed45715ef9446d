"""Shared by the tests of the operators: every operator with its reference, random boxes and hostile boxes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import ops
from ops import reference

Pool = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    name: str
    run: Pool
    """(input, boxes, output_size, spatial_scale) -> output"""
    reference: Pool
    linear: bool
    own_channels: bool = False
    """position-sensitive: the input's channels are a multiple of the number of bins"""

    def __str__(self) -> str:
        return self.name


def _align(mode: str, sampling_ratio: int, aligned: bool) -> Case:
    arguments = {"mode": mode, "sampling_ratio": sampling_ratio, "aligned": aligned}
    name = f"align-{mode}-{sampling_ratio}{'-half' if aligned else ''}"
    run, expected = partial(ops.roi_align, **arguments), partial(reference.roi_align, **arguments)
    return Case(name, run, expected, mode == "avg")


def _pool(quantization: str) -> Case:
    run = partial(ops.roi_pool, quantization=quantization)
    return Case(f"pool-{quantization}", run, partial(reference.roi_pool, quantization=quantization), False)


def _warp(mode: str, sampling_ratio: int) -> Case:
    arguments = {"mode": mode, "sampling_ratio": sampling_ratio}
    run, expected = partial(ops.roi_warp, **arguments), partial(reference.roi_warp, **arguments)
    return Case(f"warp-{mode}-{sampling_ratio}", run, expected, mode == "avg")


def _ps_align(sampling_ratio: int) -> Case:
    run = partial(ops.ps_roi_align, sampling_ratio=sampling_ratio)
    expected = partial(reference.ps_roi_align, sampling_ratio=sampling_ratio)
    return Case(f"ps-align-{sampling_ratio}", run, expected, True, own_channels=True)


def _ps_pool(quantization: str) -> Case:
    run = partial(ops.ps_roi_pool, quantization=quantization)
    expected = partial(reference.ps_roi_pool, quantization=quantization)
    return Case(f"ps-pool-{quantization}", run, expected, True, own_channels=True)


CASES = [
    *(_align(mode, ratio, half) for mode in ("avg", "max") for ratio in (1, 2, -1) for half in (False, True)),
    _pool("round"),
    _pool("floor"),
    *(_warp(mode, ratio) for mode in ("avg", "max") for ratio in (2, -1)),
    _ps_align(2),
    _ps_align(-1),
    _ps_pool("round"),
    _ps_pool("rfcn"),
    Case("crop", ops.roi_crop, reference.roi_crop, False),
    Case("crop-and-resize", ops.crop_and_resize, reference.crop_and_resize, True),
]
"""Every operator with every combination of its arguments."""
SOME = [case for case in CASES if case.name in ("align-avg-2-half", "align-avg--1", "align-max-2", "pool-round")]
"""One case for each kernel."""
PS = [case for case in CASES if case.own_channels]

FORMATS = [torch.contiguous_format, torch.channels_last]


def random_boxes(count: int, images: int, height: float, width: float, seed: int = 0, dtype=torch.float64) -> Tensor:
    """Draw Tensor[K, 5] on a map of `height` x `width`; a third may cross its border, some are tiny."""
    generator = torch.Generator().manual_seed(seed)
    side = torch.tensor([width, height], dtype=torch.float64)
    first, second = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * side
    corners = torch.cat((torch.minimum(first, second), torch.maximum(first, second)), 1)
    corners[::3] += torch.randn(corners[::3].shape, generator=generator, dtype=torch.float64) * 0.3 * side.repeat(2)
    corners[1::5, 2:] = corners[1::5, :2] + 0.3
    corners = torch.cat(
        (torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])), 1
    )
    image = torch.randint(images, (count, 1), generator=generator).double()
    return torch.cat((image, corners), 1).to(dtype)


def hostile_boxes(count: int, seed: int = 0) -> Tensor:
    """Draw float32 Tensor[K, 5] with NaN, infinite, inverted, huge and far boxes, and images that do not exist."""
    generator = torch.Generator().manual_seed(seed)
    exponent = torch.rand(count, 5, generator=generator) * 45 - 6
    boxes = torch.randn(count, 5, generator=generator) * 10**exponent
    boxes[:, 0] = torch.randint(-1, 3, (count,), generator=generator)
    ordinary = torch.rand(count, 5, generator=generator) < 0.5
    boxes = torch.where(ordinary, torch.rand(count, 5, generator=generator) * 20 - 4, boxes)
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 3.4e38, -3.4e38, 1e-45, 2.0**31])
    chosen = special[torch.randint(len(special), (count, 5), generator=generator)]
    return torch.where(torch.rand(count, 5, generator=generator) < 0.15, chosen, boxes)


def value_and_gradient(pool: Pool, input: Tensor, *arguments: object) -> tuple[Tensor, Tensor]:
    """Compute the output, and the input's gradient for a fixed random gradient of the output."""
    leaf = input.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = pool(leaf, *arguments)
    generator = torch.Generator().manual_seed(11)
    cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    (gradient,) = torch.autograd.grad(output, leaf, cotangent)
    return output.detach(), gradient
