"""Tables of regions, errors and runs for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from detector.alignment.costs import Part
from detector.alignment.errors import FPN, ErrorRow
from detector.alignment.regions import Region, format_length, format_offset
from detector.evaluation.measure import Estimate


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def regions_table(regions: Mapping[str, Region], stride: float) -> Table:
    """Tabulate the region that each operator pools for one box, a row for each axis."""
    x1, y1, x2, y2 = next(iter(regions.values())).box
    title = (
        f"A box of {format_length(x2 - x1)} x {format_length(y2 - y1)} px, stride {stride:g}: "
        f"{(x2 - x1) / stride:.2f} x {(y2 - y1) / stride:.2f} cells"
    )
    table = _table(title, ("operator", "axis", "cells", "per bin", "reads", "begins", "ends"))
    for name, region in regions.items():
        before, after = region.offsets[:2], region.offsets[2:]
        for i, (label, axis) in enumerate((("x", region.x), ("y", region.y))):
            low, high = axis.region
            words = format_offset(before[i]), format_offset(after[i])
            bin = f"{axis.cells / len(axis.bins):.2f}"
            table.add_row("" if i else name, label, f"{axis.cells:.4g}", bin, f"{format_length(high - low)} px", *words)
    return table


def errors_table(rows: Sequence[ErrorRow]) -> Table:
    """Tabulate the median errors by stride, by level, and by size at the levels that FPN assigns."""
    names = list(dict.fromkeys(row.operator for row in rows))
    title = "How far the edges are off: median, px of the file / % of the object's side"
    table = _table(title, ("pooled from", "√area", "objects", *names))
    found = {(row.operator, row.pooled_from, row.size): row for row in rows}
    for row in rows:
        if row.operator == names[0] and (row.size == "all" or row.pooled_from == FPN):
            own = [found[name, row.pooled_from, row.size] for name in names]
            cells = (f"{r.median_px:.1f} / {100 * r.median_share:.0f} %" for r in own)
            table.add_row(row.pooled_from, row.size, str(row.objects), *cells)
    return table


def runs_table(parts: Sequence[Part], labels: Mapping[str, str]) -> Table:
    """Tabulate AP, mean IoU and recall with their intervals, a row for each part of the objects and each run."""
    title = f"AP, mean IoU of matches, and objects found at IoU {parts[0].threshold:g}, by RoIPool's error / side"
    table = _table(title, ["error, %", "objects", "run", "AP", "IoU", "found"])
    for part in parts:
        about = [f"{100 * part.low:.1f}-{100 * part.high:.1f}", str(part.objects)]
        for run, label in labels.items():
            values = part.ap[run], part.mean_iou[run], part.recall[run]
            table.add_row(*about, Text(label), *(_interval(value) for value in values))
            about = ["", ""]
    return table


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{100 * estimate.value:.0f} ({100 * estimate.low:.0f}-{100 * estimate.high:.0f})"
