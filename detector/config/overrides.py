"""Read the command line as Hydra does, and put values that its grammar cannot read in quotes."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

PATHS = ("checkpoint", "data_dir", "image", "input", "output", "proposals", "resume", "weights")
"""Keys whose values are names of files, also where such a name reads as a number (`input=2024`)."""
_KEY = re.compile(r"[+~]{0,2}[\w$][\w$./@:-]*")
_CONTAINER = re.compile(r"\s*[\[{'\"]")


def split_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Separate Hydra's options from overrides; options may stand anywhere.

    Returns:
        the options as Hydra parses them, the arguments that they are, and the overrides.

    Raises:
        ValueError: there is no such option.
    """
    parsed, further = get_args_parser().parse_known_args(list(arguments))
    for argument in further:
        if argument.startswith("-"):
            key, equals, value = argument.lstrip("-").partition("=")
            example = f"{key}={value}" if equals else f"{key}=..."
            raise ValueError(f"unknown option {argument}: keys have no dashes ({example}); --help lists them")
    overrides = [*parsed.overrides, *further]
    return parsed, [a for a in arguments if a not in overrides], overrides


def parse(override: str) -> Override | None:
    """Parse an override; None where Hydra's grammar cannot read it."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def quote_value(value: str) -> str:
    """Quote a value, so that Hydra reads it as this very string (but for `${...}`, which stays an interpolation)."""
    mark = "'" if '"' in value and "'" not in value else '"'
    # Hydra takes backslashes as such, but before a quote and at the end.
    return mark + re.sub(rf"(\\*)({mark}|$)", lambda m: m[1] * 2 + (m[2] and "\\" + m[2]), value) + mark


def quote_override(override: str, multirun: bool = False) -> str:
    """Quote the value of an override where Hydra's grammar cannot read it: a file called `photos (1)`, or `x=1.jpg`.

    Values that it reads stay as they are, such as lists, dictionaries and sweeps.

    Args:
        override: `key=value`, as the shell delivers it.
        multirun: whether `-m` is given, with which values separated by commas are a sweep.

    Raises:
        ValueError: it is no `key=value`; or the value is a malformed list, dictionary or sweep, or a sweep without
            `-m`: the message shows the right quotes.
    """
    key, equals, value = override.partition("=")
    if not _KEY.fullmatch(key) or not (equals or key.startswith("~")):
        raise ValueError(f"{override!r} is no key=value; a value with blanks needs quotes: 'key=a b'")
    as_string = f"{key}={quote_value(value)}"
    parsed = parse(override)
    if parsed is None:
        sweep = multirun and re.search(r",|^\w+\(", value) is not None
        if sweep or _CONTAINER.match(value) or parse(as_string) is None:
            several = '"photos (1)","photos (2)"' if sweep else '["photos (1)","photos (2)"]'
            raise ValueError(
                f"{override} cannot be read; if it is one value, quote it: {shlex.quote(as_string)}; "
                f"if it is several, quote each that has brackets, commas or the like: '{key}={several}'"
            )
        return as_string
    if parsed.is_sweep_override() and not multirun:
        raise ValueError(
            f"{override} is several values: give -m for a run with each, {shlex.quote(f'{key}=[{value}]')} for a list, "
            f"or {shlex.quote(as_string)} for one value"
        )
    if equals and key in PATHS and isinstance(parsed.value(), int | float):
        return as_string
    return override


def allow_new_keys(overrides: Sequence[str]) -> list[str]:
    """Let overrides set keys that only the preset of `weights=` brings.

    Hydra composes before the weights are read, and takes `++key=value` for a key that is not there yet.
    `check_additions` then refuses those that never come.
    """
    if not any(override.startswith("weights=") for override in overrides):
        return list(overrides)
    return [f"++{o}" if re.match(r"(?!hydra\.)\w+(\.\w+)+=", o) else o for o in overrides]
