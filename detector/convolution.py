"""Convolutions that are faster on CPUs: by Winograd's algorithm where it pays (`ops.winograd_conv2d`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ops
from ops.convolution import is_plain

LEAST_CHANNELS = 32
"""of input and output; with fewer the algorithm saves less than it adds"""
LEAST_TILES = 40
"""of 4 x 4 outputs; with fewer it saves less than transforming the filters costs"""
LEAST_SHARE = 0.6
"""of a map's tiles that must lie on the map"""


def fast_convolutions(model: nn.Module) -> None:
    """Let the convolutions of a model compute as `conv2d` does."""
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
    """Apply a convolution as `torch.nn.functional.conv2d`, by Winograd's algorithm where that is faster."""
    if (
        is_plain(x)
        and x.ndim == 4
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[2:] == (3, 3)
        and (stride, padding, dilation, groups) == ((1, 1), (1, 1), (1, 1), 1)
        and pays(x.shape, weight.shape)
        and x.is_contiguous(memory_format=torch.channels_last)
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and not torch.is_autocast_enabled("cpu")
    ):
        return ops.winograd_conv2d(x, weight, bias)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def pays(maps: torch.Size, filters: torch.Size) -> bool:
    """Tell whether Winograd's algorithm is faster for maps [B, C, H, W] and filters [K, C, 3, 3].

    As measured on two kinds of CPU, with AVX2 and with AVX-512.
    """
    images, inputs, height, width = maps
    tiles = images * -(-height // 4) * -(-width // 4)
    return (
        min(inputs, filters[0]) >= LEAST_CHANNELS
        and tiles >= LEAST_TILES
        and images * height * width >= LEAST_SHARE * 16 * tiles
    )
