"""What an operator takes for a RoI: the region that its bins cover, in pixels of the image.

The arithmetic is that of `ops.reference`, which the operators are tested against. Coordinates are continuous: the cell
j of a map of stride s covers the pixels [j s, (j + 1) s), and its value lies at its centre.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from detector.types import Size
from ops.reference import cells_of, exact_span, sample_points, whole_span

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels"""
Span = tuple[float, float]
"""Two edges on an axis, low and high"""

EXAMPLE_SIZE: Size = (800, 800)
EXAMPLE_BOX: Box = (0.0, 0.0, 665.0, 665.0)
"""The example that RoIAlign is taught with: an image of 800 x 800, stride 32, a box of 665 x 665 from the corner"""

WHOLE = 1e-6
"""Offsets below this, in pixels, are what the arithmetic of floating point leaves"""


@dataclass(frozen=True)
class Axis:
    """One axis of a RoI as an operator takes it, in pixels."""

    bins: tuple[Span, ...]
    cells: float
    """the side before it is divided into bins, in cells"""
    points: tuple[float, ...] = ()
    """where it reads between cells; none where it reads cells as they are"""

    @property
    def region(self) -> Span:
        """The outermost edges of the bins; those of bins that lie outside of the map do not count."""
        full = [span for span in self.bins if span[0] < span[1]] or list(self.bins)
        return min(low for low, _ in full), max(high for _, high in full)


class Reading(Protocol):
    """How an operator takes an axis of a RoI."""

    def __call__(self, low: float, high: float, bins: int, stride: float, limit: int) -> Axis:
        """The axis from `low` to `high` (pixels), on a map of `limit` cells that are `stride` pixels wide."""


@dataclass(frozen=True)
class Snapped:
    """As `ops.roi_pool`: whole cells, bins rounded outwards.

    Args:
        quantization: "round", the operator in use (Caffe, torchvision), which counts both end cells; "floor", the
            textbook's.

    Raises:
        ValueError: another quantization.
    """

    quantization: str = "round"

    def __post_init__(self) -> None:
        if self.quantization not in ("round", "floor"):
            raise ValueError(f"quantization must be 'round' or 'floor', not {self.quantization!r}")

    def __call__(self, low: float, high: float, bins: int, stride: float, limit: int) -> Axis:
        """As `Reading`."""
        start, extent = whole_span(low / stride, high / stride, self.quantization)
        spans = tuple((first * stride, end * stride) for first, end in cells_of(start, extent, bins, limit))
        return Axis(spans, float(extent))


@dataclass(frozen=True)
class Sampled:
    """As `ops.roi_align`: exact edges, points between cells.

    Args:
        sampling_ratio: points along each side of a bin; 0 is adaptive, about one a cell.
        aligned: the half-pixel shift; without it the operator looks half a cell too far right and down.

    Raises:
        ValueError: a negative sampling ratio.
    """

    sampling_ratio: int = 2
    aligned: bool = True

    def __post_init__(self) -> None:
        if self.sampling_ratio < 0:
            raise ValueError(f"sampling_ratio must be 0 (adaptive) or more, not {self.sampling_ratio}")

    def __call__(self, low: float, high: float, bins: int, stride: float, limit: int) -> Axis:
        """As `Reading`. Nothing is cut at the end of the map: points beyond it read its last cell."""
        del limit
        start, extent = exact_span(low / stride, high / stride, self.aligned)
        side = extent / bins
        # A coordinate c of the operator's is the value at the continuous position c + 0.5.
        edges = [(start + 0.5 + i * side) * stride for i in range(bins + 1)]
        count = self.sampling_ratio or math.ceil(side)
        points = [(p + 0.5) * stride for taken in sample_points(start, extent, bins, count) for p in taken]
        return Axis(tuple(pairwise(edges)), extent, tuple(points))


@dataclass(frozen=True)
class Region:
    """What an operator takes for a box, in pixels."""

    box: Box
    """the true one"""
    x: Axis
    y: Axis

    @property
    def edges(self) -> Box:
        """The region that the bins cover."""
        return self.x.region[0], self.y.region[0], self.x.region[1], self.y.region[1]

    @property
    def offsets(self) -> Box:
        """How far each edge lies outside of the box's; negative where it lies within."""
        signs = (-1, -1, 1, 1)
        x1, y1, x2, y2 = (s * (e - t) for s, e, t in zip(signs, self.edges, self.box, strict=True))
        return x1, y1, x2, y2

    @property
    def worst(self) -> float:
        """The largest of the offsets, with its sign."""
        return max(reversed(self.offsets), key=abs)

    @property
    def error(self) -> float:
        """How far the edges lie from the box's: the mean over the four, absolute."""
        return sum(abs(offset) for offset in self.offsets) / 4

    def summary(self) -> dict[str, Any]:
        """The numbers, to be written as JSON."""
        x1, y1, x2, y2 = self.edges
        side = math.sqrt((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))
        return {
            "box": list(self.box),
            "region": [x1, y1, x2, y2],
            "width": x2 - x1,
            "height": y2 - y1,
            "cells": [self.x.cells, self.y.cells],
            "cells_per_bin": [self.x.cells / len(self.x.bins), self.y.cells / len(self.y.bins)],
            "offsets": list(self.offsets),
            "error": self.error,
            "error_share": self.error / side,
            "bins": {"x": [list(span) for span in self.x.bins], "y": [list(span) for span in self.y.bins]},
            "points": {"x": list(self.x.points), "y": list(self.y.points)},
        }


def in_words(offset: float) -> str:
    """An offset as a reader would say it: "25 px short", "39 px too far", "0 px off"."""
    if abs(offset) < WHOLE:
        return "0 px off"
    return f"{pixels(offset)} px {'short' if offset < 0 else 'too far'}"


def pixels(length: float) -> str:
    """A length without its sign, with no more digits than it needs, to a tenth of a pixel."""
    return f"{abs(length):.1f}".removesuffix(".0")


def cells_along(size: Size, stride: float) -> Size:
    """Rows and columns of the map of an image: cells that reach over its edge count, as the image is padded to them."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def regions(
    box: Sequence[float], size: Size, stride: float, bins: int, readings: Mapping[str, Reading]
) -> dict[str, Region]:
    """What each operator takes for a box on the map of an image.

    Args:
        box: x1, y1, x2, y2 in pixels of the image.
        size: height and width of the image.
        stride: pixels between the cells of the map.
        bins: along each side of the output.
        readings: the operators by name.

    Raises:
        ValueError: the box is not four finite numbers in order, or not inside the image; `stride` or `bins` is not
            positive.
    """
    x1, y1, x2, y2 = check_box(box, size)
    if not (isinstance(stride, int | float) and math.isfinite(stride) and stride > 0):
        raise ValueError(f"stride must be a positive number of pixels, such as 16, not {stride!r}")
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"pooled, the bins along a side, must be a whole number of at least 1, not {bins!r}")
    stride = float(stride)
    rows, columns = cells_along(size, stride)
    return {
        name: Region((x1, y1, x2, y2), read(x1, x2, bins, stride, columns), read(y1, y2, bins, stride, rows))
        for name, read in readings.items()
    }


def check_box(box: Sequence[float], size: Size) -> Box:
    """The box as numbers.

    Raises:
        ValueError: it is not [x1, y1, x2, y2] with x1 < x2 and y1 < y2 inside of an image of `size` (height, width).
    """
    shown = list(box) if isinstance(box, Sequence) and not isinstance(box, str) else box
    numbers = isinstance(shown, list) and all(isinstance(v, int | float) and math.isfinite(v) for v in shown)
    if not isinstance(shown, list) or not numbers or len(shown) != 4:
        raise ValueError(f"box must be four finite numbers [x1,y1,x2,y2] in pixels, not {shown!r}")
    x1, y1, x2, y2 = (float(v) for v in shown)
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"box {shown} has no area: it must be [x1,y1,x2,y2] with x1 < x2 and y1 < y2")
    height, width = size
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        raise ValueError(f"box {shown} reaches out of the image, which is {width} pixels wide and {height} high")
    return x1, y1, x2, y2
