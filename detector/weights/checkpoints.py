"""What a checkpoint carries beside weights, and what of it is let in when one is read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

import ops

FORMAT = 3
"""The version of what a checkpoint carries under `aligned_rcnn`."""

FACTORIES = frozenset(
    {
        "detector.data.augment.Augment",
        "detector.data.coco.CocoDataset",
        "detector.data.custom.custom",
        "detector.data.shapes.ShapesDataset",
        "detector.data.voc.VocDataset",
        "detector.evaluation.coco.CocoMetric",
        "detector.evaluation.voc.VocMetric",
        "detector.matching.BalancedSampler",
        "detector.matching.Matcher",
        "detector.models.backbone.frozen_batch_norm",
        "detector.models.backbone.group_norm",
        "detector.models.extracted.torchvision_model",
        "detector.models.losses.giou",
        "detector.models.losses.smooth_l1",
        "detector.models.mask_head.ClassAgnostic",
        "detector.models.mask_head.Sigmoid",
        "detector.models.mask_head.Softmax",
        "detector.masks.paste",
        "detector.masks.paste_on_whole_pixels",
        "detector.models.rpn.Limits",
        "detector.models.selection.Select",
        "detector.training.optim.cosine",
        "detector.training.optim.multistep",
    }
)
"""What a checkpoint's configuration may build beside the operators of `ops`, modules and optimisers."""

MODULES = ("detector.models.", "torch.nn.modules.", "torchvision.ops.")
"""Where the modules are defined that a checkpoint's configuration may build."""

_DATA_DIR = "${data_dir}"


def portable(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain data, but for the loggers, which are not part of what a checkpoint is.

    In it the datasets still hang on `data_dir`, so that they can be moved. It names no weights to begin with.
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
            # The checkpoint has better weights.
            return {k: None if k == "weights" and isinstance(v, str) else restore(v) for k, v in value.items()}
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


def _inside(path: Any) -> bool:
    """Whether a path lies under `data_dir`."""
    return isinstance(path, str) and path.startswith(_DATA_DIR + "/") and ".." not in Path(path).parts


def _nodes(value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping within plain data, with its path."""
    if isinstance(value, Mapping):
        yield key, value
        for k, v in value.items():
            yield from _nodes(v, f"{key}.{k}" if key else str(k))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, v in enumerate(value):
            yield from _nodes(v, f"{key}[{i}]")


def _allowed(target: str) -> bool:
    """Whether `target` names a part of a detector: a public class or function, not something that hangs on one.

    What the name leads to is looked at, not the name alone: a module that imports `os` does not lend it its name.
    """
    module, _, name = target.rpartition(".")
    if target in FACTORIES:
        return True
    if module == "ops":
        return name in ops.__all__
    if not module.startswith(("detector.models", "torch.nn", "torch.optim", "torchvision.ops")) or "._" in target:
        return False
    found = getattr(importlib.import_module(module), name)
    if not isinstance(found, type):
        return False
    if issubclass(found, nn.Module):
        return found.__module__.startswith(MODULES)
    return issubclass(found, torch.optim.Optimizer | LRScheduler) and found.__module__.startswith("torch.optim.")


def check_targets(config: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration from a file unless all its targets are parts of detectors.

    Raises:
        ValueError: naming the target and its key.
    """
    for key, value in _strings(config):
        if "${" in value.replace(_DATA_DIR, ""):
            raise ValueError(f"{source}: {key} = {value!r} would be computed when read; only {_DATA_DIR} may be")
        if key.rpartition(".")[2].strip() != "_target_":
            continue
        try:
            allowed = _allowed(value)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{source}: nothing is called {value!r} (at {key}) in this version") from error
        if not allowed:
            raise ValueError(
                f"{source}: its configuration asks for {value!r} (at {key}), which is no part of a detector of this "
                "project, torch or torchvision; it is refused and nothing of it was run"
            )
        if value.startswith("detector.data.") and not key.startswith("dataset."):
            raise ValueError(f"{source}: {key} = {value!r}: datasets are built under `dataset` only")
    for key, node in _nodes(config):
        if "_args_" in node:
            raise ValueError(f"{source}: {key}._args_: arguments go by their names")
        target = node.get("_target_")
        # Numbers under this name weigh a box's deltas.
        if target is not None and isinstance(node.get("weights"), str | Mapping):
            raise ValueError(f"{source}: {key}.weights = {node['weights']!r}: a checkpoint brings its own weights")
        if target == "detector.data.shapes.ShapesDataset" and not _inside(node.get("root")):
            raise ValueError(f"{source}: {key}.root = {node.get('root')!r}: shapes are drawn under {_DATA_DIR} only")


def read(path: str | Path) -> dict[str, Any]:
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


def config_of(content: Mapping[str, Any]) -> DictConfig:
    """The configuration that a checkpoint read by `read` carries."""
    config: DictConfig = OmegaConf.create(content["aligned_rcnn"]["config"])
    return config


def load(model: nn.Module, content: Mapping[str, Any], source: str) -> None:
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
