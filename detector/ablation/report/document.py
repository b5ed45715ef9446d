"""A document of headings, text, tables and pictures; the templates that write it as Markdown, HTML and LaTeX."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

Cell = str
"""Plain text; a line break separates a number from its interval."""


@dataclass(frozen=True)
class Table:
    """A table of formatted cells."""

    name: str
    """of its files, without suffix"""
    title: str
    header: list[Cell]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    """sentences below it"""
    left: int = 1
    """the number of leading columns that hold text and are left-aligned"""
    type: ClassVar[str] = "table"

    @property
    def columns(self) -> list[str]:
        """The alignment of each column, `left` or `right`."""
        return ["left"] * self.left + ["right"] * (len(self.header) - self.left)


@dataclass(frozen=True)
class Heading:
    """A heading; `depth` 1 is the document's title."""

    text: str
    depth: int = 2
    type: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str
    type: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Warn:
    """A highlighted warning."""

    text: str
    type: ClassVar[str] = "warning"


@dataclass(frozen=True)
class Commands:
    """Shell commands, each with a line that describes its runs."""

    title: str
    lines: list[tuple[str, str]]
    """description, command"""
    type: ClassVar[str] = "commands"


@dataclass(frozen=True)
class Picture:
    """A PNG, by its path relative to the document's folder."""

    path: str
    caption: str
    type: ClassVar[str] = "picture"


Block = Heading | Paragraph | Warn | Table | Commands | Picture

TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # at the start of a row LaTeX reads it as an argument of the preceding line break
    "]": "{]}",
    "\u00b1": r"$\pm$",
    "\u2212": r"$-$",
    "\u2013": "--",
    "\u00d7": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "√": r"$\surd$",
    "²": r"$^2$",
    "Δ": r"$\Delta$",
}
"""LaTeX for characters that it reads as commands or that its fonts lack."""


def _md(text: str) -> str:
    """Escape Markdown's special characters."""
    return re.sub(r"([\\`*_|\[\]<>])", r"\\\1", text)


def _md_cell(cell: Cell) -> str:
    return "<br>".join(_md(line) for line in cell.split("\n"))


def _tex(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(TEX.get(letter, letter) for letter in text)


def _tex_cell(cell: Cell) -> str:
    lines = [_tex(line) for line in cell.split("\n")]
    stacked = r" \\ ".join(lines)
    return lines[0] if len(lines) == 1 else rf"\shortstack{{{stacked}}}"


def _environment(**delimiters: Any) -> Environment:
    """Make a template environment: HTML is escaped by itself, Markdown and LaTeX by the filters."""
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **delimiters,
    )
    environment.filters |= {"md": _md, "md_cell": _md_cell, "tex": _tex, "tex_cell": _tex_cell}
    return environment


_TEXT = _environment()
_LATEX = _environment(  # LaTeX's own braces and comments stand in the template
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    comment_start_string="<#",
    comment_end_string="#>",
)


def markdown(blocks: Sequence[Block]) -> str:
    """Write a document as Markdown; pictures are links into its folder."""
    return _TEXT.get_template("report.md.j2").render(blocks=blocks)


def html(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """Write a document as one self-contained HTML file; pictures are read from `folder` and embedded."""

    def data_uri(path: str) -> str:
        return "data:image/png;base64," + base64.b64encode((folder / path).read_bytes()).decode("ascii")

    return _TEXT.get_template("report.html.j2").render(title=title, blocks=blocks, data_uri=data_uri)


def latex(table: Table) -> str:
    """Write a table in the style of the booktabs package, inside a `table` environment."""
    return _LATEX.get_template("table.tex.j2").render(table=table)


def as_csv(table: Table) -> str:
    """Write a table's cells as CSV; a line break in a cell becomes a space."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerows([cell.replace("\n", " ") for cell in line] for line in (table.header, *table.rows))
    return file.getvalue()
