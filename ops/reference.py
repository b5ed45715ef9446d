"""The operators as their definitions read, in plain loops: slow, in Python's own float64, obviously right.

Nothing is shared with the other implementations, which are tested against this one. Gradients come from autograd, since
each output is written as a sum, or a choice, of elements of the input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bilinear(map: Tensor, y: float, x: float) -> Tensor:
    """The value [C] of a map [C, H, W] at a point between cells; zeros more than one cell outside, and at NaN."""
    height, width = map.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return map.new_zeros(map.shape[0])
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = int(y), int(x)
    if top >= height - 1:
        top = bottom = height - 1
        y = float(top)
    else:
        bottom = top + 1
    if left >= width - 1:
        left = right = width - 1
        x = float(left)
    else:
        right = left + 1
    dy, dx = y - top, x - left
    above = (1 - dx) * map[:, top, left] + dx * map[:, top, right]
    below = (1 - dx) * map[:, bottom, left] + dx * map[:, bottom, right]
    return (1 - dy) * above + dy * below


def sample_points(start: float, extent: float, bins: int, samples: int) -> list[list[float]]:
    """Per bin of one axis, the coordinates of its samples, in cells."""
    size = extent / bins
    return [[start + b * size + (i + 0.5) * size / samples for i in range(samples)] for b in range(bins)]


def _assemble(bins: list[list[Tensor]]) -> Tensor:
    """[C, PH, PW] from a grid of [C]."""
    return torch.stack([torch.stack(row, -1) for row in bins], -2)


def _all_rois(input: Tensor, boxes: Tensor, bins: tuple[int, int], one: list[Tensor | None]) -> Tensor:
    """The RoIs' results stacked; zeros for RoIs without an image (None)."""
    zeros = input.new_zeros(input.shape[1], *bins)
    return torch.stack([zeros if r is None else r for r in one]) if one else input.new_zeros(0, *zeros.shape)


def _image(input: Tensor, index: float) -> Tensor | None:
    return input[int(index)] if -1 < index < input.shape[0] else None


def roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    mode: str = "avg",
) -> Tensor:
    """As `ops.roi_align`; boxes as Tensor[K, 5]."""
    results: list[Tensor | None] = []
    shift = 0.5 if aligned else 0.0
    for index, *edges in boxes.tolist():
        map = _image(input, index)
        if map is None:
            results.append(None)
            continue
        x1, y1, x2, y2 = (edge * spatial_scale - shift for edge in edges)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        results.append(_sampled(map, (y1, height), (x1, width), output_size, sampling_ratio, mode))
    return _all_rois(input, boxes, output_size, results)


def _sampled(
    map: Tensor,
    rows: tuple[float, float],
    cols: tuple[float, float],
    output_size: tuple[int, int],
    sampling_ratio: int,
    mode: str,
) -> Tensor:
    """One RoI of (start, extent) along each axis, sampled between cells."""
    counts = [
        sampling_ratio if sampling_ratio > 0 else max(math.ceil(extent / bins), 0)
        for (_, extent), bins in zip((rows, cols), output_size, strict=True)
    ]
    if 0 in counts:
        return map.new_zeros(map.shape[0], *output_size)
    ys = sample_points(*rows, output_size[0], counts[0])
    xs = sample_points(*cols, output_size[1], counts[1])
    grid: list[list[Tensor]] = []
    for bin_ys in ys:
        grid.append([])
        for bin_xs in xs:
            values = torch.stack([bilinear(map, y, x) for y in bin_ys for x in bin_xs])
            grid[-1].append(values.sum(0) / len(values) if mode == "avg" else values.max(0).values)
    return _assemble(grid)


def round_half_away(value: float) -> int:
    """The nearest whole number; halves away from zero, as C's `round`."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def roi_pool(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    quantization: str = "round",
) -> Tensor:
    """As `ops.roi_pool`; boxes as Tensor[K, 5]."""
    results: list[Tensor | None] = []
    for index, *edges in boxes.tolist():
        map = _image(input, index)
        if map is None:
            results.append(None)
            continue
        if quantization == "round":
            x1, y1, x2, y2 = (round_half_away(edge * spatial_scale) for edge in edges)
            width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        else:
            x1, y1, x2, y2 = (math.floor(edge * spatial_scale) for edge in edges)
            width, height = max(x2 - x1, 1), max(y2 - y1, 1)
        rows = _cells(y1, height, output_size[0], map.shape[1])
        cols = _cells(x1, width, output_size[1], map.shape[2])
        grid: list[list[Tensor]] = []
        for top, bottom in rows:
            grid.append([])
            for left, right in cols:
                cells = map[:, top:bottom, left:right].flatten(1)
                grid[-1].append(cells.max(1).values if cells.shape[1] else map.new_zeros(map.shape[0]))
        results.append(_assemble(grid))
    return _all_rois(input, boxes, output_size, results)


def _cells(start: int, extent: int, bins: int, size: int) -> list[tuple[int, int]]:
    """Per bin of one axis, the cells [begin, end) it covers on a map of `size` cells."""
    result = []
    for b in range(bins):
        begin = math.floor(b * (extent / bins)) + start
        end = math.ceil((b + 1) * (extent / bins)) + start
        result.append((min(max(begin, 0), size), min(max(end, 0), size)))
    return result
