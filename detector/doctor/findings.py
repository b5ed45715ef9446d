"""What a check has found, and the table of all."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from dataclasses import dataclass


class Verdict(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """it works, but slower, or not with large images"""
    ERROR = "error"
    """a command of this project fails, or a GPU is not used"""


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Args:
        name: of what was checked.
        found: what is there.
        verdict: how bad it is.
        mend: a command or a sentence; required unless the verdict is ok.

    Raises:
        ValueError: something is not ok, and there is no mend.
    """

    name: str
    found: str
    verdict: Verdict = Verdict.OK
    mend: str = ""

    def __post_init__(self) -> None:
        if self.verdict is not Verdict.OK and not self.mend:
            raise ValueError(f"{self.name}: say how to mend it")


def warning(name: str, found: str, mend: str) -> Finding:
    """Return a finding that is a warning."""
    return Finding(name, found, Verdict.WARNING, mend)


def error(name: str, found: str, mend: str) -> Finding:
    """Return a finding that is an error."""
    return Finding(name, found, Verdict.ERROR, mend)


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if one finding is an error, else 0."""
    return int(any(finding.verdict is Verdict.ERROR for finding in findings))


def report(findings: Sequence[Finding]) -> str:
    """Write a line for each finding, and below them the mends."""
    width = max(len(finding.name) for finding in findings)
    lines = [f"{finding.name:{width}}  {finding.verdict.value:7}  {finding.found}" for finding in findings]
    return "\n".join([*lines, "", *_mends(findings), _summary(findings)])


def print_findings(findings: Sequence[Finding]) -> None:
    """Print the findings: with colours in a terminal, else plain, one line each."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        print(report(findings))
        return
    console = Console()
    if not sys.stdout.isatty():
        print(report(findings))
        return
    colours = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.ERROR: "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(Text(finding.name), Text(finding.verdict.value, colours[finding.verdict]), Text(finding.found))
    console.print(table)
    for line in ["", *_mends(findings), _summary(findings)]:
        console.print(Text(line), soft_wrap=True)  # so that a command can be copied as a whole


def _mends(findings: Sequence[Finding]) -> list[str]:
    wrong = [finding for finding in findings if finding.verdict is not Verdict.OK]
    lines = [f"{finding.name}: {finding.mend}" for finding in wrong]
    return ["What to do:", *(f"  {line}" for line in lines), ""] if lines else []


def _summary(findings: Sequence[Finding]) -> str:
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    words = [
        f"{count} {verdict.value}{'s' * (count != 1)}" for verdict, count in counts.items() if verdict.value != "ok"
    ]
    return f"{len(findings)} checks: {counts[Verdict.OK]} ok, {', '.join(words)}"
