"""Draw where each operator samples, by the reference's arithmetic: `python -m ops.drawing > ops/sampling.svg`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable

from ops.reference import cells_of, edge_to_edge, exact_span, sample_points, whole_span

SIZE = 7
"""side of the map, in cells"""
BINS = 2
BOX = (2.28, 0.3, 4.6, 5.59)
"""x1, y1, x2, y2 in cells, continuous: cell j covers [j, j + 1), and its value lies at its centre"""
UNIT = 22
"""pixels of the drawing per cell"""

Span = tuple[float, float]
Axis = tuple[Span, list[Span], list[float]]
"""One axis: the operator's RoI, its bins and its sample points, in continuous cells"""


def _points(start: float, extent: float, samples: int) -> Axis:
    """Place bilinear samples; an operator's coordinate c is the continuous position c + 0.5."""
    start += 0.5
    bins = [(start + b * extent / BINS, start + (b + 1) * extent / BINS) for b in range(BINS)]
    points = [point for bin in sample_points(start, extent, BINS, samples) for point in bin]
    return (start, start + extent), bins, points


def _pool(low: float, high: float) -> Axis:
    first, extent = whole_span(low, high)
    bins: list[Span] = [(float(a), float(b)) for a, b in cells_of(first, extent, BINS, SIZE)]
    cells = sorted({cell + 0.5 for a, b in bins for cell in range(int(a), int(b))})
    return (float(first), float(first + extent)), bins, cells


def _warp(low: float, high: float) -> Axis:
    return _points(*whole_span(low, high), 2)


def _edges(low: float, high: float, count: int) -> Axis:
    points = [point + 0.5 for point in edge_to_edge(low, high, count)]
    return (low + 0.5, high + 0.5), [], points


PANELS: dict[str, Callable[[float, float], Axis]] = {
    "RoIPool": _pool,
    "RoIWarp, 2 x 2": _warp,
    "RoIAlign, 2 x 2, not aligned": lambda low, high: _points(*exact_span(low, high, False), 2),
    "RoIAlign, 2 x 2, aligned": lambda low, high: _points(*exact_span(low, high, True), 2),
    "RoIAlign, adaptive, aligned": lambda low, high: _points(
        *exact_span(low, high, True), math.ceil((high - low) / BINS)
    ),
    "crop_and_resize": lambda low, high: _edges(low, high, BINS),
    "roi_crop": lambda low, high: _edges(low, high, 2 * BINS),
}
"""For each operator, the function from the two edges of an axis to its `Axis`"""


def _rectangle(x: Span, y: Span, style: str) -> str:
    corner = f'x="{x[0] * UNIT:.1f}" y="{y[0] * UNIT:.1f}"'
    return f'<rect {corner} width="{(x[1] - x[0]) * UNIT:.1f}" height="{(y[1] - y[0]) * UNIT:.1f}" {style}/>'


def _panel(title: str, x: Axis, y: Axis) -> Iterable[str]:
    yield f'<text x="0" y="-8" font-size="12" font-family="sans-serif">{title}</text>'
    for row in range(SIZE):
        for column in range(SIZE):
            yield _rectangle((column, column + 1), (row, row + 1), 'fill="#fafafa" stroke="#dddddd"')
    yield _rectangle((BOX[0], BOX[2]), (BOX[1], BOX[3]), 'fill="#9ecae1" fill-opacity="0.5" stroke="#3182bd"')
    yield _rectangle(x[0], y[0], 'fill="none" stroke="#e6550d" stroke-width="2"')
    for across in x[1]:
        for down in y[1]:
            yield _rectangle(across, down, 'fill="none" stroke="#e6550d"')
    for point_y in y[2]:
        for point_x in x[2]:
            yield f'<circle cx="{point_x * UNIT:.1f}" cy="{point_y * UNIT:.1f}" r="2.5" fill="#222222"/>'


def draw() -> str:
    """Draw an SVG document with a panel per operator: the map, the box, the operator's RoI, bins and sample points."""
    step = SIZE * UNIT + 40
    columns = 4
    rows = -(-len(PANELS) // columns)
    width, height = columns * step, rows * (step + 10) + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, (title, axis) in enumerate(PANELS.items()):
        lines.append(f'<g transform="translate({20 + i % columns * step} {30 + i // columns * (step + 10)})">')
        lines += _panel(title, axis(BOX[0], BOX[2]), axis(BOX[1], BOX[3]))
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    sys.stdout.write(draw())
