"""Write the text of `--help` from a script's YAML file.

The first comment lines of `configs/NAME.yaml` describe the script and list the keys to show:

    # Train a detector, then evaluate it.
    # Usage: python scripts/train.py [group=choice ...] [key=value ...]
    # Example: python scripts/train.py pooler=roialign
    # Keys: dataset schedule.steps seed

A script with actions has a line `# Action: WORD   what it does` for each.

The default of each key and the comment beside it are read from the files of `configs/` with PyYAML, in a fraction of
the time that importing Hydra takes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from detector.names import PARENT

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WIDTH = 110
_MORE = """\
Every key of the configuration can be set like these: --cfg job lists them, choices first. With -m, a list of values
with commas (seed=0,1,2) does a run for each. hydra.run.dir=FOLDER places the run; --hydra-help: Hydra's own options."""
_PLACE = f"\nThe folder configs/ is {CONFIGS}." if PARENT else ""


@dataclass(frozen=True)
class Header:
    """The first comment lines of a script's YAML file."""

    summary: str
    usage: str
    examples: list[str]
    keys: list[str]
    actions: list[str]


def read_header(name: str) -> Header:
    """Read the first comment lines of `configs/NAME.yaml`."""
    lines = _file(name).read_text(encoding="utf-8").splitlines()
    comments = [line[2:].strip() for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]
    fields: dict[str, list[str]] = {"Usage": [], "Example": [], "Keys": [], "Action": []}
    summary = []
    for line in comments:
        label, _, text = line.partition(": ")
        fields[label].append(text) if label in fields else summary.append(line)
    usage, keys = "\n       ".join(fields["Usage"]), fields["Keys"][0].split()
    return Header(" ".join(summary), usage, fields["Example"], keys, fields["Action"])


def help_text(name: str) -> str:
    """Format the text of `scripts/NAME.py --help`: usage, the main keys with their defaults, examples."""
    head = read_header(name)
    rows = [_row(name, key) for key in head.keys]
    column = min(max(len(left) for left, _, _ in rows), 28) + 2
    parts = [head.summary, "", f"usage: {head.usage}", ""]
    if head.actions:
        parts += ["Actions, each with its own --help:", *(f"  {action}" for action in head.actions), ""]
    parts += ["Keys, with their defaults:"]
    for left, meaning, choices in rows:
        lines = textwrap.wrap(meaning, WIDTH - column - 2) or [""]
        if choices:
            more = f" ... ({len(choices)} in configs/{left.partition('=')[0]})"
            room = WIDTH - column - 4 - len(lines[-1])
            if room < 2 * len(more):  # nothing of them would be seen
                lines, room = [*lines[:-1], f"{lines[-1]}:", ""], WIDTH - column - 2
            shown = textwrap.shorten(", ".join(choices), room, placeholder=more)
            lines[-1] += f": {shown}" if lines[-1] else shown
        if len(left) > column - 2:
            lines = ["", *lines]
        parts += [f"  {left if i == 0 else '':{column}}{line}" for i, line in enumerate(lines)]
    parts += ["", "Examples:", *(f"  {example}" for example in head.examples), "", _MORE + _PLACE]
    return "\n".join(line.rstrip() for line in parts)


def _row(name: str, key: str) -> tuple[str, str, list[str]]:
    """Return `key=default`, the meaning of the key, and the choices if it is a group."""
    for group, choice, comment in groups(name):
        if key == group:
            return (
                f"{key}={choice.replace('null', '...')}",
                comment,
                sorted(p.stem for p in (CONFIGS / group).glob("*.yaml")),
            )
    value, comment = default_and_comment(name, key)
    return f"{key}={value.replace('???', '...')}", f"{comment} (required)" if value == "???" else comment, []


def default_and_comment(name: str, key: str) -> tuple[str, str]:
    """Return the default of a key of `configs/NAME.yaml`, as written there, and the comment beside it."""
    return _value(name, key.split("."))


def _value(name: str, key: list[str]) -> tuple[str, str]:
    """Return default and comment of a key, split at its dots, from a file or the files in its defaults list."""
    text = _file(name).read_text(encoding="utf-8")
    node = _child(yaml.compose(text), key)
    if node is not None:
        line = text.splitlines()[node.end_mark.line]
        comment = line[node.end_mark.column :].partition(" #")[2].strip()
        shown = text[node.start_mark.index : node.end_mark.index] if node.start_mark.line == node.end_mark.line else ""
        return shown.strip("\"'"), comment
    for group, choice, _ in _defaults(name):
        if group == key[0] and len(key) > 1:
            return _value(f"{group}/{choice}", key[1:])
        if group == "":
            found = _value(str(Path(name).parent / choice), key)
            if found[0]:
                return found
    return "", ""


def _child(node: yaml.Node | None, key: list[str]) -> yaml.Node | None:
    if not key or not isinstance(node, yaml.MappingNode):
        return node if not key else None
    for name, value in node.value:
        if name.value == key[0]:
            return _child(value, key[1:])
    return None


def _defaults(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield the entries of a file's defaults list: group (empty for the same group), choice and comment."""
    text = _file(name).read_text(encoding="utf-8")
    entries = _child(yaml.compose(text), ["defaults"])
    for entry in entries.value if isinstance(entries, yaml.SequenceNode) else ():
        line = text.splitlines()[entry.start_mark.line]
        comment = line[entry.start_mark.column :].partition(" #")[2].strip()
        if isinstance(entry, yaml.MappingNode):
            group, choice = entry.value[0]
            yield group.value.removeprefix("override "), choice.value, comment
        elif entry.value != "_self_":
            yield "", entry.value.partition("@")[0], comment


def groups(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield the groups of a file's defaults list, and of the files of its own folder that it extends."""
    for group, choice, comment in _defaults(name):
        if group:
            yield group, choice, comment
        else:
            yield from groups(str(Path(name).parent / choice))


def _file(name: str) -> Path:
    return CONFIGS / f"{name}.yaml"
