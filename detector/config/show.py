"""Print a configuration (`--cfg job`): choices first, derived keys last."""

from __future__ import annotations

import re
import sys
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

FROM_DATA = ("classes", "num_classes")
"""Keys that are filled in after the dataset is read."""
_FIXED = ("_target_", "_partial_")


def show(config: DictConfig, resolve: bool = False) -> None:
    """Print a composed configuration as YAML; called within `hydra.main`.

    Args:
        config: the composed configuration.
        resolve: whether to replace interpolations by their values.
    """
    # Hydra lists choices from the end of the defaults list.
    chosen = reversed(list(HydraConfig.get().runtime.choices.items()))
    choices = {group: choice for group, choice in chosen if not group.startswith("hydra/")}
    if config.get("weights") is not None:
        sys.stdout.write(
            f"# Not shown: the settings that weights={config.weights} brings, which are read when the run begins, and\n"
            "# whether the keys given here exist. RUN/config.yaml is the run's configuration.\n\n"
        )
    sys.stdout.write(format_config(config, choices, resolve))


def format_config(config: DictConfig, choices: dict[str, Any], resolve: bool = False) -> str:
    """Format a configuration as YAML: the choices as comments, then the keys, then the derived keys."""
    lines = ["# Choices"]
    lines += [f"#   {group}={'null' if choice is None else choice}" for group, choice in choices.items()]
    order = sorted((str(key) for key in config), key=lambda key: (_rank(config, key), _depth(config, key)))
    derived = [key for key in order if _rank(config, key) == _DERIVED]
    for title, keys in (("Keys", [key for key in order if key not in derived]), ("Derived from others", derived)):
        if keys:
            part = {key: _plain(config, key, resolve) for key in keys}
            lines += ["", f"# {title}", OmegaConf.to_yaml(OmegaConf.create(part)).rstrip()]
    return "\n".join(lines) + "\n"


_VALUE, _PART, _DERIVED = range(3)


def _depth(config: DictConfig, key: str, above: tuple[str, ...] = ()) -> int:
    """Return the length of the longest chain of references from a part to other top-level keys."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    others = set(re.findall(r"\$\{(\w+)", str(plain[key]))) & set(plain) - {key, *above}
    return max((1 + _depth(config, str(other), (*above, key)) for other in others), default=0)


def _rank(config: DictConfig, key: str) -> int:
    """Return the rank of a key in the order of display: values, then parts, then keys derived from others."""
    if OmegaConf.is_interpolation(config, key) or (key in FROM_DATA and config._get_full_key(None) == ""):
        return _DERIVED
    node = config._get_node(key)
    if not isinstance(node, DictConfig) or OmegaConf.is_missing(config, key) or node._is_none():
        return _VALUE
    own = [_rank(node, str(name)) for name in node if name not in _FIXED]
    return _DERIVED if own and min(own) == _DERIVED else _PART


def _plain(config: DictConfig | ListConfig, key: Any, resolve: bool) -> Any:
    """Convert a value to plain data with ordered keys; interpolations that cannot be resolved stay."""
    node = config._get_node(key)
    if OmegaConf.is_missing(config, key):
        return "???"
    if OmegaConf.is_interpolation(config, key):
        raw = OmegaConf.to_container(config, resolve=False)[key]  # type: ignore[index]
        if not resolve:
            return raw
        try:
            node = config[key]
        except OmegaConfBaseException:
            return raw
    if isinstance(node, DictConfig) and not node._is_none():
        names = sorted((str(name) for name in node), key=lambda name: (_rank(node, name), name not in _FIXED))
        return {name: _plain(node, name, resolve) for name in names}
    if isinstance(node, ListConfig) and not node._is_none():
        return [_plain(node, i, resolve) for i in range(len(node))]
    return node._value() if isinstance(node, Node) else node
