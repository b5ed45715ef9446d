"""Call a script's function from Python, with settings in place of a command line."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import hydra
import numpy as np
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from detector.config.cli import Command, reraise_ctrl_c
from detector.config.help import CONFIGS
from detector.config.mistakes import explain
from detector.config.overrides import KEY, allow_new_keys, key_of, parse, plain_keys, quote_value
from detector.config.variables import FULL_ERROR, environment_variable

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Call(Command):
    """Hydra's task function that keeps the message of invalid input, where a script prints it and ends."""

    messages: list[str] = field(default_factory=list)

    def fail(self, message: str, multirun: bool) -> None:
        """Keep the message."""
        self.messages.append(message)


def call(
    name: str,
    function: Callable[[DictConfig, list[str], Path, Console], Result],
    settings: Mapping[str, Any],
    prepare: Callable[[list[str]], list[str]] | None = None,
) -> Result:
    """Compose a script's configuration and call a function with it, as `detector.config.command_line.run` does.

    The current folder, the arguments of the process, the root logger and Hydra's state are as before when it returns.

    Args:
        name: the script's configuration, `configs/NAME.yaml`.
        function: a script's main function, or one like it: see `detector.config.cli.Work`.
        settings: values by key, such as `{"pooler": "roipool", "schedule.steps": 600, "hydra.run.dir": "runs/a"}`:
            those of the command line, as Python's values.
        prepare: as of `run`.

    Returns:
        what the function returns.

    Raises:
        ValueError: the settings, or what they name, are invalid: the message that the script would print.
        TypeError: a value is none that a configuration can hold.
    """
    overrides = as_overrides(settings)
    overrides = overrides if prepare is None else prepare(overrides)
    found: list[Result] = []
    full = os.environ.get(FULL_ERROR)
    task = _Call(lambda *arguments: found.append(function(*arguments)), full, plain_keys(overrides))
    overrides = allow_new_keys(overrides)
    try:
        with reraise_ctrl_c(), environment_variable(FULL_ERROR, "1"), _as_process([name, *overrides]):
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error, name, overrides)) from error
    if task.messages:
        raise ValueError(task.messages[0])
    return found[0]


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as Hydra's overrides, `key=value`; a key that begins with `~` and has None deletes.

    Raises:
        ValueError: a key is none, or sets Hydra's mode, or a value has a key that Hydra's grammar has no form of.
        TypeError: these are no dict, or a value is none that a configuration can hold; the message names it.
    """
    if not isinstance(settings, Mapping):
        raise TypeError(f"{settings!r}: give a dict of settings, such as {{'pooler': 'roipool'}}")
    return [_override(key, value) for key, value in settings.items()]


def _override(key: Any, value: Any) -> str:
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key; give those of the command line, such as 'schedule.steps'")
    if key_of(key) == "hydra.mode" or (key_of(key) == "hydra" and isinstance(value, Mapping) and "mode" in value):
        raise ValueError(f"{key}: from Python a run is called alone; call it for each of several")
    if key.startswith("~") and value is None:
        return key
    plain = _plain(value, key)
    override = f"{key}={_text(plain)}"
    parsed = parse(override)
    if parsed is None or repr(_plain(parsed.value(), key)) != repr(plain):
        raise ValueError(
            f"{key}={value!r}: Hydra cannot parse a key in it: keys have ASCII letters, digits, blanks and no quotes, "
            "and none is null, true or false; write it into a YAML of your own, which hydra.searchpath finds"
        )
    return override


def _plain(value: Any, key: str) -> Any:
    """Return a value as a configuration holds it; the names in a dict are text."""
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(part, f"{key}.{name}") for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{key}[{i}]") for i, part in enumerate(value)]
    raise TypeError(f"{key}={value!r}: give a number, a text, a list or a dict, not a {type(value).__name__}")


def _text(value: Any) -> str:
    """Write a plain value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        # Choices of a group need no quotes, and what reads as another type does.
        plain = re.fullmatch(r"[A-Za-z_]\w*", value) and value.lower() not in ("null", "true", "false", "nan", "inf")
        return value if plain else quote_value(value)
    if isinstance(value, dict):
        names = (re.sub(r"[\\()\[\]{}:=,\t]|^ | $", r"\\\g<0>", name) for name in value)
        return "{" + ",".join(f"{name}:{_text(part)}" for name, part in zip(names, value.values(), strict=True)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return repr(value)


@contextmanager
def _as_process(arguments: list[str]) -> Iterator[None]:
    """Let Hydra read these arguments and set up logging, beside what the caller may have begun with both."""
    before, begun = sys.argv, GlobalHydra.instance().hydra
    log = logging.getLogger()
    handlers, level = log.handlers[:], log.level
    GlobalHydra.instance().clear()
    sys.argv = arguments
    try:
        yield
    finally:
        sys.argv = before
        GlobalHydra.instance().hydra = begun
        log.handlers[:] = handlers
        log.setLevel(level)
