"""Call a script's function from Python, with settings in place of a command line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from detector.config.cli import Command, reraise_ctrl_c
from detector.config.help import CONFIGS
from detector.config.mistakes import explain
from detector.config.overrides import allow_new_keys, plain_keys, quote_value
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

    The current folder, the arguments of the process and Hydra's state are as before when it returns.

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
        ValueError: a key sets Hydra's mode.
        TypeError: a value is none that a configuration can hold; the message names it.
    """
    if "hydra.mode" in settings:
        raise ValueError("hydra.mode: from Python a run is called alone; call it for each of several")
    return [
        key if key.startswith("~") and value is None else f"{key}={_text(value, key)}"
        for key, value in settings.items()
    ]


def _text(value: Any, key: str) -> str:
    """Write a value in Hydra's grammar."""
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=True)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        text = str(value)
        # Choices of a group need no quotes, and what reads as another type does.
        plain = re.fullmatch(r"[A-Za-z_]\w*", text) and text.lower() not in ("null", "true", "false", "nan", "inf")
        return text if plain else quote_value(text)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_text(part, f'{key}.{name}')}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text(part, f"{key}[{i}]") for i, part in enumerate(value)) + "]"
    raise TypeError(f"{key}={value!r}: give a number, a text, a list or a dict, not a {type(value).__name__}")


@contextmanager
def _as_process(arguments: list[str]) -> Iterator[None]:
    """Let Hydra read these arguments, beside what the caller may have begun with Hydra itself."""
    before, begun = sys.argv, GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    sys.argv = arguments
    try:
        yield
    finally:
        sys.argv = before
        GlobalHydra.instance().hydra = begun
