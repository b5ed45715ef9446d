"""Convolve by 3×3 filters with fewer multiplications, by Winograd's algorithm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from ops import native


def winograd_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 3×3 convolution of stride 1 and padding 1 by Winograd's algorithm F(4×4, 3×3), on the CPU.

    It multiplies a quarter as often as the sum that defines it, at the price of rounding errors about six times as
    large: 1.5e-6 of the outputs' standard deviation for random inputs and 256 channels. What is not finite, or near
    the end of float32's range, spreads over the tiles of 4×4 outputs that read it. The gradients of input and weight
    are computed so, too; where they are to be differentiated, or are many at once, they are torch's.

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
    if not is_plain(input, weight, bias) or not native.available(input.device):
        return F.conv2d(input, weight, bias, padding=1)
    output: Tensor = _Winograd.apply(input, weight, bias)
    return output


def is_plain(*tensors: Any) -> bool:
    """Tell whether nothing but the numbers of tensors (or None) is computed: nothing is traced or intercepted."""
    return (
        all(tensor is None or type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and forward_ad._current_level < 0
    )


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _operators().winograd_conv2d(_channels_last(x), weight, bias, False)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        batched = torch._C._functorch.is_legacy_batchedtensor(gradient)
        if torch.is_grad_enabled() or batched or not is_plain(gradient, x, weight):
            one, none = [1, 1], [0, 0]
            return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
                gradient, x, weight, [len(weight)], one, one, one, False, none, 1, ctx.needs_input_grad
            )
        gradient = _channels_last(gradient)
        return (
            _operators().winograd_conv2d(gradient, weight, None, True) if of_x else None,
            _operators().winograd_weight(_channels_last(x), gradient) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
        )


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


def _operators() -> Any:
    return torch.ops.aligned_rcnn


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
