"""Parse the command line as Hydra does, and quote values that its grammar cannot parse."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

PATH_KEYS = ("checkpoint", "data_dir", "image", "input", "output", "predictions", "proposals", "resume", "weights")
"""Keys whose values are paths, also if one looks like a number (`input=2024`)."""
KEY = re.compile(r"[+~]{0,2}[\w$][\w$./@:-]*")
"""What may stand before `=`."""
_CONTAINER = re.compile(r"\s*[\[{'\"]")


def split_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Separate Hydra's options from overrides, in any order.

    Returns:
        the parsed options, the arguments they were parsed from, and the overrides.

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
    """Parse an override; returns None if it does not fit Hydra's grammar."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def quote_value(value: str) -> str:
    """Quote a value so that Hydra reads it as this string; `${...}` in it stays an interpolation."""
    mark = "'" if '"' in value and "'" not in value else '"'
    # Hydra reads backslashes literally, except before a quote and at the end.
    return mark + re.sub(rf"(\\*)({mark}|$)", lambda m: m[1] * 2 + (m[2] and "\\" + m[2]), value) + mark


def quote_override(override: str, multirun: bool = False) -> str:
    """Quote the value of an override that Hydra's grammar cannot parse, such as a file called `photos (1)`.

    Values that it can parse stay unchanged, such as lists, dictionaries and sweeps.

    Args:
        override: `key=value`, as it comes from the shell.
        multirun: whether `-m` is given, which makes values separated by commas a sweep.

    Raises:
        ValueError: it is no `key=value`, a malformed list, dictionary or sweep, or a sweep without `-m`. The message
            shows the right quotes.
    """
    key, equals, value = override.partition("=")
    if not KEY.fullmatch(key) or not (equals or key.startswith("~")):
        raise ValueError(f"{override!r} is no key=value; quote a value with blanks: 'key=a b'")
    as_string = f"{key}={quote_value(value)}"
    parsed = parse(override)
    if parsed is None:
        sweep = multirun and re.search(r",|^\w+\(", value) is not None
        if sweep or _CONTAINER.match(value) or parse(as_string) is None:
            several = '"photos (1)","photos (2)"' if sweep else '["photos (1)","photos (2)"]'
            raise ValueError(
                f"{override} cannot be parsed; if it is one value, quote it: {shlex.quote(as_string)}; "
                f"if it is several, quote each that has brackets, commas or other special characters: '{key}={several}'"
            )
        return as_string
    if parsed.is_sweep_override() and not multirun:
        raise ValueError(
            f"{override} has several values: give -m for a run with each, {shlex.quote(f'{key}=[{value}]')} for a "
            f"list, or {shlex.quote(as_string)} for one value"
        )
    if equals and key in PATH_KEYS and isinstance(parsed.value(), int | float):
        return as_string
    return override


def plain_keys(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that `allow_new_keys` changes to `++key`."""
    changed = zip(overrides, allow_new_keys(overrides), strict=True)
    return tuple(key_of(before) for before, after in changed if before != after)


def allow_new_keys(overrides: Sequence[str]) -> list[str]:
    """Change `key=value` to `++key=value` where the key may come only with a file that is read later.

    So it is beside `weights=`, whose preset brings keys, and below `dataset` where no dataset is chosen beside
    `checkpoint=` or `runs=`, whose dataset is meant. Hydra composes before these files are read. `check_additions` and
    `detector.config.given.given_dataset` later refuse keys that do not exist there either.
    """
    keys = {key_of(override) for override in overrides}
    if "weights" in keys:
        new = r"(?!hydra\.)\w+(\.\w+)+="
    elif keys & {"checkpoint", "runs"} and "dataset" not in keys:
        new = r"dataset(\.\w+)+="
    else:
        return list(overrides)
    return [f"++{o}" if re.match(new, o) else o for o in overrides]


def key_of(override: str) -> str:
    """Return the key that an override sets: `norm.eps` of `++norm.eps=1e-5`, `pooler` of `pooler@a.b=roipool`."""
    return override.lstrip("+~").split("=")[0].split("@")[0]
