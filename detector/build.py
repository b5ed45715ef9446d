"""From a configuration to objects, from a checkpoint to a model. The only module of the package that knows Hydra."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from detector.models.rcnn import RCNN
from detector.types import DetectionDataset

FORMAT = 1
"""The version of what a checkpoint carries under `aligned_rcnn`."""

TRUSTED = (
    "detector.models.",
    "detector.data.",
    "detector.evaluation.",
    "detector.matching.",
    "detector.optim.",
    "ops.",
    "torch.nn.",
    "torch.optim.",
    "torchvision.models.",
    "torchvision.ops.",
)
"""Where a target from a checkpoint may be defined: parts of detectors, and nothing that reads, writes or runs."""

_DATA_DIR = "${data_dir}"


def instantiate(config: Any, **kwargs: Any) -> Any:
    """Build what `_target_` names, with its parts.

    Raises:
        ValueError: an argument does not fit; the message is the part's own, with the key in the configuration.
    """
    try:
        return hydra_instantiate(config, **kwargs, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError | TypeError | OSError):
            where = str(error).rsplit("full_key: ", 1)[-1] if "full_key: " in str(error) else None
            raise ValueError(f"{cause} (key {where!r} of the configuration)" if where else str(cause)) from error
        raise


def check_additions(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a key added by `+key=value` where nothing would ever read it; a part that is built refuses by itself.

    Raises:
        ValueError: naming the key.
    """
    for override in overrides:
        if not override.startswith("+"):
            continue
        key = override.lstrip("+").split("=")[0]
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        built = isinstance(node, DictConfig) and "_target_" in node
        if not built and not key.startswith(("trainer.", "logger.", "experiment")):
            known = [str(k) for k in node if k != name] if isinstance(node, DictConfig) else []
            raise ValueError(f"unknown key {key!r}; {parent or 'the configuration'} has {', '.join(known)}")


def compose_model(config: DictConfig, classes: Sequence[str]) -> DictConfig:
    """The configuration with the facts that only the dataset knows: the names and the number of its classes."""
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    config.classes = list(classes)
    config.num_classes = len(classes)
    return config


def build_model(config: DictConfig) -> RCNN:
    """The detector that `config.model` describes; `config.num_classes` must be known."""
    model: RCNN = instantiate(config.model)
    return model


def build_dataset(config: DictConfig, split: str) -> DetectionDataset:
    """The dataset's `train` or `val` part; masks are read only where the model has a mask head."""
    node = config.dataset[split]
    options = {"masks": False} if "masks" in node and not has_mask_head(config) else {}
    dataset: DetectionDataset = instantiate(node, **options)
    return dataset


def has_mask_head(config: DictConfig) -> bool:
    """Whether the model predicts masks."""
    return OmegaConf.select(config, "model.heads.mask_head") is not None


# Checkpoints


def portable(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain data, but for the loggers, which are not part of what a checkpoint is.

    In it the datasets still hang on `data_dir`, so that they can be moved.
    """
    data_dir = config.data_dir
    moved = config.copy()
    OmegaConf.set_readonly(moved, False)
    moved.data_dir = _DATA_DIR.replace("$", "\0")
    moved.logger = None
    plain = OmegaConf.to_container(moved, resolve=True)

    def restore(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\0", "$")
        if isinstance(value, dict):
            return {k: restore(v) for k, v in value.items()}
        return [restore(v) for v in value] if isinstance(value, list) else value

    result: dict[str, Any] = restore(plain)
    result["data_dir"] = data_dir
    return result


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string within plain data, with its path."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _strings(v, f"{key}.{k}" if key else str(k))
    elif isinstance(value, Sequence):
        for i, v in enumerate(value):
            yield from _strings(v, f"{key}[{i}]")


def _definition(target: str) -> str:
    """Where what `target` names is defined: `module.qualified_name`."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return f"{found.__module__}.{found.__qualname__}"
    raise ModuleNotFoundError(target)


def check_targets(config: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration from a file unless all its targets are parts of detectors.

    Both the name and what it leads to are looked at: a trusted module that imports `os` does not lend it its name.

    Raises:
        ValueError: naming the target and its key.
    """
    for key, value in _strings(config):
        if "${" in value.replace(_DATA_DIR, ""):
            raise ValueError(f"{source}: {key} = {value!r} would be computed when read; only {_DATA_DIR} may be")
        if not key.endswith("_target_"):
            continue
        refusal = (
            f"{source}: its configuration asks for {value!r} (at {key}), which is outside this project, torch.nn, "
            "torch.optim and torchvision; it is refused and nothing of it was run"
        )
        if not value.startswith(TRUSTED) or (value.startswith("ops.") and value.count(".") > 1):
            raise ValueError(refusal)
        try:
            definition = _definition(value)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{source}: nothing is called {value!r} (at {key}) in this version") from error
        if not definition.startswith(TRUSTED):
            raise ValueError(refusal)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, read as data only.

    Raises:
        FileNotFoundError, ValueError: it is not there, or it is not one of this project's.
    """
    path = Path(path)
    if not path.is_file():
        hint = f"; did you mean {path / 'checkpoints' / 'last.ckpt'}?" if path.is_dir() else ""
        raise FileNotFoundError(f"checkpoint {str(path)!r}: no such file{hint}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged or hostile file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"checkpoint {str(path)!r} cannot be read as data: {first}") from error
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("aligned_rcnn"), dict)
        or "state_dict" not in content
    ):
        raise ValueError(
            f"checkpoint {str(path)!r} was not written by this project's train.py: it carries no configuration"
        )
    own = content["aligned_rcnn"]
    if own.get("format") != FORMAT or not isinstance(own.get("config"), dict):
        raise ValueError(f"checkpoint {str(path)!r} has format {own.get('format')!r}; this version reads {FORMAT}")
    check_targets(own["config"], f"checkpoint {str(path)!r}")
    return content


def checkpoint_config(content: Mapping[str, Any]) -> DictConfig:
    """The configuration that a checkpoint read by `read_checkpoint` carries."""
    config: DictConfig = OmegaConf.create(content["aligned_rcnn"]["config"])
    return config


def load_weights(model: nn.Module, content: Mapping[str, Any], source: str) -> None:
    """Put a checkpoint's weights into `model`.

    Raises:
        ValueError: they are of another model; names what does not fit.
    """
    state: dict[str, Tensor] = {
        k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")
    }
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"checkpoint {source!r} is of another model: {len(missing)} weights missing {missing[:2]}, "
            f"{len(unexpected)} left over {unexpected[:2]}, {len(shapes)} of another shape {sorted(shapes)[:2]}"
        )
    model.load_state_dict(state)
