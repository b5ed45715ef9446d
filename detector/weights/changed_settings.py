"""List the settings that change what loaded weights compute, although their shapes fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detector.models.rcnn import fit_to_channels

CONVENTIONS = (
    *("norm", "pooler", "backbone", "model.normalize", "model.proposer.anchors", "model.proposer.bbox_reg_weights"),
    *("model.heads.bbox_reg_weights", "model.heads.box_head.bbox_reg_weights", "dataset.val_augment"),
)
"""Sections of the configuration that determine how weights are used: normalisation, pooling, anchors, box deltas, the
size of the images."""

IGNORED_KEYS = ("weights", "freeze_at", "in_channels")
"""Keys of the backbone that are not compared: they concern its training only, or are said as weights are loaded."""

_ABSENT = object()


def changed_settings(config: DictConfig, trained: Mapping[str, Any]) -> list[str]:
    """List the settings in which a run differs from the run that trained its initial weights.

    A value that refers to another key (`${...}`) is not listed if that key is.

    Args:
        config: the new run's configuration, classes included.
        trained: the resolved configuration of the run that the weights come from.

    Returns:
        overrides that would restore the trained settings, such as `norm.eps=0.001 (here 1e-05)`.
    """
    raw: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    differing = [
        _source(config, raw, trained, key)
        for section in CONVENTIONS
        for key in _settings(raw, trained, section)
        if _differs(config, trained, key)
    ]
    return [f"{key}={_text(_at(trained, key))} (here {_text(value)})" for key, value in dict(differing).items()]


def _at(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name, _ABSENT) if isinstance(tree, Mapping) else _ABSENT
    return tree


def _value(config: DictConfig, key: str) -> Any:
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _settings(raw: Mapping[str, Any], trained: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield the keys of the values below `key`; if the part has another `_target_`, only that key."""
    node, theirs = _at(raw, key), _at(trained, key)
    if isinstance(node, Mapping):
        target = node.get("_target_", _ABSENT)
        other = target is not _ABSENT and isinstance(theirs, Mapping) and theirs.get("_target_", target) != target
        for name in ["_target_"] if other else node:
            yield from _settings(raw, trained, f"{key}.{name}")
    elif node is not _ABSENT and (isinstance(node, list) or key.rpartition(".")[2] not in IGNORED_KEYS):
        yield from (
            [key] if "${" not in str(node) or _reference(node) else []
        )  # an expression changes with the keys in it


def _reference(value: Any) -> str | None:
    """Return the key that a value refers to if it is `${key}` and nothing else."""
    match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    return match and match[1]


def _differs(config: DictConfig, trained: Mapping[str, Any], key: str) -> bool:
    """Return whether both configurations have this key, with different values. Nodes are compared key by key."""
    theirs, value = _at(trained, key), _value(config, key)
    if key.startswith("model.normalize.") and isinstance(theirs, list) and isinstance(value, list) and len(theirs) == 3:
        theirs = fit_to_channels(theirs, len(value))
    return theirs is not _ABSENT and theirs != value and not isinstance(value, dict)


def _source(config: DictConfig, raw: Mapping[str, Any], trained: Mapping[str, Any], key: str) -> tuple[str, Any]:
    """Follow the references of a differing key to the last key that differs too; returns it and its value."""
    while (further := _reference(_at(raw, key))) and _differs(config, trained, further):
        key = further
    return key, _value(config, key)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
