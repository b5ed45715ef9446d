"""Fold fixed batch norms (frozen, or in evaluation mode) into the convolutions before them."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from detector.convolution import conv2d

M = TypeVar("M", bound=nn.Module)


def folded(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Compute weight and bias of the one convolution that equals `norm(conv(x))`.

    None if the norm is no batch norm, or neither frozen nor in evaluation mode.
    """
    fixed = isinstance(norm, FrozenBatchNorm2d) or (isinstance(norm, nn.BatchNorm2d) and not norm.training)
    gain, shift, mean, variance = (getattr(norm, n, None) for n in ("weight", "bias", "running_mean", "running_var"))
    if (
        not fixed
        or not isinstance(conv, nn.Conv2d)
        or gain is None
        or shift is None
        or mean is None
        or variance is None
    ):
        return None
    scale = gain * (variance + norm.eps).rsqrt()
    bias = shift - mean * scale if conv.bias is None else shift + (conv.bias - mean) * scale
    return conv.weight * scale[:, None, None, None], bias


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Compute `norm(conv(x))`, by one convolution where the norm is fixed, which saves passes over the map.

    Args:
        conv: an `nn.Conv2d`.
        norm: of its outputs.
        x: [B, D, H, W].
    """
    parts = folded(conv, norm)
    if parts is None:
        y: Tensor = norm(conv(x))
        return y
    assert isinstance(conv, nn.Conv2d)
    return conv2d(x, *parts, conv.stride, conv.padding, conv.dilation, conv.groups)


def fold(model: M) -> M:
    """Copy a model for inference, its fixed batch norms folded into the convolutions of sequences and residual blocks.

    The copy is in evaluation mode, its parameters have other names than the model's and need no gradient.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Sequential | BasicBlock | Bottleneck):
            for (_, conv), (name, norm) in pairwise(list(module.named_children())):
                parts = folded(conv, norm)
                if parts is not None:
                    weight, bias = parts
                    conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
                    setattr(module, name, nn.Identity())
    return model
