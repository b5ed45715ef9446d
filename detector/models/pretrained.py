"""Read and load weights of torchvision's classification networks, pretrained on ImageNet."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
import torchvision
from torch import Tensor, nn

log = logging.getLogger(__name__)

RGB = 3


def read_pretrained(name: str, weights: str) -> dict[str, Tensor]:
    """Read the state dict of torchvision's network `name`.

    Args:
        name: torchvision's, such as `resnet50`.
        weights: `imagenet` (or torchvision's name of a set, such as `IMAGENET1K_V1`), downloaded where they are not on
            disk yet; or the path of a file with a state dict.

    Raises:
        ValueError: there is no set of that name, or the file holds something else.
        OSError: the file does not exist, or the download fails.
    """
    if weights == "imagenet" or weights.startswith("IMAGENET"):
        if name not in torchvision.models.list_models():
            raise ValueError(
                f"backbone weights {weights!r}: torchvision has none of {name}; give a file of weights, or "
                "backbone.weights=null for random ones"
            )
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


def load_pretrained(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a module; counters of batches, which frozen norms do not have, are left out.

    Where the module's first convolution takes images of other channels, that of `state` is adapted (`adapt_stem`).

    Args:
        module: has the names and shapes of `state`.
        state: from `read_pretrained`, without layers that `module` does not have.
        source: the `weights` of `read_pretrained`, for messages.

    Raises:
        ValueError: they do not fit; the message names what.
    """
    own = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    given, adapted = adapt_stems(given, own)
    if adapted:
        log.info("backbone weights %s: %s", source, adapted)
    missing, unexpected = [k for k in own if k not in given], [k for k in given if k not in own]
    if unexpected and not missing and all(_is_statistic(k) for k in unexpected):
        raise ValueError(
            f"backbone weights {source!r} were trained with batch norms, which this network does not have: take "
            "norm=batch, norm=sync or norm=frozen, or backbone.weights=null for random ones"
        )
    if missing and not unexpected and all(_is_statistic(k) for k in missing):
        raise ValueError(f"backbone weights {source!r} were trained without batch norms; take norm=group")
    shapes = [
        f"{k} {tuple(given[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(
            f"backbone weights {source!r} do not fit: missing {missing[:3]}, unexpected {unexpected[:3]}, of another "
            f"shape {shapes[:3]}; take the backbone that they were trained with"
        )
    module.load_state_dict(given, strict=False)


def _is_statistic(name: str) -> bool:
    return name.endswith((".running_mean", ".running_var"))


def set_in_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution of a network for RGB images by one, with random weights, for other channels.

    Args:
        network: takes [B, 3, H, W].
        channels: of the images.

    Raises:
        ValueError: there is no convolution of three channels.
    """
    if channels == RGB:
        return
    convs = ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == RGB)
    name, conv = next(convs, ("", None))
    if conv is None:
        raise ValueError(f"in_channels={channels}: {type(network).__name__} has no convolution on RGB to replace")
    new = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, new)


def adapt_stem(weight: Tensor, channels: int) -> Tensor:
    """Adapt the filters of a convolution on RGB, [D, 3, h, w], to other channels, as timm's `adapt_input_conv`.

    For one channel the three are summed: a grey image gives what it gave as RGB. For others they are repeated and
    scaled by 3 / channels, so that activations keep their size.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // RGB), 1, 1)[:, :channels]
    return repeated if channels == RGB else repeated * (RGB / channels)


def adapt_stems(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Adapt convolutions on RGB in a state dict to a network for images of other channels.

    Args:
        state: the weights to load.
        own: the network's state dict.

    Returns:
        the weights, and what was done, to print; empty if nothing was.
    """
    adapted, notes = dict(state), []
    for key, weight in state.items():
        wanted = own[key].shape if key in own else weight.shape
        rest = weight.ndim == 4 and wanted[:1] + wanted[2:] == weight.shape[:1] + weight.shape[2:]
        if rest and weight.shape[1] == RGB and wanted[1] != RGB:
            adapted[key] = adapt_stem(weight, wanted[1])
            how = "summed" if wanted[1] == 1 else f"repeated and scaled by 3/{wanted[1]}"
            notes.append(f"{key}: the filters of R, G and B are {how}, for {wanted[1]} channels")
    return adapted, "; ".join(notes)
