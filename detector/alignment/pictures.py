"""Draw one RoI and the regions that the operators pool for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from detector.alignment.canvas import BLACK, BLUE, DASHED, DPI, RED, RGB, WIDTH, save_png
from detector.alignment.regions import ROUNDING, Box, Region, Span, format_length, format_offset
from detector.types import Size

ZOOM = 7
"""side of the enlarged corner, in cells"""
WIDE = 14
"""side of the view, in cells: at this or more, a corner is drawn enlarged"""
MISSED, FOREIGN = "xxxx", "////"
"""hatching of the parts of the box that are not pooled, and of what is pooled from outside the box"""
PALE = 0.3
"""opacity of the image on white, so that the drawing on it stands out"""


def draw_regions(image: Tensor, stride: float, regions: Mapping[str, Region], path: Path) -> None:
    """Draw, side by side, the region that each operator pools for a box: its bins and sample points over the image.

    Args:
        image: uint8 [3, H, W], RGB.
        stride: pixels between the cells of the feature map.
        regions: the regions pooled for one box, by operator.
        path: the PNG to write.

    Raises:
        ValueError: `regions` is empty.
    """
    if not regions:
        raise ValueError("operators is empty: a picture needs at least one operator")
    size: Size = (int(image.shape[1]), int(image.shape[2]))
    view = _view(list(regions.values()), size, stride)
    zoomed = max(view[2] - view[0], view[3] - view[1]) >= WIDE * stride
    panel = WIDTH / len(regions)
    aspect = (view[3] - view[1]) / (view[2] - view[0])
    heights = [aspect, 0.72] if zoomed else [aspect]
    extra = 1.55
    figure = Figure((WIDTH, extra + panel * 0.95 * sum(heights)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(heights), len(regions), squeeze=False, height_ratios=heights)
    faded = (255 - (1 - PALE) * (255 - image.permute(1, 2, 0).numpy().astype(np.float32))).astype(np.uint8)
    for column, (name, region) in enumerate(regions.items()):
        _panel(axes[0, column], faded, stride, region, view)
        ax = axes[0, column]
        ax.set_title(f"reads {_wide(region.edges)}: {format_offset(region.worst)}", fontsize=10, color=_colour(region))
        ax.annotate(
            name,
            (0.5, 1),
            (0, 22),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=12,
            fontweight="bold",
        )
        if zoomed:
            corner = _corner(region.box, size, stride)
            _panel(axes[1, column], faded, stride, region, corner)
            _annotate_right_edge(axes[1, column], region, corner)
            axes[0, column].add_patch(
                Rectangle(
                    corner[:2], corner[2] - corner[0], corner[3] - corner[1], fill=False, ec="#555555", lw=0.9, zorder=9
                )
            )
            below = {"ha": "right", "va": "top", "fontsize": 8, "color": "#333333", "zorder": 9}
            axes[0, column].text(corner[2], corner[3] + 0.01 * (view[3] - view[1]), "enlarged below", **below)
    true = next(iter(regions.values())).box
    figure.suptitle(
        f"A feature cell is {format_length(stride)} px wide, the object {_wide(true)}. What is read for it?\n",
        fontsize=12,
    )
    _legend(figure, regions)
    save_png(figure, path)


def _wide(box: Box) -> str:
    return f"{format_length(box[2] - box[0])} px"


def _colour(region: Region) -> RGB:
    return BLUE if abs(region.worst) < ROUNDING else RED


def _view(regions: Sequence[Region], size: Size, stride: float) -> Box:
    """Compute the part of the image to draw: all regions with a margin."""
    edges = np.array([r.edges for r in regions] + [regions[0].box])
    low, high = edges[:, :2].min(0), edges[:, 2:].max(0)
    margin = np.maximum(0.2 * (high - low), 2 * stride)
    limit = np.array([math.ceil(side / stride) * stride for side in size[::-1]])
    x1, y1 = np.maximum(low - margin, 0)
    x2, y2 = np.minimum(high + margin, np.maximum(limit, high))
    return float(x1), float(y1), float(x2), float(y2)


def _corner(box: Box, size: Size, stride: float) -> Box:
    """Compute the part of the image, around the lower right corner of the box, to draw enlarged."""
    width, height = ZOOM * stride, 0.72 * ZOOM * stride
    x2 = min(box[2] + 0.45 * width, math.ceil(size[1] / stride) * stride)
    y2 = min(box[3] + 0.45 * height, math.ceil(size[0] / stride) * stride)
    return x2 - width, y2 - height, x2, y2


def _panel(
    ax: Axes, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], stride: float, region: Region, view: Box
) -> None:
    """Draw the image, the cells, the region's bins and sample points, and the box, within `view`."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), interpolation="antialiased", zorder=0)
    for x in np.arange(math.floor(view[0] / stride), view[2] / stride + 1) * stride:
        ax.axvline(x, color="#777777", lw=0.35, zorder=1)
    for y in np.arange(math.floor(view[1] / stride), view[3] / stride + 1) * stride:
        ax.axhline(y, color="#777777", lw=0.35, zorder=1)
    x1, y1, x2, y2 = region.box
    left, top, right, bottom = region.edges
    colour = _colour(region)
    missed, foreign = _outside(region.box, region.edges), _outside(region.edges, region.box)
    for part, hatch in (*((part, MISSED) for part in missed), *((part, FOREIGN) for part in foreign)):
        ax.add_patch(
            Rectangle(
                part[:2], part[2] - part[0], part[3] - part[1], fc=(*RED, 0.28), ec=RED, lw=0, hatch=hatch, zorder=3
            )
        )
    for low_y, high_y in region.y.bins:
        for low_x, high_x in region.x.bins:
            ax.add_patch(
                Rectangle(
                    (low_x, low_y),
                    high_x - low_x,
                    high_y - low_y,
                    fc=(*colour, 0.07),
                    ec=(*colour, 0.9),
                    lw=0.7,
                    zorder=4,
                )
            )
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=2.0, zorder=5))
    if region.x.points and region.y.points:
        x, y = np.meshgrid(region.x.points, region.y.points)
        ax.scatter(x, y, s=4, color=BLACK, linewidths=0, zorder=7)
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=BLACK, lw=1.6, ls=DASHED, zorder=6))
    ax.set(xlim=(view[0], view[2]), ylim=(view[3], view[1]), xticks=[], yticks=[])


def _outside(a: Box, b: Box) -> list[Box]:
    """Subtract the rectangle `b` from `a`, as up to four rectangles."""
    top, bottom = max(a[1], b[1]), min(a[3], b[3])
    parts = [
        (a[0], a[1], a[2], min(top, a[3])),
        (a[0], max(bottom, a[1]), a[2], a[3]),
        (a[0], top, min(b[0], a[2]), bottom),
        (max(b[2], a[0]), top, a[2], bottom),
    ]
    return [part for part in parts if part[2] - part[0] > ROUNDING and part[3] - part[1] > ROUNDING]


def _annotate_right_edge(ax: Axes, region: Region, view: Box) -> None:
    """Write the offset of the right edge beside an arrow from the box's edge to the region's."""
    true, taken = region.box[2], region.edges[2]
    y = view[1] + 0.2 * (view[3] - view[1])
    off = abs(true - taken) >= ROUNDING
    if off:
        ax.annotate(
            "",
            (taken, y),
            (true, y),
            arrowprops={
                "arrowstyle": "-|>",
                "color": BLACK,
                "lw": 1.4,
                "shrinkA": 0,
                "shrinkB": 0,
                "mutation_scale": 9,
            },
            zorder=10,
        )
    low, high = min(true, taken), max(true, taken)
    room = view[2] - high > low - view[0]
    gap = 0.03 * (view[2] - view[0])
    ax.text(
        high + gap if room else low - gap,
        y,
        format_offset(taken - true),
        ha="left" if room else "right",
        va="center",
        fontsize=12,
        fontweight="bold",
        color=RED if off else BLUE,
        zorder=11,
        bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": "none", "alpha": 0.88},
    )


def _legend(figure: Figure, regions: Mapping[str, Region]) -> None:
    handles: list[Patch | Line2D] = [
        Line2D([], [], color=BLACK, lw=1.6, ls=DASHED, label="the object's true box"),
        Patch(fc=(*RED, 0.07), ec=RED, lw=1.2, label="bins, snapped to cells"),
        Patch(fc=(*BLUE, 0.07), ec=BLUE, lw=1.2, label="bins, exact"),
    ]
    if any(_overlap(region.x.bins) or _overlap(region.y.bins) for region in regions.values()):
        handles.append(Patch(fc=(*RED, 0.2), label="read by several bins"))
    if any(_outside(region.box, region.edges) for region in regions.values()):
        handles.append(Patch(fc=(*RED, 0.28), ec=RED, lw=0, hatch=MISSED, label="missed"))
    if any(_outside(region.edges, region.box) for region in regions.values()):
        handles.append(Patch(fc=(*RED, 0.28), ec=RED, lw=0, hatch=FOREIGN, label="not the object's own"))
    if any(region.x.points for region in regions.values()):
        handles.append(Line2D([], [], color=BLACK, marker="o", ms=3, lw=0, label="samples, interpolated"))
    handles.append(Line2D([], [], color="#777777", lw=0.6, label="feature cells"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=10, frameon=False)


def _overlap(bins: Sequence[Span]) -> bool:
    """Whether neighbouring bins overlap."""
    return any(first[1] - second[0] > ROUNDING for first, second in pairwise(bins))
