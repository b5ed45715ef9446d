"""Convolve by 3×3 filters with fewer multiplications, by Winograd's algorithm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ops import native

TILE = 4
"""Outputs along a side of a tile, of kTile in csrc/winograd.h."""
POINTS = (TILE + 2) ** 2
PART_BYTES = 8 << 20
"""Size of the points of tiles that are computed together: they stay in the cache, and threads seldom wait."""
LEAST_TILES = 16
"""that are computed together; of fewer the matrix products are slow"""

FILTER: tuple[tuple[float, float, float], ...] = (
    (1, 0, 0),
    (1 / 3, 1 / 3, 1 / 3),
    (-1 / 3, 1 / 3, -1 / 3),
    (-16 / 15, -8 / 15, -4 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0, 0, 1),
)
"""The values of three weights at the points 0, 1, -1, 1/2, -2 and infinity, as `of_filter` in winograd_kernels.cpp."""


def count_tiles(maps: Tensor) -> int:
    """Count the tiles of maps [B, C, H, W]."""
    images, _, height, width = maps.shape
    return images * -(-height // TILE) * -(-width // TILE)


def winograd_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 3×3 convolution of stride 1 and padding 1 by Winograd's algorithm F(4×4, 3×3), on the CPU.

    It multiplies a quarter as often as the sum that defines it, at the price of rounding errors about six times as
    large: 1.5e-6 of the outputs' standard deviation for random inputs and 256 channels. What is not finite, or near
    the end of float32's range, spreads over a tile of 4×4 outputs. The gradients of input and weight are computed so,
    too; they cannot be differentiated.

    Args:
        input: float32 Tensor[B, C, H, W] on the CPU; copied unless it is in channels_last.
        weight: float32 Tensor[K, C, 3, 3].
        bias: float32 Tensor[K]; None: zeros.

    Returns:
        float32 Tensor[B, K, H, W], in channels_last. That of `torch.nn.functional.conv2d` where the operators are not
        compiled, and where more than tensors are computed (`is_plain`).

    Raises:
        ValueError, TypeError: malformed arguments.

    Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016.
    """
    _check(input, weight, bias)
    if not is_plain(input) or not native.available(input.device):
        return F.conv2d(input, weight, bias, padding=1)
    output: Tensor = _Winograd.apply(input, weight, bias)
    return output


def is_plain(tensor: Any) -> bool:
    """Tell whether nothing but numbers is computed: nothing is compiled, traced, transformed or intercepted."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
    )


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return _convolve(x, _filters(weight, False).transpose(1, 2), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        x, gradient = (one.contiguous(memory_format=torch.channels_last) for one in (x, gradient))  # hooks may copy x
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _convolve(gradient, _filters(weight, True), None) if of_x else None,
            _weight_gradient(x, gradient) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
        )


def _operators() -> Any:
    return torch.ops.aligned_rcnn


_LIKE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
"""of all tensors here, whatever the defaults"""
_LINE = 16
"""Numbers in a line of the cache."""


class _Memory(threading.local):
    """Memory of a thread, kept from call to call: the kernel would zero its pages anew each time."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def points(self, name: str, count: int, channels: int) -> Tensor:
        """Return float32 [36, count, channels], which the next call with this name overwrites.

        Its points lie an odd number of cache lines apart: if it were a power of two, those of a tile would displace
        each other from the cache.
        """
        lines = -(-count * channels // _LINE) | 1
        size = POINTS * lines * _LINE
        if name not in self._kept or self._kept[name].numel() < size:
            with torch.inference_mode(False):  # else only inference could write into it
                self._kept[name] = torch.empty(size, **_LIKE)
        return self._kept[name].as_strided((POINTS, count, channels), (lines * _LINE, channels, 1))


_memory = _Memory()


def _filters(weight: Tensor, turned: bool) -> Tensor:
    """Return the points [36, K, C] of filters [K, C, 3, 3], which the next call overwrites."""
    count, channels = weight.shape[:2]
    points = _memory.points("filters", count, channels)
    _operators().winograd_filter(weight, turned, points)
    return points


def _parts(maps: Tensor, *channels: int) -> Iterator[tuple[int, list[Tensor]]]:
    """Split the tiles of maps into parts: the first tile of each, and memory for points [36, T, C] of its T tiles.

    Args:
        maps: [B, C, H, W].
        channels: C of each of the points.
    """
    tiles = count_tiles(maps)
    parts = -(-tiles // max(PART_BYTES // (4 * POINTS * sum(channels)), LEAST_TILES))
    for part in range(parts):
        begin, end = part * tiles // parts, (part + 1) * tiles // parts
        yield begin, [_memory.points(f"maps {i}", end - begin, number) for i, number in enumerate(channels)]


def _convolve(maps: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve maps [B, C, H, W] in channels_last by filters' points [36, C, K]."""
    inputs, outputs = filters.shape[1:]
    batch, _, height, width = maps.shape
    convolved = torch.empty((batch, outputs, height, width), memory_format=torch.channels_last, **_LIKE)
    for begin, (points, products) in _parts(maps, inputs, outputs):
        _operators().winograd_input(maps, begin, False, points)
        torch.bmm(points, filters, out=products)
        _operators().winograd_output(products, bias, begin, convolved)
    return convolved


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Compute the weight gradient [K, C, 3, 3] from the input [B, C, H, W] and the output's gradient [B, K, H, W]."""
    inputs, outputs = x.shape[1], gradient.shape[1]
    total = torch.zeros(POINTS, outputs, inputs, **_LIKE)
    for begin, (points, gradients) in _parts(x, inputs, outputs):
        _operators().winograd_input(x, begin, False, points)
        _operators().winograd_input(gradient, begin, True, gradients)
        torch.baddbmm(total, gradients.transpose(1, 2), points, out=total)
    along = torch.tensor(FILTER, **_LIKE)
    weight = torch.empty(9, outputs * inputs, **_LIKE)
    torch.mm(torch.kron(along, along).T, total.view(POINTS, -1), out=weight)  # autocast changes nothing with `out`
    return weight.view(3, 3, outputs, inputs).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _check(input: Any, weight: Any, bias: Any) -> None:
    for name, tensor, shape in (("input", input, "B, C, H, W"), ("weight", weight, "K, C, 3, 3"), ("bias", bias, "K")):
        if tensor is None and name == "bias":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}")
        if tensor.dtype != torch.float32:
            raise TypeError(f"{name} must be float32; got {tensor.dtype}")
        if tensor.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU; got {tensor.device}")
        if tensor.ndim != len(shape.split(", ")):
            raise ValueError(f"{name} must be Tensor[{shape}]; got shape {tuple(tensor.shape)}")
    if weight.shape[1:] != (input.shape[1], 3, 3):
        raise ValueError(f"weight must be Tensor[K, {input.shape[1]}, 3, 3]; got shape {tuple(weight.shape)}")
    if 0 in (*weight.shape, *input.shape[1:]):
        raise ValueError(
            f"input and weight must have channels and cells; got shapes {tuple(input.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be Tensor[{weight.shape[0]}]; got shape {tuple(bias.shape)}")
