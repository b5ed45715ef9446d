"""Check that the configuration in a checkpoint builds only trusted classes and functions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

import ops
from detector.data.extra import PACKAGE as ALBUMENTATIONS
from detector.data.extra import is_transform
from detector.names import PACKAGE, everywhere, find, module_of

DATA_DIR = "${data_dir}"
"""The only interpolation allowed in a checkpoint: the parent folder of datasets, which can be moved."""

FACTORIES = frozenset(
    {
        "detector.data.augment.Augment",
        "detector.data.coco.CocoDataset",
        "detector.data.custom.custom",
        "detector.data.image.ImageReader",
        "detector.data.mixing.CopyPaste",
        "detector.data.mixing.Mosaic",
        "detector.data.shapes.ShapesDataset",
        "detector.data.tiny_shapes.TinyShapesDataset",
        "detector.data.voc.VocDataset",
        "detector.masks.MaskOutput",
        "detector.masks.paste",
        "detector.masks.paste_on_whole_pixels",
        "detector.matching.BalancedSampler",
        "detector.matching.Matcher",
        "detector.models.backbone.frozen_batch_norm",
        "detector.models.backbone.group_norm",
        "detector.models.extracted.torchvision_model",
        "detector.models.losses.giou",
        "detector.models.losses.smooth_l1",
        "detector.models.rfla.effective_receptive_fields",
        "detector.training.optim.Muon",
        "detector.training.optim.cosine",
        "detector.training.optim.multistep",
    }
)
"""Functions and classes that a checkpoint may build, besides operators of `ops`, classes of `detector.models` (such as
a head's `Output`), `nn.Module`s, optimisers, and transforms of albumentations that take plain arguments only."""

MODULES = ("torch.nn.modules.", "torchvision.ops.")
"""Prefixes of the modules whose `nn.Module`s a checkpoint may build."""

_trusted: set[str] = set()


OWN = ("detector", "ops", PACKAGE, "torch", "torchvision", "albumentations", "lightning", "hydra", "omegaconf", "numpy")
"""Packages that a checkpoint may build chosen parts of only, and that `trust` does not open."""


def trust_packages(packages: Iterable[str]) -> list[str]:
    """Allow checkpoints to build parts from Python packages, in this process (`trust=[mypackage]`).

    Args:
        packages: import names, such as `mypackage` or `mypackage.detection`. albumentations, for which earlier
            commands had to name it, is accepted: the transforms that checkpoints may build need no trust any more.

    Returns:
        the names.

    Raises:
        ValueError: a name is not a Python identifier, or that of a package that is not the user's own.
    """
    names = [packages] if isinstance(packages, str) else list(packages)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"trust={names}: give names of Python packages, such as trust=[mypackage]")
        if not _is_own_package(name) and name != ALBUMENTATIONS:
            raise ValueError(f"trust=[{name}]: trust is for packages of your own; what runs anything cannot be trusted")
    _trusted.update(name for name in names if _is_own_package(name))
    return names


def _is_own_package(name: str) -> bool:
    """Return whether a package can be the user's: not this project's, Python's or a library's that runs anything."""
    top = name.split(".")[0]
    return bool(top) and top not in OWN and top not in sys.stdlib_module_names


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _is_allowed(target: str) -> bool:
    """Return whether `target` names a public class or function that may be built.

    The module in which the object is defined counts, not the name it is imported by: `detector.models.x.os.system` is
    refused although its name begins with an allowed package.
    """
    module, _, name = target.rpartition(".")
    if target in FACTORIES:
        return True
    if module == "ops":
        return name in ops.__all__
    if module == ALBUMENTATIONS:
        return is_transform(name)
    if module.startswith("detector.evaluation."):
        found = find(target)
        return isinstance(found, type) and module_of(found).startswith("detector.evaluation.")
    if _within(module, _trusted):
        found = find(target)
        return callable(found) and _within(module_of(found), _trusted)
    if not module.startswith(("detector.models", "torch.nn", "torch.optim", "torchvision.ops")) or "._" in target:
        return False
    found = find(target)
    if not isinstance(found, type):
        return False
    if module_of(found).startswith("detector.models."):
        return True
    if issubclass(found, nn.Module):
        return found.__module__.startswith(MODULES)
    return issubclass(found, torch.optim.Optimizer | LRScheduler) and found.__module__.startswith("torch.optim.")


def check_targets(config: Mapping[str, Any], source: str, new_run: bool = False) -> None:
    """Refuse a configuration unless a checkpoint may build every `_target_` in it.

    Args:
        config: plain data, resolved except for `${data_dir}`.
        source: where it comes from, for messages.
        new_run: whether it is the configuration of a new run, which is refused if its checkpoints could not be read.

    Raises:
        ValueError: a target is not trusted; the message names it, its key and how to allow it.
    """
    for key, value in _strings(config):
        if "${" in value.replace(DATA_DIR, ""):
            raise ValueError(f"{source}: {key} = {value!r}: the only interpolation allowed here is {DATA_DIR}")
        if key.rpartition(".")[2].strip() != "_target_":
            continue
        if (name := everywhere(value)) != value:
            raise ValueError(f"{source}: {key} = {value!r}: configurations call it {name!r}, in installations, too")
        try:
            allowed = _is_allowed(value)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{source}: {key} = {value!r} is not there in this version ({error})") from error
        if not allowed:
            raise ValueError(_refusal(value, key, source, new_run))
        if value.startswith(("detector.data.", f"{ALBUMENTATIONS}.")) and not key.startswith("dataset."):
            raise ValueError(f"{source}: {key} = {value!r}: datasets and augmentations are built under `dataset` only")
    for key, node in _nodes(config):
        if "_args_" in node:
            raise ValueError(f"{source}: {key}._args_ is not allowed: give arguments by name")
        target = node.get("_target_")
        own = isinstance(target, str) and _within(target.rpartition(".")[0], _trusted)
        if target is not None and not own and isinstance(node.get("weights"), str | Mapping):
            raise ValueError(
                f"{source}: {key}.weights = {node['weights']!r}: not allowed, since a checkpoint has its own weights"
            )
        if target == "detector.data.shapes.ShapesDataset" and not _inside(node.get("root")):
            raise ValueError(
                f"{source}: {key}.root = {node.get('root')!r}: shapes may be written under {DATA_DIR} only"
            )


LOGGERS = ("CSVLogger", "CometLogger", "LitLogger", "MLFlowLogger", "NeptuneLogger", "TensorBoardLogger", "WandbLogger")
"""Classes of `lightning.pytorch.loggers` that the folder of a run may build when the run is resumed."""


def check_loggers(loggers: Any, source: str) -> None:
    """Refuse loggers recorded in a run's folder, unless they are Lightning's or of a trusted package.

    Args:
        loggers: nodes by name, plain data.
        source: where they come from, for messages.

    Raises:
        ValueError: one is not trusted; the message says how to allow it.
    """
    for key, value in _strings(loggers, "logger"):
        if "${" in value:
            raise ValueError(f"{source}: {key} = {value!r}: interpolations are not allowed here")
        if key.rpartition(".")[2].strip() != "_target_":
            continue
        module, _, name = value.rpartition(".")
        try:
            allowed = (module == "lightning.pytorch.loggers" and name in LOGGERS) or (
                _within(module, _trusted) and _is_allowed(value)
            )
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{source}: {key} = {value!r} is not there in this version ({error})") from error
        if not allowed:
            package = value.split(".")[0]
            trust = f"trust=[{package}] if you trust the package, or " if _is_own_package(value) else ""
            raise ValueError(f"{source}: {key} = {value!r} is not trusted: give {trust}another logger, logger=...")


def _refusal(target: str, key: str, source: str, new_run: bool) -> str:
    package = target.split(".")[0]
    if new_run and _is_own_package(target):
        return (
            f"{key} = {target!r} is no part of this project, torch or torchvision, and checkpoints build only "
            f"trusted parts: if you trust the package, add trust=[{package}] here and wherever the checkpoint is read"
        )
    if new_run or package in ("torch", "torchvision"):
        return (
            f"{source}: {key} = {target!r} is refused, and was not run: checkpoints build modules and optimisers of "
            "torch and torchvision, and public classes and functions of packages that you trust; this is neither: wrap "
            "it in a class or function of your own package"
        )
    way = f" (if you trust the package {package!r}: trust=[{package}])" if _is_own_package(target) else ""
    return (
        f"{source}: its configuration would build {target!r} (key {key}), which is no part of a detector of this "
        f"project, torch or torchvision; it is refused, and none of its code was run{way}"
    )


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string in plain data, with its key path."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _strings(v, f"{key}.{k}" if key else str(k))
    elif isinstance(value, Sequence):
        for i, v in enumerate(value):
            yield from _strings(v, f"{key}[{i}]")


def _nodes(value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every mapping in plain data, with its key path."""
    if isinstance(value, Mapping):
        yield key, value
        for k, v in value.items():
            yield from _nodes(v, f"{key}.{k}" if key else str(k))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, v in enumerate(value):
            yield from _nodes(v, f"{key}[{i}]")


def _inside(path: Any) -> bool:
    """Return whether a path lies under `${data_dir}`."""
    return isinstance(path, str) and path.startswith(DATA_DIR + "/") and ".." not in Path(path).parts
