"""Explain mistakes in overrides: unknown keys and choices, with suggestions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from detector.config.help import CONFIGS
from detector.config.overrides import key_of, parse
from detector.config.renamed import RENAMED

_KEY = re.compile(
    r"Could not (?:override|delete from config\.|delete) '([^']+)'"
    r"|Multiple values for (\S+)\. To"
    r"|An item is already at '([^']+)'"
)
_MERGING = re.compile(r"Error merging override (.*)")
_ADVICE = re.compile(
    r"To append to your |Set the environment |See https|Config search path|\tprovider=|full_key|\s*\w+_type="
)


def explain(error: Exception, name: str, overrides: Sequence[str] = ()) -> str:
    """Return one message on what is wrong with a command line.

    Args:
        error: raised by Hydra, or by the parsing before it.
        name: the configuration, `configs/NAME.yaml`.
        overrides: the overrides that were composed.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.removesuffix(".yaml").rpartition("/")
        if not group:
            return f"there is no configs/{choice}.yaml"
        return unknown_choice(group, choice, error.options or _choices(group, name, overrides))
    if isinstance(error, MissingMandatoryValue):
        return f"give {error.full_key}=..."
    if "Config group override must be" in str(error):
        given = next((o for o in overrides if _names_nothing(o)), None)
        if given is None:
            return _first(error)
        choices = ", ".join(_choices(key_of(given), name, overrides))
        return f"{given}: give a name, or leave it out. Choices: {choices}"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return str(error)
    key = _refused(error)
    if key and ("Multiple values" in str(error) or "already at" in str(error)):
        given = next((o for o in overrides if o.startswith("+") and key_of(o) == key), f"+{key}=...")
        return f"{given}: {key} exists already; give {given.lstrip('+')}"
    if key:
        return unknown_key(key, _known(name, overrides))
    if merging := _MERGING.search(str(error)):
        return f"{merging[1]}: {_first(error.__cause__ or error)}"
    return _first(error)


def _names_nothing(override: str) -> bool:
    """Return whether an override gives a config group a value that is no name, such as `pooler=3`."""
    parsed = parse(override)
    named = parsed is None or isinstance(parsed.value(), str | list)
    return not named and (CONFIGS / key_of(override)).is_dir()


def _refused(error: Exception) -> str | None:
    """Return the key in an error message of Hydra."""
    match = _KEY.search(str(error))
    return next(filter(None, match.groups())) if match else None


def _first(error: BaseException) -> str:
    """Return an error message without advice on Hydra."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not _ADVICE.match(line)]
    cause = _first(error.__cause__) if error.__cause__ is not None else ""
    return " ".join(lines) or cause or type(error).__name__


def unknown_choice(group: str, choice: str, choices: Sequence[str]) -> str:
    """Return a message on an unknown choice of a group, with a suggestion and the list of choices."""
    near = get_close_matches(choice, choices, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{group}={choice}: {meant}Choices: {', '.join(choices)}"


def unknown_key(key: str, known: DictConfig | dict[str, Any]) -> str:
    """Return a message on an unknown key, with a suggestion or else the keys that exist.

    Args:
        key: the full key, with dots.
        known: the configuration.
    """
    whole: Any = OmegaConf.to_container(known, resolve=False) if isinstance(known, DictConfig) else known
    parts = key.replace("@", ".").split(".")
    since = ".".join(RENAMED.get(part, part) for part in parts)
    if since != key and _exists(since.split("."), whole):
        return f"unknown key {key!r}; it is called {followed_key(since, whole) or since} since version 0.2"
    if (origin := followed_key(key, whole)) is not None:
        return f"{key} follows {origin}; set that"
    if _exists(parts, whole):  # given a mapping with further keys
        return f"{key} has other keys: to replace {key} by a part with other arguments, write ++{key}={{...}}"
    if parts[0] == "dataset" and isinstance(whole.get("dataset"), dict) and _exists(parts[1:], _own_data()):
        return f"unknown key {key!r} of dataset={whole['dataset'].get('name')}; dataset=custom, your own data, has it"
    if near := next(_near(parts, whole, whole, ""), None) or _elsewhere(parts, whole):
        return f"unknown key {key!r}; did you mean {near}?"
    node = whole
    place: list[str] = []
    for part in parts:
        below = _followed(node, whole).get(part) if isinstance(_followed(node, whole), dict) else None
        if not isinstance(_followed(below, whole), dict):
            break
        node, place = below, [*place, part]
    names = [str(name) for name in _followed(node, whole) if name != "hydra"]
    return f"unknown key {key!r}; {'.'.join(place) or 'the configuration'} has {', '.join(names)}"


def _own_data() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / "dataset/custom.yaml").read_text(encoding="utf-8"))
    return content


def _followed(node: Any, whole: dict[str, Any]) -> Any:
    """Follow references such as `${backbone.module}` to their value."""
    while isinstance(node, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", node)):
        node = _at(match[1], whole)
    return node


def followed_key(key: str, whole: dict[str, Any]) -> str | None:
    """Return the key whose value a key below a reference has; None if it lies below none, or there is no such value.

    With `dataset.val.reader: ${dataset.reader}` and `exif: ${dataset.exif}` in that, `dataset.val.reader.exif` is
    `dataset.exif`.
    """
    node: Any = whole
    origin: list[str] = []
    below = False
    for part in key.split("."):
        while isinstance(node, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", node)):
            node, origin, below = _at(match[1], whole), match[1].split("."), True
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
        origin = [*origin, part]
    while below and isinstance(node, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", node)):
        node, origin = _at(match[1], whole), match[1].split(".")
    return ".".join(origin) if below else None


def _at(key: str, whole: dict[str, Any]) -> Any:
    node: Any = whole
    for part in key.split("."):
        node = _followed(node, whole)
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _exists(parts: Sequence[str], whole: dict[str, Any]) -> bool:
    """Whether a key is there, also behind references."""
    node: Any = whole
    for part in parts:
        node = _followed(node, whole)
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _near(parts: list[str], node: Any, whole: dict[str, Any], place: str) -> Iterator[str]:
    """Yield similar keys, the closest first, matched part by part from the top."""
    if not parts:
        yield place
        return
    node = _followed(node, whole)
    if not isinstance(node, dict):
        return
    names = {str(name) for name in node}
    first, *rest = parts
    for name in [first] if first in names else get_close_matches(first, sorted(names), n=3):
        yield from _near(rest, node[name], whole, f"{place}.{name}" if place else name)


def _elsewhere(parts: list[str], whole: dict[str, Any]) -> str | None:
    """Return the shallowest key that ends in these parts (`lr`: `schedule.optimizer.lr`)."""
    found = [
        (len(path), ".".join(path))
        for path, value in _paths(whole, [])
        if path[-len(parts) :] == parts and path[0] != "hydra" and not str(value).startswith("${")
    ]
    return min(found)[1] if found else None


def _paths(node: Any, place: list[str]) -> Iterator[tuple[list[str], Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield [*place, str(name)], value
            yield from _paths(value, [*place, str(name)])


def _known(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the configuration with the valid ones of the overrides."""
    kept = [first for override in overrides if (first := _first_of_sweep(override)) is not None]
    while True:
        try:
            return _compose(name, kept)
        except (HydraException, ValueError) as error:
            key = _refused(error)
            fewer = [o for o in kept if key is not None and key_of(o) != key]
            if not kept:
                return {}
            kept = fewer if len(fewer) < len(kept) else []


def _first_of_sweep(override: str) -> str | None:
    parsed = parse(override)
    if parsed is None or not parsed.is_sweep_override():
        return override
    return None if not parsed.is_discrete_sweep() else f"{key_of(override)}={next(parsed.sweep_string_iterator())}"


def _compose(name: str, overrides: list[str]) -> dict[str, Any]:
    if GlobalHydra.instance().is_initialized():
        config = compose(name, overrides=overrides, return_hydra_config=True)
    else:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose(name, overrides=overrides, return_hydra_config=True)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    return plain


def _choices(group: str, name: str, overrides: Sequence[str]) -> list[str]:
    searched = [o for o in overrides if o.startswith("hydra.searchpath")]

    def options() -> list[str]:
        loader = GlobalHydra.instance().config_loader()
        return loader.get_group_options(group, ObjectType.CONFIG, config_name=name, overrides=searched)

    if GlobalHydra.instance().is_initialized():
        return options()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return options()
