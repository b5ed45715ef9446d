"""Compose the configuration that initial weights need, and check keys added on the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detector.config.compose import compose_config, not_chosen
from detector.config.mistakes import followed_key, unknown_key
from detector.config.overrides import allow_new_keys, key_of
from detector.config.targets import target_of
from detector.weights import PretrainedWeights, read_weights

STUDY_DEFAULTS = "study_defaults"
"""The preset in `configs/experiment/` that each run of a study begins with; all other choices come after it."""


def check_additions(name: str, overrides: Sequence[str], plain: Collection[str] = ()) -> None:
    """Check that keys added by `+key=value` are used: they are arguments of a `_target_`, or lie in an open section.

    Called inside `hydra.main`.

    Args:
        name: the script's configuration, `configs/NAME.yaml`.
        overrides: from the command line.
        plain: the keys to which `allow_new_keys` has added the `++`; the user has not asked for new keys there.

    Raises:
        ValueError: nothing uses a key; the message names it.
    """
    added = [o for o in overrides if o.startswith("+")]
    if not added:
        return
    others = [o for o in overrides if not o.startswith("+")]
    known = compose_config(others, name)
    if known.get("weights") is not None:
        known, _ = apply_conventions(known, others)
    plain_known: dict[str, Any] = OmegaConf.to_container(known, resolve=False)  # type: ignore[assignment]
    for override in added:
        key = override.lstrip("+").split("=")[0]
        if key.startswith("dataset.") and not_chosen("dataset"):
            continue  # it changes the dataset of a checkpoint, which `detector.config.given` knows
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(known, parent) if parent else known
        built = isinstance(node, DictConfig) and (last in node or takes(node, last))
        of_part = isinstance(node, DictConfig) and "_target_" in node
        open_to_all = key.startswith(OPEN_SECTIONS) and not of_part and key not in plain
        if (not built and not open_to_all) or followed_key(key, plain_known) is not None:
            raise ValueError(unknown_key(key, known))


OPEN_SECTIONS = ("trainer.", "logger.", "model.heads.further.")
"""Sections to which the user may add any key: Lightning's arguments, and parts of any name."""


def takes(node: DictConfig, key: str) -> bool:
    """Return whether the `_target_` of a node has an argument of this name."""
    if "_target_" not in node:
        return False
    parameters = inspect.signature(target_of(node)).parameters
    return key in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def apply_conventions(config: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, PretrainedWeights | None]:
    """Compose the configuration with the conventions of `config.weights`; the user's overrides take precedence.

    If the user has replaced a part, the preset's settings that the new part does not accept are dropped.

    Args:
        config: composed from the overrides.
        overrides: from the command line.

    Returns:
        the configuration, and the weights (None if `config.weights` is null).

    Raises:
        FileNotFoundError, OSError: the weights cannot be read.
        ValueError: the weights cannot be read, or the overrides contradict their conventions.
    """
    if config.weights is None:
        return config, None
    pretrained = read_weights(str(config.weights))
    given = {key_of(o): o for o in overrides}
    needed = [o for o in pretrained.conventions if key_of(o) not in given or "experiment=" in o]
    if not needed:
        return config, pretrained
    presets = [o.partition("=")[2] for o in needed if key_of(o) == "experiment"]
    chosen = given.get("experiment", "").partition("=")[2].strip("[]").split(",")
    chosen = [name.strip() for name in chosen if name.strip() not in ("", "null", *presets)]
    others = allow_new_keys(["weights=", *(o for o in needed if key_of(o) != "experiment")])[1:]
    # Hydra demands `+key` for a key that does not exist; the preset may bring it, and `++key` works in both cases.
    own = [re.sub(r"^\+(?!\+)", "++", o) for o in allow_new_keys(overrides) if key_of(o) != "experiment"]
    try:
        plain = compose_config([*([f"experiment=[{','.join(chosen)}]"] if chosen else []), *own])
        # The user's experiments come last, and so take precedence.
        names = sorted([*presets, *chosen], key=lambda name: name != STUDY_DEFAULTS)
        config = compose_config([f"experiment=[{','.join(names)}]", *others, *own])
    except ValueError as error:
        raise ValueError(f"weights={config.weights} needs {' '.join(needed)}, which fails: {error}") from error
    OmegaConf.set_struct(config, False)
    _prune(config, plain)
    OmegaConf.set_struct(config, True)
    return config, pretrained


def _prune(config: DictConfig, plain: DictConfig) -> None:
    """Drop, in place, the keys that their part does not accept, unless they are in `plain`."""
    for key in [str(k) for k in config]:
        part = _part(config, key)
        if "_target_" in config and key not in plain and not key.startswith("_"):
            detail = part is not None and not _describes(part)  # settings for a part that the user has replaced
            if detail or not takes(config, key):
                del config[key]
                continue
        if part is not None:
            _prune(part, _part(plain, key) or OmegaConf.create())


def _describes(node: DictConfig) -> bool:
    """Return whether a node builds something: a part, or parts by name."""
    return "_target_" in node or any(_describes(part) for key in node if (part := _part(node, str(key))) is not None)


def _part(config: DictConfig, key: str) -> DictConfig | None:
    """Return the mapping at this key; None if there is another value or an interpolation."""
    if key not in config or OmegaConf.is_interpolation(config, key):
        return None
    part = config[key]
    return part if isinstance(part, DictConfig) else None
