"""Draw the distributions of a dataset's images and objects as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from detector.data.annotations import Floats
from detector.data.page.numbers import Numbers
from detector.visualize import PALETTE

COLOURS = ["#{:02x}{:02x}{:02x}".format(*PALETTE[i]) for i in (4, 0, 2)]
WIDTH = 9.0
"""of a figure, in inches"""
CLASSES = 60
"""The most classes that are drawn."""


def distributions(splits: Mapping[str, Numbers], size_bins: Sequence[float]) -> bytes:
    """Draw the sides and shapes of boxes and the number of objects, as shares of each split."""
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    axes = figure.subplots(2, 2).flat
    _histograms(axes[0], {k: n.sides for k, n in splits.items()}, "side of boxes (root of the area), px", log=True)
    for side in size_bins:
        axes[0].axvline(side, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    _histograms(axes[1], {k: n.ratios for k, n in splits.items()}, "height / width of boxes", log=True)
    _histograms(axes[2], {k: n.per_image.astype(float) for k, n in splits.items()}, "objects an image", log=False)
    sides = {k: np.sqrt(n.widths * n.heights) for k, n in splits.items()}
    _histograms(axes[3], sides, "side of images (root of the area), px", log=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(splits), frameon=False)
    return _svg(figure)


def _histograms(axes: Axes, values: Mapping[str, Floats], title: str, *, log: bool) -> None:
    every = np.concatenate([v for v in values.values() if len(v)] or [np.ones(1)])
    low, high = float(every.min()), float(every.max())
    if log:
        edges = np.geomspace(low * 0.95, high * 1.05, 40)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
    else:
        step = max(1.0, np.ceil((high - low + 1) / 40))
        edges = np.arange(low - 0.5, high + step, step)
        if low == high:  # one bar, between round numbers
            axes.set_xlim(0.8 * low - 1, 1.2 * high + 1)
    for colour, (name, found) in zip(COLOURS, values.items(), strict=False):
        weights = np.full(len(found), 100 / max(len(found), 1))
        axes.hist(found, edges.tolist(), weights=weights, histtype="step", linewidth=1.6, color=colour, label=name)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylabel("%", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def class_bars(splits: Mapping[str, Numbers]) -> bytes:
    """Draw the number of objects of the most frequent classes, on a logarithmic scale."""
    first = next(iter(splits.values()))
    order = np.argsort(-first.class_counts()[0], kind="stable")[:CLASSES]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.26 * len(order)), layout="constrained")
    axes = figure.subplots()
    thick = 0.8 / len(splits)
    for k, (colour, (name, numbers)) in enumerate(zip(COLOURS, splits.items(), strict=False)):
        counts = dict(zip(numbers.classes, numbers.class_counts()[0].tolist(), strict=True))
        found = [counts.get(first.classes[label], 0) for label in order]
        axes.barh(np.arange(len(order)) + k * thick, found, thick, color=colour, label=name)
    axes.set_yticks(
        np.arange(len(order)) + 0.4 - thick / 2, [_text(first.classes[label]) for label in order], fontsize=9
    )
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=10)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_title("objects of each class, on a logarithmic scale", fontsize=10, loc="left")
    axes.margins(y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return _svg(figure)


def centre_maps(splits: Mapping[str, Numbers]) -> bytes:
    """Draw where in their image the centres of boxes lie."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    for axes, (name, numbers) in zip(figure.subplots(1, len(splits), squeeze=False).flat, splits.items(), strict=True):
        x, y = numbers.centres.T
        axes.hist2d(x, y, bins=24, range=[[0, 1], [0, 1]], cmap="Blues")
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"centres of boxes, {name}", fontsize=10, loc="left")
    return _svg(figure)


def _text(words: str) -> str:
    """Escape a name for matplotlib, which reads `$` as mathematics."""
    return words.replace("$", r"\$")


def _svg(figure: Figure) -> bytes:
    with rc_context({"svg.hashsalt": "data", "svg.fonttype": "path"}):
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
