"""Plot the quantisation error over many objects, and the AP and localisation of runs by that error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from detector.alignment.canvas import DPI, WIDTH, rgb, save_png
from detector.alignment.costs import Part
from detector.alignment.errors import FPN, ErrorRow, GroundTruthBoxes, OperatorErrors
from detector.visualize import PALETTE

COLOURS = [rgb(PALETTE[i]) for i in (5, 0, 4, 2, 6, 1)]
SHADES = ["#b7d3ea", "#6aaed6", "#2f7fbc", "#0b3f7f", "#08264d"]
"""colours of the strides from fine to coarse: one hue, so that their order shows"""
MARKS = "osD^vP"


def draw_errors(
    errors: Sequence[OperatorErrors],
    rows: Sequence[ErrorRow],
    objects: GroundTruthBoxes,
    title: str,
    main: str,
    path: Path,
) -> None:
    """Plot the errors: in pixels by operator and by stride; as shares of the object's side by size and by level.

    Args:
        errors: as `errors.measure_errors` yields them.
        rows: as `errors.tabulate_errors` returns them for these errors.
        objects: the boxes that they were measured on.
        title: of the figure.
        main: the operator to plot by stride and by size.
        path: the PNG to write.

    Raises:
        ValueError: `main` is not among the operators.
    """
    names = list(dict.fromkeys(e.operator for e in errors))
    if main not in names:
        raise ValueError(f"main={main!r} is not one of the operators: {', '.join(names)}")
    figure = Figure((WIDTH, 6.4), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 2)
    figure.suptitle(f"{title}: {len(objects)} objects", fontsize=12)
    _by_operator([e for e in errors if e.pooled_from == FPN], axes[0, 0])
    strides = [e for e in errors if e.operator == main and e.pooled_from != FPN]
    _by_stride(strides, axes[0, 1])
    axes[0, 1].set_title(f"{main}: by stride", fontsize=11)
    own = [row for row in rows if row.operator == main]
    _by_size(own, [e.pooled_from for e in strides], axes[1, 0])
    axes[1, 0].set_title(f"{main}: share of the object's side", fontsize=11)
    _by_level(rows, names, axes[1, 1])
    save_png(figure, path)


def _by_operator(errors: Sequence[OperatorErrors], ax: Axes) -> None:
    """Draw a histogram of pixels for each operator; one without any error is a line at 0."""
    most = max((float(np.quantile(e.values, 0.99)) for e in errors), default=1.0) or 1.0
    bins = np.linspace(0, most, 41).tolist()
    for i, found in enumerate(errors):
        weights = np.full(len(found.values), 1 / len(found.values))
        if float(found.values.max()) < bins[1] / 100:
            ax.axvline(0, color=COLOURS[i % len(COLOURS)], lw=4, label=f"{found.operator}: 0 px, every object")
            continue
        label = f"{found.operator}: median {np.median(found.values):.1f} px"
        ax.hist(
            found.values,
            bins,
            weights=weights,
            histtype="stepfilled" if i else "step",
            alpha=0.55 if i else 1.0,
            color=COLOURS[i % len(COLOURS)],
            label=label,
            lw=1.6,
        )
    ax.set_title("Error, at the level that FPN chooses", fontsize=11)
    ax.set_xlabel("how far the edges are off, px")
    _shares(ax)
    ax.legend(fontsize=9, frameon=False)


def _by_stride(errors: Sequence[OperatorErrors], ax: Axes) -> None:
    most = max((float(np.quantile(e.values, 0.99)) for e in errors), default=1.0) or 1.0
    bins = np.geomspace(most / 50, most, 41).tolist()
    for i, found in enumerate(errors):
        weights = np.full(len(found.values), 1 / len(found.values))
        shade = SHADES[i % len(SHADES)]
        label = f"{found.pooled_from}: {np.median(found.values):.1f} px"
        ax.hist(found.values, bins, weights=weights, histtype="stepfilled", alpha=0.75, color=shade, label=label)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("how far the edges are off, px (logarithmic)")
    _shares(ax)
    ax.set_ylim(top=1.5 * ax.get_ylim()[1])
    ax.legend(fontsize=9, frameon=False, loc="upper center", ncols=2, title="median", title_fontsize=9)


def _by_size(rows: Sequence[ErrorRow], strides: Sequence[str], ax: Axes) -> None:
    """Draw the median by size, a line for each stride; for FPN's levels also the range up to the 90 % quantile."""
    sizes = list(dict.fromkeys(row.size for row in rows if row.size != "all"))
    places = {size: i for i, size in enumerate(sorted(sizes, key=lambda size: float(size[1:].split(",")[0])))}
    for i, name in enumerate([*strides, FPN]):
        points = [
            (places[r.size], r.median_share, r.q90_share) for r in rows if r.pooled_from == name and r.size in places
        ]
        points.sort()
        x, median, high = (list(values) for values in zip(*points, strict=True))
        if name == FPN:
            ax.fill_between(x, median, high, color=COLOURS[0], alpha=0.2, lw=0)
            ax.plot(
                x,
                median,
                color=COLOURS[0],
                marker="s",
                ms=4,
                lw=2.2,
                label=f"{FPN} (shade: up to 90 %)",
            )
        else:
            ax.plot(x, median, color=SHADES[i % len(SHADES)], marker="o", ms=3, lw=1.4, label=name)
    ax.set_xticks(list(places.values()), [_size_name(size) for size in places])
    ax.set_xlabel("√area of the object, px")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("median error / side")
    ax.grid(axis="y", color="#dddddd", lw=0.6)
    ax.set_ylim(top=8 * ax.get_ylim()[1])
    ax.legend(fontsize=9, frameon=False, loc="upper right", ncols=2, columnspacing=1, handlelength=1.5)


def _size_name(name: str) -> str:
    low, high = name[1:-1].split(",")
    return f"≥ {low}" if high == "inf" else f"{low}-{high}"


def _by_level(rows: Sequence[ErrorRow], names: Sequence[str], ax: Axes) -> None:
    """Draw the mean share at each level of the pyramid, a bar for each operator, with the number of objects."""
    chosen = [row for row in rows if row.size == "all" and row.pooled_from != FPN and "stride" not in row.pooled_from]
    found = sorted({row.pooled_from for row in chosen})
    wide = 0.8 / len(names)
    for i, name in enumerate(names):
        by_level = {row.pooled_from: row for row in chosen if row.operator == name}
        place = np.arange(len(found)) + (i - (len(names) - 1) / 2) * wide
        heights = [by_level[level].mean_share for level in found]
        bars = ax.bar(place, heights, wide * 0.92, color=COLOURS[i % len(COLOURS)], label=name)
        ax.bar_label(bars, [f"{100 * h:.0f}" if h > 1e-6 else "0" for h in heights], fontsize=9, padding=1)
    counts = {row.pooled_from: row.objects for row in chosen}
    ax.set_xticks(range(len(found)), [f"{level}\n{counts[level]} objects" for level in found])
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_title("Share of the object's side, by level", fontsize=11)
    ax.set_ylabel("mean error / side")
    ax.margins(y=0.15)
    ax.legend(fontsize=9, frameon=False)


def _shares(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylabel("share of objects")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _few(value: float, _: float) -> str:
    """Label only the minor ticks at 2 and 5 of a decade; all ten would overlap."""
    return f"{value:g}%" if f"{value:.0e}"[0] in "25" else ""


def draw_costs(parts: Sequence[Part], labels: Mapping[str, str], path: Path) -> None:
    """Plot AP, recall and mean IoU of each run by the error of RoIPool on the objects.

    Args:
        parts: as `runs.compare_runs` returns them.
        labels: the name of each run in the legend.
        path: the PNG to write.

    Raises:
        ValueError: `parts` is empty.
    """
    if not parts:
        raise ValueError("parts is empty: there is nothing to draw")
    drawn = (
        ("ap", "AP"),
        ("recall", f"Objects found at IoU {parts[0].threshold:g}"),
        ("mean_iou", "Mean IoU of those found at 0.5"),
    )
    figure = Figure((WIDTH, 3.7), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(drawn))
    x = [100 * part.median for part in parts]
    for ax, (what, title) in zip(panels, drawn, strict=True):
        for i, (run, label) in enumerate(labels.items()):
            estimates = [getattr(part, what)[run] for part in parts]
            values = np.array([e.value for e in estimates])
            low, high = (np.array([getattr(e, edge) for e in estimates], float) for edge in ("low", "high"))
            colour = COLOURS[(0, 2)[i] if i < 2 else i]
            ax.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
            ax.plot(x, values, color=colour, marker=MARKS[i % len(MARKS)], ms=4, lw=1.8, label=label)
        ax.set_title(title, fontsize=11)
        if x[0] > 0:
            ax.set_xlim(0.85 * x[0], 1.15 * x[-1])
            ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        ax.xaxis.set_minor_formatter(FuncFormatter(_few))
        ax.tick_params(axis="x", which="minor", pad=5)
        ax.grid(color="#dddddd", lw=0.6)
        ax.legend(fontsize=10, frameon=False)
        if what != "mean_iou":
            ax.yaxis.set_major_formatter(PercentFormatter(1))
    figure.supxlabel("RoIPool's error, share of the object's side", fontsize=10)
    save_png(figure, path)
