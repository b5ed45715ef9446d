"""A document of headings, text, tables and pictures, as Markdown and as one HTML file; tables as LaTeX and CSV."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Cell = str
"""Plain text; a line break parts a number from its interval."""


@dataclass(frozen=True)
class Table:
    """Cells as a reader sees them."""

    name: str
    """of its files, without suffix"""
    title: str
    header: list[Cell]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    """sentences below it"""
    left: int = 1
    """so many columns hold text, and are set flush left"""


@dataclass(frozen=True)
class Heading:
    """A heading; `depth` 1 is the document's title."""

    text: str
    depth: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Warn:
    """A sentence that must not be overlooked."""

    text: str


@dataclass(frozen=True)
class Commands:
    """Commands by what they made."""

    title: str
    lines: list[tuple[str, str]]
    """what was made, the command"""


@dataclass(frozen=True)
class Picture:
    """A PNG, by its path within the document's folder."""

    path: str
    caption: str


Block = Heading | Paragraph | Warn | Table | Commands | Picture


def _md(text: str) -> str:
    """Text in which Markdown finds no marks of its own."""
    return re.sub(r"([\\`*_|\[\]<>])", r"\\\1", text)


def _md_cell(cell: Cell) -> str:
    return "<br>".join(_md(line) for line in cell.split("\n"))


def _md_table(table: Table) -> str:
    rule = ["---"] * table.left + ["---:"] * (len(table.header) - table.left)
    lines = [table.header, *table.rows]
    cells = [[_md_cell(cell) for cell in line] for line in lines]
    rows = [f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:])]
    return "\n\n".join([f"**{_md(table.title)}**", "\n".join(rows), *(_md(note) for note in table.notes)])


def markdown(blocks: Sequence[Block]) -> str:
    """The document as Markdown; pictures are links into its folder."""
    parts = []
    for block in blocks:
        match block:
            case Heading():
                parts.append(f"{'#' * block.depth} {_md(block.text)}")
            case Paragraph():
                parts.append(_md(block.text))
            case Warn():
                parts.append(f"> **Careful:** {_md(block.text)}")
            case Table():
                parts.append(_md_table(block))
            case Commands():
                lines = "\n".join(f"# {what}\n{command}" for what, command in block.lines)
                parts.append(f"{_md(block.title)}\n\n```bash\n{lines}\n```")
            case Picture():
                parts.append(f"![{_md(block.caption)}]({block.path})\n\n*{_md(block.caption)}*")
    return "\n\n".join(parts) + "\n"


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --warn: #d55e00 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem }
.wide { overflow-x: auto; margin: .5rem 0 }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
caption { text-align: left; font-weight: 600; padding: .5rem 0 }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
th.text, td.text { text-align: left; min-width: 6rem }
tbody tr:nth-child(even) { background: var(--soft) }
small { opacity: .8; white-space: nowrap }
.note { font-size: .875rem; opacity: .85 }
.warn { border-left: 4px solid var(--warn); padding: .3rem .8rem; background: var(--soft) }
pre { overflow-x: auto; padding: .6rem; background: var(--soft); font-size: .8rem; overflow-wrap: normal }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto; background: #fff } figcaption { font-size: .875rem }
"""


def _html_cell(cell: Cell, tag: str, text: bool) -> str:
    first, *others = (html.escape(line) for line in cell.split("\n"))
    small = "".join(f"<br><small>{line}</small>" for line in others)
    opening = f'{tag} class="text"' if text else tag
    return f"<{opening}>{first}{small}</{tag}>"


def _html_table(table: Table) -> str:
    def row(cells: Sequence[Cell], tag: str) -> str:
        return "<tr>" + "".join(_html_cell(cell, tag, i < table.left) for i, cell in enumerate(cells)) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    notes = "".join(f'\n<p class="note">{html.escape(note)}</p>' for note in table.notes)
    return (
        f'<div class="wide"><table><caption>{html.escape(table.title)}</caption>\n'
        f"<thead>{row(table.header, 'th')}</thead>\n<tbody>\n{body}\n</tbody></table></div>{notes}"
    )


def _html_block(block: Block, folder: Path) -> str:
    match block:
        case Heading():
            return f"<h{block.depth}>{html.escape(block.text)}</h{block.depth}>"
        case Paragraph():
            return f"<p>{html.escape(block.text)}</p>"
        case Warn():
            return f'<p class="warn"><strong>Careful:</strong> {html.escape(block.text)}</p>'
        case Table():
            return _html_table(block)
        case Commands():
            lines = "\n".join(f"# {what}\n{command}" for what, command in block.lines)
            return f"<details><summary>{html.escape(block.title)}</summary><pre>{html.escape(lines)}</pre></details>"
        case Picture():
            data = base64.b64encode((folder / block.path).read_bytes()).decode("ascii")
            caption = html.escape(block.caption)
            return (
                f'<figure><img src="data:image/png;base64,{data}" alt="{caption}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )


def page(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """The document as one HTML file that needs nothing besides itself; pictures are read from `folder`."""
    body = "\n".join(_html_block(block, folder) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


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
    "[": "{[}",  # at the start of a row, LaTeX takes it for an argument of the line break before it
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
"""What LaTeX needs for characters that it reads as commands, or has no letters for."""


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in text)


def _tex_cell(cell: Cell) -> str:
    lines = [_tex(line) for line in cell.split("\n")]
    stacked = r" \\ ".join(lines)
    return lines[0] if len(lines) == 1 else rf"\shortstack{{{stacked}}}"


def latex(table: Table) -> str:
    """The table in the style of the booktabs package, within `table`; text is escaped."""
    columns = "l" * table.left + "r" * (len(table.header) - table.left)
    rows = [" & ".join(_tex_cell(cell) for cell in row) + r" \\" for row in table.rows]
    notes = " ".join(_tex(note) for note in table.notes)
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(table.title)}. {notes}}}" if notes else rf"\caption{{{_tex(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(_tex_cell(cell) for cell in table.header) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def as_csv(table: Table) -> str:
    """The table's cells; a line break within a cell becomes a space."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerows([cell.replace("\n", " ") for cell in line] for line in (table.header, *table.rows))
    return file.getvalue()
