"""Write the reference of all keys, `configs/README.md`, from the comments in the files of `configs/`.

python -m detector.config.reference > configs/README.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import yaml

from detector.config.help import CONFIGS, groups, read_header

HEAD = """\
# Configuration

`python -m detector.config.reference > configs/README.md` makes this file from the comments in the YAML files.

A command line chooses a file of a folder, `pooler=roipool`, and sets keys, `pooler.quantization=floor seed=1`.
`python scripts/train.py --help` shows the keys that matter, `--cfg job` all that a command line makes. A key whose
default is `${...}` takes the value of another key until it is set itself; such keys are listed where they say more than
the other one, and classes (`_target_`) are not listed. `null`: absent, as the comment says.
"""
SCRIPTS = (
    "train",
    "evaluate",
    "predict",
    "export",
    "ablate",
    "alignment",
    "proposals",
    "data",
    "data_check",
    "data_stats",
    "data_show",
    "data_convert",
    "data_suggest",
)
PLUMBING = re.compile(r"(as )?(above|below)$|configs/[\w/.]+$|(as )?in \w+$")
"""A comment that only says where another key is."""


def reference() -> str:
    """Return the text of `configs/README.md`."""
    parts = [HEAD]
    for name in SCRIPTS:
        script, _, action = name.partition("_")
        parts.append(f"## {script}.py{f' {action}' if action else ''}\n\n{read_header(name).summary}\n")
        parts.append(_table(CONFIGS / f"{name}.yaml", ""))
    chosen = {group: meaning for group, _, meaning in groups("train") if "/" not in group and group != "experiment"}
    for group, meaning in chosen.items():
        if (CONFIGS / group).is_dir():
            parts.append(f"## {group}=\n\n{meaning[0].upper()}{meaning[1:]}.\n")
            files = sorted((CONFIGS / group).rglob("*.yaml"), key=lambda path: (len(path.parts), path))
            parts += [_file(path, group) for path in files]
    for group, meaning in (("experiment", "Presets of groups and keys."), ("study", "Questions, for `ablate.py`.")):
        rows = [f"| `{path.stem}` | {_cell(_lead(path))} |" for path in sorted((CONFIGS / group).glob("*.yaml"))]
        parts.append(f"## {group}=\n\n{meaning}\n")
        parts.append("\n".join(["| choice | |", "|---|---|", *rows]) + "\n")
    return "\n".join(part for part in parts if part)


def _file(path: Path, group: str) -> str:
    """Return the section of a choice, or of a part that choices extend."""
    inner = path.relative_to(CONFIGS / group).with_suffix("")
    folder = [part for part in inner.parent.parts if part != "parts"]
    title = f"{group}={inner.name}" if len(inner.parts) == 1 else f"configs/{group}/{inner}.yaml"
    prefix = ".".join([group, *folder]) + "."
    return f"**`{title}`** {_lead(path)}".rstrip() + "\n\n" + _table(path, prefix)


def _lead(path: Path) -> str:
    """Return the comment at the head of a file, its command lines as code, or the question of a study."""
    text = path.read_text(encoding="utf-8")
    if path.parent.name == "study":
        return str(yaml.safe_load(text)["question"])
    head = "\n".join(takewhile(lambda line: line.startswith("#"), text.splitlines()))
    words = []
    for line in re.sub(r"\\\n# +", "", head).splitlines():
        said = line.removeprefix("#").strip()
        if re.match(r"python scripts/|\w+(\.\w+)*=\S+( |$)", said):
            words.append(f"`{said}`")
        elif not said.startswith("@package"):
            words.append(said)
    return " ".join(words)


def _table(path: Path, prefix: str) -> str:
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        return ""
    rows = [
        f"| `{prefix}{key}` | {f'`{default}`'.replace('|', '&#124;') if default else ''} | {_cell(comment)} |"
        for key, default, comment in _keys(root, text, text.splitlines(), ())
    ]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows]) + "\n" if rows else ""


def _cell(text: str) -> str:
    return text.replace("|", "&#124;").replace("<", "&lt;")


def _keys(
    node: yaml.MappingNode, text: str, lines: list[str], above: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    """Yield the keys with a comment: name below the group, default as written, comment."""
    for name, value in node.value:
        key = (*above, name.value)
        if key[0] in ("defaults", "hydra") or name.value.startswith("_"):
            continue
        if isinstance(value, yaml.CollectionNode) and not value.flow_style:  # it is written below its key
            if comment := _beside(lines, name.start_mark.line, name.end_mark.column):
                yield ".".join(key), "", comment
            if isinstance(value, yaml.MappingNode):
                yield from _keys(value, text, lines, key)
            continue
        comment = _beside(lines, value.end_mark.line, value.end_mark.column) or _over(lines, name.start_mark.line)
        default = " ".join(text[value.start_mark.index : value.end_mark.index].split()).strip("\"'")
        plumbing = default.startswith("${") and PLUMBING.match(comment)
        if comment and not plumbing:
            yield ".".join(key), default, comment


def _beside(lines: list[str], number: int, column: int) -> str:
    """Return the comment at the end of a line, with the lines of comment that go on below it in the same column."""
    before, mark, comment = lines[number][column:].partition("#")
    if not mark or before.strip(" :"):
        return ""
    parts, place = [comment.strip()], lines[number].index("#", column)
    for line in lines[number + 1 :]:
        if line.find("#") != place or line[:place].strip():
            break
        parts.append(line[place + 1 :].strip())
    return " ".join(parts)


def _over(lines: list[str], number: int) -> str:
    """Return the lines of comment above a key."""
    parts: list[str] = []
    indent = len(lines[number]) - len(lines[number].lstrip())
    while number and lines[number - 1].startswith(" " * indent + "# "):
        number -= 1
        parts.insert(0, lines[number].strip(" #"))
    return "" if number == 0 else " ".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
