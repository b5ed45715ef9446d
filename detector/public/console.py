"""The command `aligned-rcnn NAME [...]`, which runs `scripts/NAME.py` in any folder."""

from __future__ import annotations

import ast
import runpy
import sys
from difflib import get_close_matches
from pathlib import Path

from detector.names import ROOT

SCRIPTS = ROOT / "scripts"


def commands() -> dict[str, str]:
    """Return what each command does, by name: the first line of its script."""
    files = sorted(path for path in SCRIPTS.glob("*.py") if path.stem != "__init__")
    return {path.stem: _summary(path) for path in files}


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = text.splitlines()[0].rstrip(".")
    return line.partition(": ")[0]


def main() -> None:
    """Run a script as `python scripts/NAME.py` does, with the arguments after its name."""
    known = commands()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: aligned-rcnn COMMAND [...]\n\nCommands, each with its own --help:")
        print("\n".join(f"  {command:<12}{summary}" for command, summary in known.items()))
        return
    if name == "--version":
        from importlib.metadata import version

        print(f"aligned-rcnn {version('aligned-rcnn')}")
        return
    if name not in known:
        near = get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        print(f"error: unknown command {name!r}: {meant}Commands: {', '.join(known)}", file=sys.stderr)
        sys.exit(1)
    # The script's path and arguments, as Lightning starts further processes with them.
    sys.argv = [str(SCRIPTS / f"{name}.py"), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
