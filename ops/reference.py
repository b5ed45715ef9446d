"""Reference implementation of the operators: their definitions in plain loops and Python's float64.

It shares no code with the other implementations, which are tested against it. Gradients come from autograd: each output
is a sum, or a maximum, of elements of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def bilinear(map: Tensor, y: float, x: float) -> Tensor:
    """Interpolate a map [C, H, W] at a point: [C], zeros at NaN and more than one cell outside the map."""
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
    """List the sample coordinates of each bin of one axis, in cells."""
    size = extent / bins
    return [[start + b * size + (i + 0.5) * size / samples for i in range(samples)] for b in range(bins)]


def _assemble(bins: list[list[Tensor]]) -> Tensor:
    """Stack a grid of [C] to [C, PH, PW]."""
    return torch.stack([torch.stack(row, -1) for row in bins], -2)


def _per_roi(
    input: Tensor, boxes: Tensor, channels: int, bins: tuple[int, int], pool: Callable[[Tensor, list[float]], Tensor]
) -> Tensor:
    """Apply pool(map [C, H, W], edges x1, y1, x2, y2) to each RoI and stack; zeros for RoIs without an image."""
    zeros = input.new_zeros(channels, *bins)
    results = [
        pool(input[int(index)], edges) if -1 < index < input.shape[0] else zeros for index, *edges in boxes.tolist()
    ]
    return torch.stack(results) if results else zeros.new_zeros(0, *zeros.shape)


def roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    mode: str = "avg",
) -> Tensor:
    """Compute `ops.roi_align`; boxes as Tensor[K, 5]."""

    def pool(map: Tensor, edges: list[float]) -> Tensor:
        x1, y1, x2, y2 = (edge * spatial_scale for edge in edges)
        rows, cols = exact_span(y1, y2, aligned), exact_span(x1, x2, aligned)
        return _sampled(map, rows, cols, output_size, sampling_ratio, mode)

    return _per_roi(input, boxes, input.shape[1], output_size, pool)


def roi_warp(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    mode: str = "avg",
) -> Tensor:
    """Compute `ops.roi_warp`; boxes as Tensor[K, 5]."""

    def pool(map: Tensor, edges: list[float]) -> Tensor:
        x1, y1, x2, y2 = (edge * spatial_scale for edge in edges)
        return _sampled(map, whole_span(y1, y2), whole_span(x1, x2), output_size, sampling_ratio, mode)

    return _per_roi(input, boxes, input.shape[1], output_size, pool)


def _sampled(
    map: Tensor,
    rows: tuple[float, float],
    cols: tuple[float, float],
    output_size: tuple[int, int],
    sampling_ratio: int,
    mode: str,
) -> Tensor:
    """Pool one RoI, (start, extent) along each axis, from bilinear samples: [C, PH, PW]."""
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
    """Round to the nearest whole number, halves away from zero, as C's `round`."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def exact_span(low: float, high: float, aligned: bool) -> tuple[float, float]:
    """Compute RoIAlign's (start, extent) on one axis, in cells, in the coordinates of `bilinear`."""
    return (low - 0.5, high - low) if aligned else (low, max(high - low, 1.0))


def whole_span(low: float, high: float, quantization: str = "round") -> tuple[int, int]:
    """Compute RoIPool's first cell and number of cells on one axis: (start, extent)."""
    if quantization == "round":
        first = round_half_away(low)
        return first, max(round_half_away(high) - first + 1, 1)
    first = math.floor(low)
    return first, max(math.floor(high) - first, 1)


def roi_pool(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    quantization: str = "round",
) -> Tensor:
    """Compute `ops.roi_pool`; boxes as Tensor[K, 5]."""

    def pool(map: Tensor, edges: list[float]) -> Tensor:
        x1, y1, x2, y2 = (edge * spatial_scale for edge in edges)
        rows = cells_of(*whole_span(y1, y2, quantization), output_size[0], map.shape[1])
        cols = cells_of(*whole_span(x1, x2, quantization), output_size[1], map.shape[2])
        grid: list[list[Tensor]] = []
        for top, bottom in rows:
            grid.append([])
            for left, right in cols:
                cells = map[:, top:bottom, left:right].flatten(1)
                grid[-1].append(cells.max(1).values if cells.shape[1] else map.new_zeros(map.shape[0]))
        return _assemble(grid)

    return _per_roi(input, boxes, input.shape[1], output_size, pool)


def cells_of(start: int, extent: int, bins: int, limit: int) -> list[tuple[int, int]]:
    """List the cells [begin, end) of each bin of one axis, clipped to [0, limit]."""
    result = []
    for b in range(bins):
        begin = math.floor(b * (extent / bins)) + start
        end = math.ceil((b + 1) * (extent / bins)) + start
        result.append((min(max(begin, 0), limit), min(max(end, 0), limit)))
    return result


def _own_channels(pooled: Tensor) -> Tensor:
    """Select each bin's own channels: [C, PH, PW] from [C * PH * PW, PH, PW]."""
    height, width = pooled.shape[1:]
    channels = pooled.shape[0] // (height * width)
    bins = [
        [pooled[[(c * height + ph) * width + pw for c in range(channels)], ph, pw] for pw in range(width)]
        for ph in range(height)
    ]
    return _assemble(bins)


def ps_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Compute `ops.ps_roi_align`; boxes as Tensor[K, 5]."""
    pooled = roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, aligned=True)
    channels = input.shape[1] // (output_size[0] * output_size[1])
    return torch.stack([_own_channels(p) for p in pooled]) if len(boxes) else pooled[:, :channels]


def cells_between(low: float, high: float, scale: float, bins: int, limit: int) -> list[tuple[int, int]]:
    """List the cells [begin, end) of each bin of one axis as R-FCN's authors do, from edges in pixels."""
    start = round_half_away(low) * scale
    size = max((round_half_away(high) + 1) * scale - start, 0.1) / bins
    result = []
    for b in range(bins):
        begin, end = math.floor(b * size + start), math.ceil((b + 1) * size + start)
        result.append((min(max(begin, 0), limit), min(max(end, 0), limit)))
    return result


def ps_roi_pool(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    quantization: str = "round",
) -> Tensor:
    """Compute `ops.ps_roi_pool`; boxes as Tensor[K, 5]."""

    def bins_of(low: float, high: float, bins: int, size: int) -> list[tuple[int, int]]:
        if quantization == "rfcn":
            return cells_between(low, high, spatial_scale, bins, size)
        first, last = (round_half_away(edge * spatial_scale) for edge in (low, high))
        return cells_of(first, max(last - first, 1), bins, size - 1)

    def pool(map: Tensor, edges: list[float]) -> Tensor:
        x1, y1, x2, y2 = edges
        rows = bins_of(y1, y2, output_size[0], map.shape[1])
        cols = bins_of(x1, x2, output_size[1], map.shape[2])
        grid: list[list[Tensor]] = []
        for top, bottom in rows:
            grid.append([])
            for left, right in cols:
                cells = map[:, top:bottom, left:right].flatten(1)
                grid[-1].append(cells.mean(1) if cells.shape[1] else map.new_zeros(map.shape[0]))
        return _own_channels(_assemble(grid))

    channels = input.shape[1] // (output_size[0] * output_size[1])
    return _per_roi(input, boxes, channels, output_size, pool)


def edge_to_edge(low: float, high: float, count: int) -> list[float]:
    """Place `count` points evenly, the first and the last on the edges; a single one at the centre."""
    return [low + i * (high - low) / (count - 1) for i in range(count)] if count > 1 else [(low + high) / 2]


def crop_and_resize(input: Tensor, boxes: Tensor, output_size: tuple[int, int], spatial_scale: float = 1.0) -> Tensor:
    """Compute `ops.crop_and_resize`; boxes as Tensor[K, 5]."""

    def pool(map: Tensor, edges: list[float]) -> Tensor:
        x1, y1, x2, y2 = (edge * spatial_scale for edge in edges)
        height, width = map.shape[1:]

        def value(y: float, x: float) -> Tensor:
            on_map = 0 <= y <= height - 1 and 0 <= x <= width - 1
            return bilinear(map, y, x) if on_map else map.new_zeros(map.shape[0])

        xs = edge_to_edge(x1, x2, output_size[1])
        return _assemble([[value(y, x) for x in xs] for y in edge_to_edge(y1, y2, output_size[0])])

    return _per_roi(input, boxes, input.shape[1], output_size, pool)


def roi_crop(input: Tensor, boxes: Tensor, output_size: tuple[int, int], spatial_scale: float = 1.0) -> Tensor:
    """Compute `ops.roi_crop`; boxes as Tensor[K, 5]. The map is padded with zeros, into which its border fades."""
    framed = torch.nn.functional.pad(input, (1, 1, 1, 1))
    moved = boxes.clone()
    moved[:, 1:] = boxes[:, 1:] * spatial_scale + 1
    crop = crop_and_resize(framed, moved, (2 * output_size[0], 2 * output_size[1]))
    return torch.nn.functional.max_pool2d(crop, 2)
