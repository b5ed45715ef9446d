"""Compose the configuration that given weights were trained with, and check keys added on the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from detector.config.compose import compose_config, key_of
from detector.config.mistakes import unknown_key
from detector.config.overrides import tolerant
from detector.weights import Foreign, read_weights


def check_additions(name: str, overrides: Sequence[str]) -> None:
    """Refuse a key added by `+key=value` that nothing reads; the arguments of a `_target_` are left to what it builds.

    Args:
        name: of the script's configuration; called inside `hydra.main`.
        overrides: from the command line.

    Raises:
        ValueError: naming the key.
    """
    added = [o for o in overrides if o.startswith("+")]
    if not added:
        return
    others = [o for o in overrides if not o.startswith("+")]
    known = compose_config(others, name)
    if known.get("weights") is not None:
        known, _ = with_conventions(known, others)
    for override in added:
        key = override.lstrip("+").split("=")[0]
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(known, parent) if parent else known
        built = isinstance(node, DictConfig) and (last in node or _takes(node, last))
        if not built and not key.startswith(OPEN):
            raise ValueError(unknown_key(key, known))


OPEN = ("trainer.", "logger.", "model.heads.further.")
"""Sections to which keys may be added: Lightning's arguments, and parts by a name of the user's."""


def _takes(node: DictConfig, key: str) -> bool:
    """Whether what `node` builds has an argument of this name."""
    if "_target_" not in node:
        return False
    parameters = inspect.signature(get_object(node["_target_"])).parameters
    return key in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def with_conventions(config: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, Foreign | None]:
    """Compose the configuration that `config.weights` needs, where the overrides do not say otherwise.

    Settings of the preset for a part that the user has replaced by one without such a key are left out.

    Args:
        config: composed from the overrides.
        overrides: from the command line.

    Returns:
        the configuration, and the weights, which are read once; None where `config.weights` is null.

    Raises:
        FileNotFoundError, OSError, ValueError: the weights cannot be read, or the overrides contradict them.
    """
    if config.weights is None:
        return config, None
    foreign = read_weights(str(config.weights))
    given = {key_of(o): o for o in overrides}
    needed = [o for o in foreign.conventions if key_of(o) not in given or "experiment=" in o]
    if not needed:
        return config, foreign
    presets = [o.partition("=")[2] for o in needed if key_of(o) == "experiment"]
    asked = given.get("experiment", "").partition("=")[2].strip("[]").split(",")
    asked = [name.strip() for name in asked if name.strip() not in ("", "null", *presets)]
    others = tolerant(["weights=", *(o for o in needed if key_of(o) != "experiment")])[1:]
    # `+key`, which Hydra asks for where a key does not exist, overrides a key that the preset has.
    own = [re.sub(r"^\+(?!\+)", "++", o) for o in tolerant(overrides) if key_of(o) != "experiment"]
    try:
        plain = compose_config([*([f"experiment=[{','.join(asked)}]"] if asked else []), *own])
        # The user's experiments come second: the later one wins.
        config = compose_config([f"experiment=[{','.join([*presets, *asked])}]", *others, *own])
    except HydraException as error:
        raise ValueError(f"weights={config.weights} needs {' '.join(needed)}, and with it: {error}") from error
    OmegaConf.set_struct(config, False)
    _prune(config, plain)
    OmegaConf.set_struct(config, True)
    return config, foreign


def _prune(config: DictConfig, plain: DictConfig) -> None:
    """Drop, in place, keys that their part does not accept and that `plain` does not give it."""
    for key in [str(k) for k in config]:
        part = _part(config, key)
        if "_target_" in config and key not in plain and not key.startswith("_"):
            detail = part is not None and not _describes(part)  # settings of a part that is absent
            if detail or not _takes(config, key):
                del config[key]
                continue
        if part is not None:
            _prune(part, _part(plain, key) or OmegaConf.create())


def _describes(node: DictConfig) -> bool:
    """Return whether a node builds something: a part, or parts by name."""
    return "_target_" in node or any(_describes(part) for key in node if (part := _part(node, str(key))) is not None)


def _part(config: DictConfig, key: str) -> DictConfig | None:
    """The mapping written at this key itself, not behind an interpolation."""
    if key not in config or OmegaConf.is_interpolation(config, key):
        return None
    part = config[key]
    return part if isinstance(part, DictConfig) else None
