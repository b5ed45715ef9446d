"""Render metrics as tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from detector.evaluation.collector import Collector
from detector.evaluation.comparison import LIMITS

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
AITOD = "aitod"
AITOD_SIZES = {"vt": "very tiny (up to 8²)", "t": "tiny (to 16²)", "s": "small (to 32²)", "m": "medium"}
PAIRS = 3
"""The maximum number of classes per row in the table of AP by class."""


def _percent(metrics: Mapping[str, float], name: str) -> str:
    return f"{100 * metrics[name]:.1f}" if name in metrics else "-"


def _table(title: str | None = None) -> Table:
    return Table(title=title, title_justify="left", header_style="bold")


def _sides(bins: tuple[float, float]) -> str:
    small, large = (f"{side:g}²" for side in bins)
    return f"Sizes by area in px²: small up to {small}, medium {small} to {large}, large from {large}. All in %."


def _main(metrics: Mapping[str, float], kinds: list[str]) -> Table:
    found = [re.fullmatch(r"(?:" + "|".join(map(re.escape, kinds)) + r")/AP@(\d+)", name) for name in metrics]
    limits = sorted({int(match[1]) for match in found if match})
    table = _table()
    table.add_column("")
    for name in (*COLUMNS, "AR" if limits else "AR100"):
        table.add_column(name, justify="right")
    for kind in kinds:
        table.add_row(kind, *(_percent(metrics, f"{kind}/{name}") for name in (*COLUMNS, "AR100")))
        for limit in limits:
            names = (*(f"{name}@{limit}" for name in COLUMNS), f"AR@{limit}")
            table.add_row(f"{kind}, best {limit}", *(_percent(metrics, f"{kind}/{name}") for name in names))
    return table


def beyond(collector: Collector) -> str:
    """Say how many objects lie beyond the 100 detections of an image and class that COCO counts; empty if none does."""
    counts, most = collector.counts(), int(collector.counts(by_class=False).max(initial=0))
    over = int(np.maximum(counts - LIMITS[-1], 0).sum())
    if not over:
        return ""
    share = f"{over} of {counts.sum()} objects ({100 * over / counts.sum():.1f} %)"
    limit = collector.limit
    way = (
        f"the rows of the best {limit} count more" if limit > LIMITS[-1] else "a higher dataset.detections counts them"
    )
    more = f", but an image has up to {most}: raise dataset.detections" if LIMITS[-1] < limit < most else ""
    beyond_limit = f"are beyond COCO's limit of {LIMITS[-1]} detections of an image and class, and count as missed"
    return f"{share} {beyond_limit}: {way}{more}."


def foot(collector: Collector) -> str:
    """Say below the table what its numbers leave out, and where they are read otherwise than by pycocotools."""
    own = [annotation for image in collector.images for annotation in collector.annotations(image)]
    ignored = sum(bool(a.get("ignore")) and not a.get("iscrowd") for a in own)
    lines = [beyond(collector)]
    if ignored:
        lines.append(f"{ignored} objects are ignored, such as VOC's difficult ones: pycocotools would count them.")
    if any(annotation.get("id") == 0 for annotation in own):
        lines.append("The object with the id 0 counts like others: pycocotools cannot find it.")
    return "\n".join(line for line in lines if line)


def _by_class(metrics: Mapping[str, float], prefixes: dict[str, str]) -> Table | None:
    """Make a table of AP by class; `prefixes` maps a column's heading to the beginning of its metrics' names."""
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


def _others(metrics: Mapping[str, float], known: list[str]) -> Table | None:
    """Make a table of the metrics with one `/` in their names that have none of the `known` prefixes."""
    others = {n: v for n, v in metrics.items() if n.count("/") == 1 and n.partition("/")[0] not in known}
    if not others:
        return None
    table = _table("Other metrics, as they are")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in others.items():
        table.add_row(Text(name), f"{value:.4g}")
    return table


def render(metrics: Mapping[str, float], size_bins: tuple[float, float], note: str = "") -> Group:
    """Render COCO's metrics, VOC's mAP, AP by class and other metrics, for `rich` to print.

    Args:
        metrics: values by name, as `Metric.results` returns them; those under `env/` and `time/` are not shown. Each
            `<name>/AP` gives a row of COCO's metrics: boxes, masks and other outputs measured by AP.
        size_bins: the two sides in pixels that divide small, medium and large objects.
        note: printed below the first table, such as `foot`'s.
    """
    prefixed = [name.removesuffix("/AP") for name in metrics if name.endswith("/AP") and name.count("/") == 1]
    kinds = [name for name in prefixed if name != AITOD]
    parts: list[Table | Text] = [_main(metrics, kinds), Text(_sides(size_bins))] if kinds else []
    if note:
        parts.append(Text(note))
    if "voc/mAP" in metrics:
        eleven, area = _percent(metrics, "voc/mAP"), _percent(metrics, "voc/mAP_area")
        parts.append(Text(f"VOC, IoU 0.5: mAP {eleven} (2007, 11 points), {area} (area under the curve).", "bold"))
    if f"{AITOD}/AP" in metrics:
        sizes = ((f"AP{size}", f"{name} ") for size, name in AITOD_SIZES.items())
        named = [("AP", "AP "), ("AP50", "AP50 "), ("AP75", "AP75 "), *sizes]
        values = ", ".join(f"{word}{_percent(metrics, f'{AITOD}/{name}')}" for name, word in named)
        parts.append(Text(f"As AI-TOD measures, beyond 100 detections of an image: {values}.", "bold"))
    prefixes = {kind: f"{kind}/AP/" for kind in kinds}
    if "voc/mAP" in metrics:
        prefixes["VOC"] = "voc/AP/"
    if classes := _by_class(metrics, prefixes):
        parts.append(classes)
    if others := _others(metrics, [*kinds, AITOD, "voc", "env", "time"]):
        parts.append(others)
    return Group(*parts) if parts else Group(Text("There is nothing to measure: no image holds an object that counts."))
