"""Draw the plots of the page on a detector's results, as SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detector.evaluation.bootstrap import LEVELS
from detector.evaluation.measure import bins
from detector.evaluation.report.facts import FEW, Facts, Threshold, largest
from detector.visualize import PALETTE

COLOURS = ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in PALETTE if rgb != (240, 228, 66)]
"""Okabe and Ito's without yellow, which is hard to see on white."""
WIDTH = 9.0
"""of a figure, in inches"""
WORDS = 0.024
"""The width of upright words, on an axis of 0..1 over a whole figure."""
CLASSES = 6
"""The most classes whose curves are drawn: the most frequent ones."""


def costs(facts: Facts) -> bytes:
    """Draw by how much AP50 rises where one kind of error is mended, by size of the objects."""
    figure, (axes,) = _figure(1, 3.0)
    sizes = [size for size in facts.costs if size == "all" or f"AP{size[0]}" in facts.estimates]
    thick, kinds = 0.8 / len(sizes), largest(facts.costs["all"])
    for k, size in enumerate(sizes):
        values = [100 * facts.costs[size][kind] for kind in kinds]
        places = np.arange(len(kinds)) + (k - (len(sizes) - 1) / 2) * thick
        colour = "0.25" if size == "all" else COLOURS[k % len(COLOURS)]
        axes.bar(
            places, values, thick, color=colour, label="all objects" if size == "all" else f"only of {size} objects"
        )
    axes.set_xticks(range(len(kinds)), kinds)
    _clean(axes, "points of AP50 gained if all errors of one kind were mended", "", "points of AP50")
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def precision_recall(facts: Facts) -> bytes:
    """Draw precision by recall: of the most frequent classes at an IoU of 0.5, and of their mean at several IoUs."""
    several = len(facts.collector.classes) != 1
    figure, parts = _figure(2, 3.8) if several else _figure(1, 3.8, WIDTH / 2)
    curves = facts.curves
    if several:
        _of_classes(parts[0], facts)
    right = parts[-1]
    known = (curves.precision[0, 0, :, 0, -1] > -1).nonzero()[0]
    for k, iou in enumerate((0.5, 0.65, 0.75, 0.85, 0.95) if len(known) else ()):
        place = int(np.abs(curves.thresholds - iou).argmin())
        right.plot(LEVELS, curves.precision[place][:, known, 0, -1].mean(1), color=COLOURS[k], label=f"IoU {iou:g}")
    _clean(right, "mean of the classes" if several else _text(facts.collector.classes[0]), "recall", "precision")
    for axes in parts:
        axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
        if axes.lines:
            axes.legend(frameon=False, fontsize=9, loc="upper right" if axes is right else "lower left")
    return _svg(figure)


def _of_classes(axes: Axes, facts: Facts) -> None:
    ids, curves, objects = facts.collector.category_ids, facts.curves, facts.points.objects
    frequent = [label for label in np.argsort(-objects, kind="stable")[:CLASSES].tolist() if objects[label]]
    for k, label in enumerate(frequent):
        values = curves.precision[0, :, curves.category_ids.index(ids[label]), 0, -1]
        axes.plot(LEVELS, values, color=COLOURS[k % len(COLOURS)], label=_text(facts.collector.classes[label]))
    every = len(frequent) == np.count_nonzero(objects)
    _clean(axes, f"{'the' if every else f'the {len(frequent)} most frequent'} classes, IoU 0.5", "recall", "precision")


def by_threshold(facts: Facts) -> bytes:
    """Draw precision, recall and F1 of all classes together by the threshold of the score."""
    figure, (axes,) = _figure(1, 3.2)
    levels = np.linspace(0, 1, 201)
    points = facts.points.together()
    counts = [points.at(0, level) for level in levels] if points.scores else []
    right, wrong, missed = np.array(counts or np.zeros((len(levels), 3)), np.int64).T
    found = np.divide(right, right + wrong, out=np.full(len(levels), np.nan), where=right + wrong > 0)
    total = np.maximum(2 * right + wrong + missed, 1)
    for colour, name, values in (
        (COLOURS[1], "precision", found),
        (COLOURS[2], "recall", right / np.maximum(right + missed, 1)),
        ("0.2", "F1", 2 * right / total),
    ):
        axes.plot(levels, values, color=colour, label=name)
    for score, place, words in named_scores(facts.balances):
        axes.axvline(score, color="0.6", linestyle=":", linewidth=1)
        axes.annotate(words, (place, 0.02), rotation=90, fontsize=8, annotation_clip=False)
    _clean(axes, "all classes together, IoU 0.5", "score from which on detections are kept", "")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def named_scores(balances: Sequence[Threshold]) -> list[tuple[float, float, str]]:
    """List the thresholds by score, where their words begin, right of each and of the words before, and the words."""
    named: dict[float, list[str]] = {}
    for balance in balances:
        assert balance.score is not None
        named.setdefault(balance.score, []).append(balance.name)
    found, free = [], 0.0
    for score, names in sorted(named.items()):
        place = max(score, free)
        found.append((score, place + WORDS / 6, ", ".join(names)))
        free = place + WORDS
    return found


def sizes_and_ious(facts: Facts) -> bytes:
    """Draw AP by the side of the objects and by the IoU that counts as found, with intervals."""
    figure, (left, right) = _figure(2, 3.4)
    edges = {part: name for name, part in bins().items()}
    names = [edges[part.low, part.high] for part in facts.bins]
    for colour, prefix in ((COLOURS[4], "AP50"), ("0.2", "AP")):
        _points(left, facts, [f"{prefix}{name}" for name in names], colour, prefix)
    labels = [
        f"{part.low:g}-{part.high:g}\n{part.objects}{' (few)' if part.objects < FEW else ''}" for part in facts.bins
    ]
    left.set_xticks(range(len(names)), [label.replace("-inf", "-") for label in labels], fontsize=9)
    _clean(left, "by the side of objects", "root of the area, px; number of objects", "")
    ious = [name for name in facts.estimates if name.startswith("AP@0.")]
    _points(right, facts, ious, "0.2", "AP")
    right.set_xticks(range(len(ious)), [name.removeprefix("AP@0") for name in ious], fontsize=9)
    _clean(right, "by the IoU from which on an object is found", "IoU", "")
    for axes in (left, right):
        axes.set_ylim(0, 100)
    left.legend(frameon=False, fontsize=9)
    return _svg(figure)


def _points(axes: Axes, facts: Facts, names: list[str], colour: str, label: str) -> None:
    own = [facts.estimates[name] for name in names if name in facts.estimates]
    low = [100 * (e.value - (e.value if e.low is None else min(e.low, e.value))) for e in own]
    high = [100 * ((e.value if e.high is None else max(e.high, e.value)) - e.value) for e in own]
    values = [100 * e.value for e in own]
    axes.errorbar(range(len(own)), values, [low, high], fmt="o-", color=colour, capsize=3, linewidth=1, label=label)


def calibration(facts: Facts) -> bytes:
    """Draw the share of detections that are right by their score."""
    figure, (axes,) = _figure(1, 3.4, 5.5)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    if facts.calibration:
        scores, shares, counts = zip(*facts.calibration, strict=True)
        axes.plot(scores, shares, "o-", color=COLOURS[4])
        for score, share, count in zip(scores, shares, counts, strict=True):
            below = share > 0.15  # a number on the axis would hide its labels
            axes.annotate(
                f"{count}",
                (score, share),
                (0, -14 if below else 7),
                textcoords="offset points",
                fontsize=8,
                color="0.4",
                ha="center",
            )
    _clean(axes, "numbers: of detections; dashed: what a probability would say", "score", "share that is right")
    axes.set(xlim=(0, 1.05), ylim=(0, 1.05))
    return _svg(figure)


def counts(facts: Facts) -> bytes:
    """Draw how many objects are found on each image beside how many there are."""
    figure, (axes,) = _figure(1, 3.4, 4.5)
    true, found = facts.by_image.objects, facts.by_image.kept
    most = max(int(true.max(initial=1)), int(found.max(initial=1)))
    axes.plot([0, most], [0, most], color="0.7", linestyle="--", linewidth=1)
    axes.plot(true, found, "o", color=COLOURS[4], alpha=0.5, markersize=4)
    _clean(axes, "images; dashed: as many as there are", "objects", "detections from the best thresholds on")
    return _svg(figure)


def _figure(columns: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False).flat)


def _clean(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def _text(words: str) -> str:
    """Escape a name for matplotlib, which reads `$` as mathematics and hides legend entries that begin with `_`."""
    return re.sub(r"^_", " _", words.replace("$", r"\$"))


def _svg(figure: Figure) -> bytes:
    with rc_context({"svg.hashsalt": "report", "svg.fonttype": "none", "font.family": "sans-serif"}):
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
