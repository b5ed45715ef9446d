"""Draw which cells of a feature map receive gradient from one pooled value, as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from detector.alignment.canvas import BLACK, DASHED, DPI, GREY, RED, RGB, WIDTH, Line, save_png
from detector.alignment.regions import Box, Region

PALE = 0.25
"""opacity of the map beneath the gradients"""
MOST_NUMBERED = 10
"""cells along a side up to which the percentage is written into each cell"""


def draw_gradients(
    map: Tensor,
    regions: Mapping[str, Region],
    gradients: Mapping[str, Tensor],
    bin: Sequence[int],
    path: Path,
) -> None:
    """Draw the map, and for each operator the share of one output's gradient that each cell receives.

    Args:
        map: [H, W].
        regions: the regions pooled for one box, by operator, in cells (at stride 1).
        gradients: [H, W] each, by operator, as `gradients.output_gradient` returns them.
        bin: row and column of the bin whose gradient is drawn.
        path: the PNG to write.

    Raises:
        ValueError: `regions` is empty.
    """
    if not regions:
        raise ValueError("gradient.operators is empty: a picture needs at least one operator")
    panels = 1 + len(regions)
    figure = Figure((WIDTH, WIDTH / panels + 1.2), dpi=DPI, layout="constrained")
    figure.suptitle("Which cells of a map receive gradient from one output?", fontsize=12)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    first = next(iter(regions.values()))
    _map(axes[0], map, 1.0)
    _outline(axes[0], first.box, BLACK, DASHED)
    axes[0].set_title("A map and a RoI", fontsize=12, fontweight="bold")
    axes[0].set_xlabel("brighter cells have\nlarger values", fontsize=10)
    for ax, (name, region) in zip(axes[1:], regions.items(), strict=True):
        gradient = gradients[name]
        _map(ax, map, PALE)
        _shares(ax, gradient)
        for low_y, high_y in region.y.bins:
            for low_x, high_x in region.x.bins:
                _outline(ax, (low_x, low_y, high_x, high_y), GREY, "solid", 0.6)
        (y1, y2), (x1, x2) = region.y.bins[bin[0]], region.x.bins[bin[1]]
        _outline(ax, (x1, y1, x2, y2), RED, "solid", 2.2)
        _outline(ax, region.box, BLACK, DASHED)
        count = len(region.x.points) // len(region.x.bins)
        xs, ys = (axis.points[i * count : (i + 1) * count] for axis, i in ((region.x, bin[1]), (region.y, bin[0])))
        ax.scatter(*(v.ravel() for v in np.meshgrid(xs, ys)), s=9, color=RED, linewidths=0, zorder=7)
        cells = int((gradient != 0).sum())
        ax.set_title(name, fontsize=12, fontweight="bold")
        ax.set_xlabel("1 cell\ngets all of it" if cells == 1 else f"{cells} cells\nshare it", fontsize=10)
    handles = [
        Line2D([], [], color=BLACK, lw=1.6, ls=DASHED, label="RoI"),
        Patch(fc="none", ec=RED, lw=2.2, label="the output's bin"),
        Patch(fc="none", ec=GREY, lw=0.6, label="other bins"),
        Line2D([], [], color=RED, marker="o", ms=4, lw=0, label="sample"),
        Patch(fc="#3a82bd", label="gradient received, %"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=10, frameon=False)
    save_png(figure, path)


def _map(ax: Axes, values: Tensor, opacity: float) -> None:
    """Draw the map's values in shades of grey."""
    height, width = values.shape
    low, high = float(values.min()), float(values.max())
    ax.imshow(values.numpy(), cmap="gray", vmin=2 * low - high, vmax=high, alpha=opacity, extent=(0, width, height, 0))
    ax.set(xticks=range(width + 1), yticks=range(height + 1))
    ax.grid(color="#bbbbbb", lw=0.4, zorder=1)
    ax.tick_params(length=0, labelbottom=False, labelleft=False)


def _shares(ax: Axes, gradient: Tensor) -> None:
    """Shade the cells that receive gradient; write the percentage into them where the map is small enough."""
    shade, written = PowerNorm(0.5, 0, 1.0), max(gradient.shape) <= MOST_NUMBERED
    for row, column in gradient.nonzero().tolist():
        value = float(gradient[row, column])
        ax.add_patch(Rectangle((column, row), 1, 1, fc=colormaps["Blues"](shade(value)), lw=0, zorder=2))
        if written:
            ink = "white" if value > 0.6 else BLACK
            place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": ink, "zorder": 8}
            ax.text(column + 0.5, row + 0.5, f"{100 * value:.0f}", **place)


def _outline(ax: Axes, box: Box, colour: RGB, style: Line, width: float = 1.6) -> None:
    x1, y1, x2, y2 = box
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=width, zorder=5))
