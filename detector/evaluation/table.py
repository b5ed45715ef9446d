"""The metrics as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
PAIRS = 3
"""The most classes beside each other in the table by class."""


def _percent(metrics: Mapping[str, float], name: str) -> str:
    return f"{100 * metrics[name]:.1f}" if name in metrics else "-"


def _table(title: str | None = None) -> Table:
    return Table(title=title, title_justify="left", header_style="bold")


def _sides(bins: tuple[float, float]) -> str:
    small, large = (f"{side:g}²" for side in bins)
    return f"Sizes by area in px²: small up to {small}, medium {small} to {large}, large from {large}. All in %."


def _main(metrics: Mapping[str, float], kinds: list[str]) -> Table:
    table = _table()
    table.add_column("")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for kind in kinds:
        table.add_row(kind, *(_percent(metrics, f"{kind}/{name}") for name in COLUMNS))
    return table


def _by_class(metrics: Mapping[str, float], prefixes: dict[str, str]) -> Table | None:
    """A table of the classes' AP; `prefixes`: the start of the metrics' names by the heading of their column."""
    names = list(dict.fromkeys(key[len(p) :] for p in prefixes.values() for key in metrics if key.startswith(p)))
    if not names:
        return None
    pairs = min(PAIRS if len(prefixes) == 1 else 2, len(names))
    table = _table("AP by class")
    for _ in range(pairs):
        table.add_column("class")
        for heading in prefixes:
            table.add_column(heading, justify="right")
    rows = -(-len(names) // pairs)
    for row in range(rows):  # names run down the columns
        cells: list[str | Text] = []
        for name in names[row::rows]:
            cells += [Text(name), *(_percent(metrics, prefix + name) for prefix in prefixes.values())]
        table.add_row(*cells)
    return table


def render(metrics: Mapping[str, float], size_bins: tuple[float, float]) -> Group:
    """The metrics as something for `rich` to print: boxes and masks, then VOC's, then each class.

    Args:
        metrics: fractions by name, as `Metric.results` returns them; what is not known here is left out.
        size_bins: the sides in pixels whose squares part small, medium and large.
    """
    kinds = [kind for kind in ("box", "mask") if f"{kind}/AP" in metrics]
    parts: list[Table | Text] = [_main(metrics, kinds), Text(_sides(size_bins))] if kinds else []
    if "voc/mAP" in metrics:
        eleven, area = _percent(metrics, "voc/mAP"), _percent(metrics, "voc/mAP_area")
        parts.append(Text(f"VOC, IoU 0.5: mAP {eleven} (2007, 11 points), {area} (area under the curve).", "bold"))
    prefixes = {kind: f"{kind}/AP/" for kind in kinds}
    if "voc/mAP" in metrics:
        prefixes["VOC"] = "voc/AP/"
    if classes := _by_class(metrics, prefixes):
        parts.append(classes)
    return Group(*parts) if parts else Group(Text("There is nothing to measure: no image holds an object that counts."))
