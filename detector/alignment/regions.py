"""Compute the region that an operator pools for a RoI, bin by bin, in pixels of the image.

The arithmetic is that of `ops.reference`, which the operators are tested against. Coordinates are continuous: cell j of
a map of stride s covers the pixels [j s, (j + 1) s), and its value lies at its centre.
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
"""(low, high) on one axis"""

EXAMPLE_SIZE: Size = (800, 800)
EXAMPLE_BOX: Box = (0.0, 0.0, 665.0, 665.0)
"""The textbook example of RoIAlign: an image of 800 x 800, stride 32, and a box of 665 x 665 at the top left corner"""

ROUNDING = 1e-6
"""Offsets below this, in pixels, are floating-point error and count as 0"""


@dataclass(frozen=True)
class Axis:
    """One axis of the region that an operator pools, in pixels."""

    bins: tuple[Span, ...]
    cells: float
    """the extent that is divided into bins, in cells"""
    points: tuple[float, ...] = ()
    """the sample points, bin by bin; empty where the operator pools whole cells"""

    @property
    def region(self) -> Span:
        """The outermost edges of the bins, without bins that lie outside of the map."""
        full = [span for span in self.bins if span[0] < span[1]] or list(self.bins)
        return min(low for low, _ in full), max(high for _, high in full)


class Reading(Protocol):
    """How an operator divides one axis of a RoI into bins and sample points."""

    def __call__(self, low: float, high: float, bins: int, stride: float, limit: int) -> Axis:
        """Map the edges `low` and `high` (pixels) to `bins` bins, on a map of `limit` cells of `stride` pixels."""


@dataclass(frozen=True)
class Snapped:
    """Divide an axis as `ops.roi_pool` does: the RoI rounded to whole cells, its bins rounded outwards.

    Args:
        quantization: "round" for the operator in use (Caffe, torchvision), which counts both end cells; "floor" for
            the textbooks'.

    Raises:
        ValueError: `quantization` is neither.
    """

    quantization: str = "round"

    def __post_init__(self) -> None:
        if self.quantization not in ("round", "floor"):
            raise ValueError(f"quantization must be 'round' or 'floor', not {self.quantization!r}")

    def __call__(self, low: float, high: float, bins: int, stride: float, limit: int) -> Axis:
        """Round the RoI, then its bins; see `Reading`."""
        start, extent = whole_span(low / stride, high / stride, self.quantization)
        spans = tuple((first * stride, end * stride) for first, end in cells_of(start, extent, bins, limit))
        return Axis(spans, float(extent))


@dataclass(frozen=True)
class Sampled:
    """Divide an axis as `ops.roi_align` does: exact edges, sample points between cells.

    Args:
        sampling_ratio: sample points along each side of a bin; 0: adaptive, about one per cell.
        aligned: apply the half-pixel shift; without it the region lies half a cell too far right and down.

    Raises:
        ValueError: `sampling_ratio` is negative.
    """

    sampling_ratio: int = 2
    aligned: bool = True

    def __post_init__(self) -> None:
        if self.sampling_ratio < 0:
            raise ValueError(f"sampling_ratio must be 0 (adaptive) or more, not {self.sampling_ratio}")

    def __call__(self, low: float, high: float, bins: int, stride: float, limit: int) -> Axis:
        """Place the bins and sample points; see `Reading`. Points beyond the map are kept: they read its last cell."""
        del limit
        start, extent = exact_span(low / stride, high / stride, self.aligned)
        side = extent / bins
        # The operators' coordinate c, a cell's centre at whole numbers, is the continuous coordinate c + 0.5.
        edges = [(start + 0.5 + i * side) * stride for i in range(bins + 1)]
        count = self.sampling_ratio or math.ceil(side)
        points = [(p + 0.5) * stride for taken in sample_points(start, extent, bins, count) for p in taken]
        return Axis(tuple(pairwise(edges)), extent, tuple(points))


@dataclass(frozen=True)
class Region:
    """The region that an operator pools for a box, in pixels."""

    box: Box
    """the RoI itself"""
    x: Axis
    y: Axis

    @property
    def edges(self) -> Box:
        """The box that the bins cover: x1, y1, x2, y2."""
        return self.x.region[0], self.y.region[0], self.x.region[1], self.y.region[1]

    @property
    def offsets(self) -> Box:
        """Distance of each edge (x1, y1, x2, y2) from the box's edge; positive outwards, negative inwards."""
        signs = (-1, -1, 1, 1)
        x1, y1, x2, y2 = (s * (e - t) for s, e, t in zip(signs, self.edges, self.box, strict=True))
        return x1, y1, x2, y2

    @property
    def worst(self) -> float:
        """The offset of largest absolute value, with its sign."""
        return max(reversed(self.offsets), key=abs)

    @property
    def error(self) -> float:
        """The quantisation error: the mean absolute offset of the four edges."""
        return sum(abs(offset) for offset in self.offsets) / 4

    def summary(self) -> dict[str, Any]:
        """Collect edges, offsets, bins and sample points as JSON-able values, in pixels."""
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


def format_offset(offset: float) -> str:
    """Format an offset in pixels: "25 px short", "39 px too far", "0 px off"."""
    if abs(offset) < ROUNDING:
        return "0 px off"
    return f"{format_length(offset)} px {'short' if offset < 0 else 'too far'}"


def format_length(length: float) -> str:
    """Format the absolute length to a tenth of a pixel, without a trailing ".0"."""
    return f"{abs(length):.1f}".removesuffix(".0")


def map_size(size: Size, stride: float) -> Size:
    """Compute the height and width of an image's feature map; padding completes the cells at its edge."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def pooled_regions(
    box: Sequence[float], size: Size, stride: float, bins: int, readings: Mapping[str, Reading]
) -> dict[str, Region]:
    """Compute the region that each operator pools for a box.

    Args:
        box: x1, y1, x2, y2 in pixels of the image.
        size: height and width of the image.
        stride: pixels between the cells of the feature map.
        bins: bins along each side of the output.
        readings: how each operator divides an axis, by operator.

    Raises:
        ValueError: the box is not four finite numbers in order, or not inside the image; `stride` or `bins` is not
            positive.
    """
    x1, y1, x2, y2 = check_box(box, size)
    if not (isinstance(stride, int | float) and math.isfinite(stride) and stride > 0):
        raise ValueError(f"stride must be a positive number of pixels, such as 16, not {stride!r}")
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"pooled, the number of bins along a side, must be a whole number of at least 1, not {bins!r}")
    stride = float(stride)
    rows, columns = map_size(size, stride)
    return {
        name: Region((x1, y1, x2, y2), reading(x1, x2, bins, stride, columns), reading(y1, y2, bins, stride, rows))
        for name, reading in readings.items()
    }


def check_box(box: Sequence[float], size: Size) -> Box:
    """Check a box given by the user and convert it to floats.

    Raises:
        ValueError: it is not [x1, y1, x2, y2] with x1 < x2 and y1 < y2 inside an image of `size` (height, width).
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
