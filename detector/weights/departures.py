"""What weights of an earlier run were trained with and the new run has otherwise, though they fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

CONVENTIONS = (
    *("norm", "pooler", "backbone", "model.normalize", "model.proposer.anchors", "model.proposer.bbox_reg_weights"),
    *("model.heads.bbox_reg_weights", "model.heads.box_head.bbox_reg_weights"),
)
"""The parts of a configuration that say what the numbers in weights mean."""

FREE = ("weights", "freeze_at")
"""What of the backbone is about training it; numbers called weights scale a box's deltas and are compared."""

_ABSENT = object()


def departures(config: DictConfig, trained: Mapping[str, Any]) -> list[str]:
    """The settings in which a run differs from that of its first weights, as overrides that would keep them.

    A value that only follows another is not named beside it.

    Args:
        config: the run's, classes included.
        trained: resolved, of the run that the weights come from.

    Returns:
        such as `norm.eps=0.001 (here 1e-05)`.
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
    """The keys of single values below `key`; of a part of another kind, only its `_target_`."""
    node, theirs = _at(raw, key), _at(trained, key)
    if isinstance(node, Mapping):
        target = node.get("_target_", _ABSENT)
        other = target is not _ABSENT and isinstance(theirs, Mapping) and theirs.get("_target_", target) != target
        for name in ["_target_"] if other else node:
            yield from _settings(raw, trained, f"{key}.{name}")
    elif node is not _ABSENT and (isinstance(node, list) or key.rpartition(".")[2] not in FREE):
        yield from [key] if "${" not in str(node) or _reference(node) else []  # the computed change with the others


def _reference(value: Any) -> str | None:
    """The key that a value is taken from, whole."""
    match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    return match and match[1]


def _differs(config: DictConfig, trained: Mapping[str, Any], key: str) -> bool:
    """Whether both have a value, or values, of their own here; parts are compared where they are described."""
    theirs, value = _at(trained, key), _value(config, key)
    return theirs is not _ABSENT and theirs != value and not isinstance(value, dict)


def _source(config: DictConfig, raw: Mapping[str, Any], trained: Mapping[str, Any], key: str) -> tuple[str, Any]:
    """The setting that a differing one is taken from, as far as that differs too; with the run's value."""
    while (further := _reference(_at(raw, key))) and _differs(config, trained, further):
        key = further
    return key, _value(config, key)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
