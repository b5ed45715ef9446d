"""Which cells of a map receive gradient from one output, as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from detector.alignment.canvas import BLACK, DASHED, DPI, GREY, RED, RGB, WIDTH, Line, save
from detector.alignment.regions import Box, Region


def draw_gradients(
    map: Tensor,
    regions: Mapping[str, Region],
    gradients: Mapping[str, Tensor],
    bin: Sequence[int],
    path: Path,
) -> None:
    """Draw beside the map which of its cells receive gradient from one output, and how much, for each operator.

    Args:
        map: [H, W].
        regions: of the same box, by the operator's name, in cells (at stride 1).
        gradients: [H, W] each, by the operator's name.
        bin: row and column of the output.
        path: the PNG to write.

    Raises:
        ValueError: no operators.
    """
    if not regions:
        raise ValueError("a picture needs at least one operator; gradient.operators is empty")
    panels = 1 + len(regions)
    figure = Figure((WIDTH, WIDTH / panels + 0.95), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    first = next(iter(regions.values()))
    _cells(axes[0], map, "Greys", "white", 2.0)
    _outline(axes[0], first.box, BLACK, DASHED)
    axes[0].set_title("A map and a RoI", fontsize=12, fontweight="bold")
    axes[0].set_xlabel("Which cells learn\nfrom one output?", fontsize=10)
    for ax, (name, region) in zip(axes[1:], regions.items(), strict=True):
        gradient = gradients[name]
        _cells(ax, gradient, "Blues", "#111111", 1.0)
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
        Patch(fc="none", ec=RED, lw=2.2, label="the bin of this output"),
        Line2D([], [], color=RED, marker="o", ms=4, lw=0, label="where it is read"),
        Patch(fc="#3a82bd", label="gradient received, %"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=10, frameon=False)
    save(figure, path)


def _cells(ax: Axes, values: Tensor, colours: str, ink: str, most: float) -> None:
    """A heat map with what is not zero written into it, if the cells have room for that."""
    height, width = values.shape
    ax.imshow(values.numpy(), cmap=colours, norm=PowerNorm(0.5, 0, most), extent=(0, width, height, 0), zorder=0)
    ax.set(xticks=range(width + 1), yticks=range(height + 1))
    ax.grid(color="#bbbbbb", lw=0.4, zorder=1)
    ax.tick_params(length=0, labelbottom=False, labelleft=False)
    if max(height, width) <= 10 and ink != "white":
        for row, column in values.nonzero().tolist():
            value = float(values[row, column])
            text = f"{100 * value:.0f}"
            ax.text(
                column + 0.5,
                row + 0.5,
                text,
                ha="center",
                va="center",
                fontsize=9,
                color="white" if value > 0.6 else ink,
                zorder=8,
            )


def _outline(ax: Axes, box: Box, colour: RGB, style: Line, width: float = 1.6) -> None:
    x1, y1, x2, y2 = box
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=width, zorder=5))
