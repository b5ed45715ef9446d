"""The reference of the configuration is made of the comments in its files."""

from pathlib import Path

import pytest

from detector.config import reference
from tests.conftest import ROOT


def test_it_is_that_of_the_files() -> None:
    made = reference.reference()
    assert (ROOT / "configs/README.md").read_text(encoding="utf-8") == made, "run python -m detector.config.reference"
    for row in (
        "| `schedule.steps` | `550` | optimiser steps |",
        "| `dataset.mixing.copy_paste.p` | `0.0` | probability |",
        "| `model.heads.sampler.positive_fraction` | `0.25` | at most this share of them is positive |",
    ):
        assert row in made
    assert "{_partial_: true}" not in made
    assert not any(line.endswith(("| below |", "| above |")) and "| `${" in line for line in made.splitlines())


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a: 1   # one\n", ["| `g.a` | `1` | one |"]),
        ("a: 1\n", []),
        ("# Of a.\na: {b: 1, c: x|y}\n", []),  # the head of the file
        ("z: 0\n# Of a,\n# in two lines.\na: {b: 1}\n", ["| `g.a` | `{b: 1}` | Of a, in two lines. |"]),
        (
            "a:   # part\n  _target_: x.y   # not listed\n  b: 2   # two\n",
            ["| `g.a` |  | part |", "| `g.a.b` | `2` | two |"],
        ),
        ("a:   # list\n  - x: 1\nb: 2   # two\n", ["| `g.a` |  | list |", "| `g.b` | `2` | two |"]),
        ("a: 1   # one,\n       # and more\nb: 2\n", ["| `g.a` | `1` | one, and more |"]),
        ("a: ${g.b}   # below\nb: 1   # x|y <z>\n", ["| `g.b` | `1` | x&#124;y &lt;z> |"]),
        ('a: "x # y"   # text\n', ["| `g.a` | `x # y` | text |"]),
    ],
)
def test_keys_and_comments(text: str, rows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert reference._table(path, "g.").splitlines()[2:] == rows
