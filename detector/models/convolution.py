"""Convolutions with a faster weight gradient on CPUs without AVX-512.

There oneDNN computes the weight gradient of a 3×3 convolution in channels_last up to several times slower than the rest
of it (findings/onednn_channels_last_weight_gradient.sh): on large maps that is most of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEAST_PRODUCTS = 10_000_000
"""Cells times input channels times output channels; of fewer, oneDNN is as fast or faster."""


def fast_weight_gradients(model: nn.Module) -> None:
    """Let the convolutions of a model compute their weight gradients as `conv2d` does."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            module.__class__ = Conv2d


class Conv2d(nn.Conv2d):
    """Apply a convolution by `conv2d`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """Apply a convolution as `torch.nn.functional.conv2d`, with `weight_gradient` where that is faster."""
    if (
        not torch.compiler.is_compiling()
        and weight.requires_grad
        and torch.is_grad_enabled()
        and weight.shape[2:] == (3, 3)
        and (stride, padding, dilation, groups) == ((1, 1), (1, 1), (1, 1), 1)
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and x.shape[0] * x.shape[2] * x.shape[3] * weight.shape[0] * weight.shape[1] >= LEAST_PRODUCTS
        and x.is_contiguous(memory_format=torch.channels_last)
    ):
        output: Tensor = _Convolution.apply(x, weight, bias)
        return output
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


class _Convolution(torch.autograd.Function):
    """A 3×3 convolution of stride and padding 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        options = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [of_x, False, False])
        return (
            torch.ops.aten.convolution_backward(gradient, x, weight, *options)[0] if of_x else None,
            weight_gradient(x, gradient) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
        )


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Compute the weight gradient [K, D, 3, 3] of a 3×3 convolution of stride and padding 1, by nine matrix products.

    With padding, the cells of all maps are rows one after another. To each position of the filter then belongs one
    offset between the rows of the input and those of the output, and what a padded row of the output adds is zero.

    Args:
        x: the input [B, D, H, W], fastest in channels_last.
        gradient: of the output, [B, K, H, W].
    """
    width = x.shape[3] + 2
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).flatten(0, 2)
    of_rows = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, 2, 0, 2)).flatten(0, 2)[: len(rows) - 2 * width - 2].T
    weight = x.new_empty(3, 3, gradient.shape[1], x.shape[1])
    for i in range(3):
        for j in range(3):
            first = i * width + j
            torch.mm(of_rows, rows[first : first + of_rows.shape[1]], out=weight[i, j])
    return weight.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
