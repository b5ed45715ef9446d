"""Backbones: from a normalised image to features by level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

Norm = Callable[[int], nn.Module]


def group_norm(channels: int, groups: int = 32) -> nn.Module:
    """Group normalisation in the order of arguments that a backbone's `norm` wants."""
    return nn.GroupNorm(groups, channels)


class ResNet(nn.Module):
    """The stem and residual stages of torchvision's ResNet.

    Args:
        name: torchvision's name, such as `resnet50`.
        norm: makes the normalisation layer of a number of channels.
        weights: None for random ones, `imagenet` (or torchvision's name of a set, such as `IMAGENET1K_V1`) for
            torchvision's, downloaded where they are not yet on disk, or the path of a file with a state dict.
        freeze_at: so many of the stages (the stem is the first) are not trained.
        depth: so many of the four residual stages are there, from the finest on.
    """

    def __init__(
        self,
        name: str,
        norm: Norm = nn.BatchNorm2d,
        weights: str | None = None,
        freeze_at: int = 0,
        depth: int = 4,
    ) -> None:
        super().__init__()
        if not 1 <= depth <= 4:
            raise ValueError(f"depth counts residual stages, 1 to 4, got {depth}")
        self.stages = ("stem", "layer1", "layer2", "layer3", "layer4")[: depth + 1]
        if not 0 <= freeze_at <= len(self.stages):
            raise ValueError(f"freeze_at counts stages of {len(self.stages)}, got {freeze_at}")
        net = torchvision.models.get_model(name, weights=None, norm_layer=norm)
        if weights is not None:
            _load(net, _weights(name, weights), weights)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        for stage in self.stages[1:]:
            self.add_module(stage, net.get_submodule(stage))
        last = net.layer4[-1]
        widest = (last.conv3 if hasattr(last, "conv3") else last.conv2).out_channels
        self.channels = [widest // 8, widest // 4, widest // 2, widest][:depth]
        self.freeze_at = freeze_at
        for stage in self.stages[:freeze_at]:
            self.get_submodule(stage).requires_grad_(False)

    def train(self, mode: bool = True) -> ResNet:
        """Set the mode; the statistics of frozen stages stay as they are."""
        super().train(mode)
        for stage in self.stages[: self.freeze_at]:
            self.get_submodule(stage).eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """From [B, 3, H, W] the residual stages' outputs C2, C3, ... at strides 4, 8, ..."""
        x = self.stem(image)
        features = []
        for stage in self.stages[1:]:
            x = self.get_submodule(stage)(x)
            features.append(x)
        return features


def _weights(name: str, weights: str) -> dict[str, Tensor]:
    """A state dict by torchvision's name of it, or from a file."""
    if weights == "imagenet" or weights.startswith("IMAGENET"):
        choice = "DEFAULT" if weights == "imagenet" else weights
        try:
            state: dict[str, Tensor] = torchvision.models.get_model_weights(name)[choice].get_state_dict(progress=True)
        except KeyError as error:
            sets = [w.name for w in torchvision.models.get_model_weights(name)]
            raise ValueError(f"backbone weights {weights!r}: {name} has {', '.join(sets)}") from error
        except OSError as error:
            raise OSError(
                f"backbone weights {weights!r}: not on this disk, and the download failed ({error}); download them "
                "elsewhere and give the file's path, or backbone.weights=null for random ones"
            ) from error
        return state
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"backbone weights {weights!r}: no such file; give a path, or `imagenet`")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise ValueError(f"backbone weights {weights!r}: not a file of weights ({error})") from error
    if not isinstance(loaded, dict):
        raise ValueError(
            f"backbone weights {weights!r}: a state dict was expected, the file holds a {type(loaded).__name__}"
        )
    return loaded


def _load(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load all but the classifier; FrozenBatchNorm2d has no `num_batches_tracked`."""
    keys = net.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")}, strict=False)
    missing = [k for k in keys.missing_keys if not k.startswith("fc.")]
    unexpected = [k for k in keys.unexpected_keys if not k.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"backbone weights {source!r} do not fit: missing {missing[:3]}, unexpected {unexpected[:3]}")


class FPN(nn.Module):
    """A feature pyramid: the coarse levels' meaning at the fine levels' resolution (FPN, section 3).

    Args:
        body: gives features at strides 4, 8, 16, ... and says how many `channels` each has.
        channels: of every level of the pyramid.
        norm: makes the normalisation layer after each convolution; None for none.
        strides: of the levels, image pixels between cells; 4, 8, 16, ... Levels beyond the body's are every second
            cell of the one before.
    """

    def __init__(
        self,
        body: ResNet,
        channels: int = 256,
        norm: Norm | None = None,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        if list(strides) != [4 * 2**level for level in range(max(len(strides), len(body.channels)))]:
            raise ValueError(
                f"strides must be 4, 8, 16, ..., at least the body's {len(body.channels)}, got {list(strides)}"
            )
        self.body, self.levels = body, len(strides)

        def conv(inputs: int, side: int) -> nn.Module:
            layer = nn.Conv2d(inputs, channels, side, padding=side // 2, bias=norm is None)
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is None:
                assert norm is not None
                return nn.Sequential(layer, norm(channels))
            nn.init.zeros_(layer.bias)
            return layer

        self.lateral = nn.ModuleList(conv(c, 1) for c in body.channels)
        self.output = nn.ModuleList(conv(channels, 3) for _ in body.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """From [B, 3, H, W] the levels P2, P3, ..., [B, channels, H / 2^k, W / 2^k]."""
        lateral = [layer(x) for layer, x in zip(self.lateral, self.body(image), strict=True)]
        merged = [lateral[-1]]
        for x in reversed(lateral[:-1]):
            merged.append(x + F.interpolate(merged[-1], size=x.shape[-2:], mode="nearest"))
        levels = [layer(x) for layer, x in zip(self.output, reversed(merged), strict=True)]
        while len(levels) < self.levels:
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return levels


def frozen_batch_norm(channels: int) -> nn.Module:
    """Batch normalisation whose statistics and weights stay as loaded."""
    norm: nn.Module = FrozenBatchNorm2d(channels)
    return norm
