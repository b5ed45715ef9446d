"""Backbones: compute features by level from a normalised image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from detector.models.folding import conv_norm

Norm = Callable[[int], nn.Module]
"""`channels -> nn.Module`: makes a normalisation layer."""


def group_norm(channels: int, groups: int = 32) -> nn.Module:
    """Make a group normalisation layer (Wu and He, 2018); a `Norm` once `groups` is fixed.

    Raises:
        ValueError: `groups` does not divide `channels`.
    """
    if groups < 1 or channels % groups:
        raise ValueError(
            f"{channels} channels do not make {groups} groups; take norm.groups={math.gcd(channels, groups)}, or more "
            "channels"
        )
    return nn.GroupNorm(groups, channels)


def frozen_batch_norm(channels: int, eps: float = 1e-5) -> nn.Module:
    """Make a batch normalisation layer whose statistics and affine parameters stay as loaded; a `Norm`.

    Args:
        channels: of the features.
        eps: added to the variance; 0 in torchvision's detectors of version 1.

    Raises:
        ValueError: `eps` is negative.
    """
    if eps < 0:
        raise ValueError(f"norm.eps is added to a variance and must be at least 0, got {eps}")
    norm: nn.Module = FrozenBatchNorm2d(channels, eps)
    return norm


class Body(nn.Module, ABC):
    """Compute features by a network that is cut off before its classifier.

    Attributes:
        channels: of each feature, fine to coarse.
        strides: image pixels between the cells of each feature.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.channels, self.strides = list(channels), list(strides)
        self._frozen: list[nn.Module] = []

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute features [B, D, H / stride, W / stride] from images [B, D, H, W], fine to coarse."""

    def freeze(self, stages: Sequence[nn.Module], count: int) -> None:
        """Freeze the first `count` of `stages`: their parameters and their norms' statistics, for good.

        Raises:
            ValueError: there are not so many stages.
        """
        if not 0 <= count <= len(stages):
            raise ValueError(f"freeze_at must be 0 to {len(stages)}, the number of stages, got {count}")
        self._frozen = list(stages[:count])
        for stage in self._frozen:
            stage.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in self._frozen:
            stage.eval()
        return self


class FPN(nn.Module):
    """Build a feature pyramid by a top-down pathway and lateral connections (FPN, section 3).

    Args:
        body: computes features, each at twice the stride of the one before.
        channels: of every level of the pyramid.
        norm: makes the normalisation layer after each convolution; None for none.
        strides: image pixels between the cells of each level: those of the body, then twice the one before. Levels
            beyond the body's subsample the level before by 2.

    Raises:
        ValueError: `strides` do not continue the body's, the body's do not double, or `channels` is below 1.
    """

    def __init__(
        self,
        body: Body,
        channels: int = 256,
        norm: Norm | None = None,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        first = body.strides[0]
        if body.strides != [first * 2**level for level in range(len(body.strides))] or first & (first - 1):
            raise ValueError(
                f"a pyramid needs a body whose strides are powers of two, each twice the one before; this one's are "
                f"{body.strides}"
            )
        expected = [first * 2**level for level in range(max(len(strides), len(body.strides)))]
        if list(strides) != expected:
            raise ValueError(
                f"strides must be {first}, {2 * first}, {4 * first}, ..., at least the body's {len(body.strides)}, got "
                f"{list(strides)}"
            )
        self.body, self.levels = body, len(strides)

        def conv(inputs: int, side: int) -> nn.Module:
            after = None if norm is None else norm(channels)
            # A norm without parameters (a frozen one) has no trained bias.
            bias = after is None or not list(after.parameters())
            layer = nn.Conv2d(inputs, channels, side, padding=side // 2, bias=bias)
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            return layer if after is None else nn.Sequential(layer, after)

        self.lateral = nn.ModuleList(conv(c, 1) for c in body.channels)
        self.output = nn.ModuleList(conv(channels, 3) for _ in body.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute levels [B, channels, H / stride, W / stride] from images [B, D, H, W], fine to coarse."""
        lateral = [_apply(layer, x) for layer, x in zip(self.lateral, self.body(image), strict=True)]
        merged = [lateral[-1]]
        for x in reversed(lateral[:-1]):
            merged.append(x + F.interpolate(merged[-1], size=x.shape[-2:], mode="nearest"))
        levels = [_apply(layer, x) for layer, x in zip(self.output, reversed(merged), strict=True)]
        while len(levels) < self.levels:
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return levels


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution, and its norm if it has one."""
    y: Tensor = conv_norm(layer[0], layer[1], x) if isinstance(layer, nn.Sequential) else layer(x)
    return y


class SingleLevel(nn.Module):
    """Return only the last feature map of the body (Faster R-CNN): C4 of a ResNet with depth=3, C5 with depth=4.

    Args:
        body: computes features, fine to coarse.
        channels: of the last feature map, D.
        strides: of the last feature map, a list of one number.

    Raises:
        ValueError: the body's last feature map has other channels or another stride.
    """

    def __init__(self, body: Body, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        if channels != body.channels[-1] or list(strides) != body.strides[-1:]:
            raise ValueError(
                f"the body's last feature has {body.channels[-1]} channels and strides {body.strides[-1:]}, but "
                f"channels is {channels} and strides is {list(strides)}; set backbone.channels and backbone.strides so"
            )
        self.body = body

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute one level [B, channels, H / stride, W / stride] from images [B, D, H, W]."""
        return [self.body(image)[-1]]
