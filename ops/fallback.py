"""The operators in pure PyTorch, for machines without a compiler and devices without compiled kernels.

Exact and differentiable, in whole-tensor operations; slower and with more memory than the kernels. The arithmetic is
that of csrc/geometry.h: an axis of a RoI becomes, per bin, a list of samples between the cells `low` and `low + 1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_GRID = 1 << 20
CHUNK_ELEMENTS = 1 << 24
"""About the most elements of an intermediate tensor; RoIs that need more are processed in chunks."""
CHUNK_PAIRS = 1 << 19
"""About the most pairs of a box and an object that are compared at a time."""


@dataclass
class Places:
    """One axis of K RoIs: the samples (or whole cells) of each of P bins, padded to J."""

    low: Tensor
    """int64 [K, P, J]"""
    fraction: Tensor
    """[K, P, J]: position between cell `low` (0) and the next (1)"""
    valid: Tensor
    """bool [K, P, J]: not padding, and within reach of the map"""
    count: Tensor
    """[K, 1 or P]: the divisor of an average"""
    zeros: Tensor
    """bool [K, P]: some samples are out of reach and count as zeros"""


def _places(edges: Tensor, scale: float, bins: int, sampling_ratio: int, rule: str, size: int) -> Places:
    """Place the samples or cells of RoIs with edges [K, 2] (in pixels) on an axis of `size` cells."""
    if rule == "ps_pool_rfcn":
        edges = _round(edges) + edges.new_tensor([0, 1])
    begin, end = (edges * scale).unbind(1)
    finite = begin.isfinite() & end.isfinite()
    begin, end = torch.where(finite, begin, 0), torch.where(finite, end, 0)
    if rule in ("align", "align_half"):
        shift = 0.5 if rule == "align_half" else 0.0
        start = begin - shift
        extent = (end - shift) - start
        extent = extent.clamp(min=1) if rule == "align" else extent
    elif rule == "ps_pool_rfcn":
        start, extent = begin, (end - begin).clamp(min=0.1)
    else:
        cells = [(e.floor() if rule == "pool_floor" else _round(e)).clamp(-(2.0**30), 2.0**30) for e in (begin, end)]
        counts_end = rule in ("warp", "pool_round")
        start = cells[0]
        # In float64, where the difference of two whole numbers of this size is exact.
        extent = (cells[1].double() - cells[0].double() + counts_end).clamp(min=1).to(edges.dtype)
    bin_size = extent / bins
    finite = finite & bin_size.isfinite()
    number = torch.arange(bins, device=edges.device)
    if rule in ("align", "align_half", "warp"):
        return _samples(
            torch.where(finite, start, 0), torch.where(finite, bin_size, 0), finite, number, sampling_ratio, size
        )
    limit = size - 1 if rule == "ps_pool" else size
    low, high = number * bin_size[:, None], (number + 1) * bin_size[:, None]
    if rule == "ps_pool_rfcn":
        # Clamped before the conversion: an edge can be as large as a float.
        low, high = (e.clamp(-1, size + 1) for e in (low + start[:, None], high + start[:, None]))
        first = torch.zeros((), dtype=torch.int64)
    else:
        first = start.long()[:, None]
    low = (low.floor().long() + first).clamp(0, limit)
    high = (high.ceil().long() + first).clamp(0, limit)
    high = torch.where(finite[:, None], high, low)
    longest = max(int((high - low).max()) if len(edges) else 0, 1)
    cell = low[..., None] + torch.arange(longest, device=edges.device)
    count = (high - low).clamp(min=1).to(edges.dtype)
    nothing = torch.zeros_like(low, dtype=torch.bool)
    valid = cell < high[..., None]
    return Places(cell.clamp(max=size - 1), torch.zeros_like(cell, dtype=edges.dtype), valid, count, nothing)


def _round(value: Tensor) -> Tensor:
    """Round half away from zero (torch rounds half to even)."""
    whole = value.trunc()
    return whole + torch.where((value - whole).abs() >= 0.5, value.sign(), 0)


def _samples(start: Tensor, bin_size: Tensor, finite: Tensor, number: Tensor, sampling_ratio: int, size: int) -> Places:
    adaptive = bin_size.ceil().clamp(0, MAX_GRID)
    grid = torch.where(finite, sampling_ratio if sampling_ratio > 0 else adaptive, 0).to(bin_size.dtype)
    edge = start[:, None] + number * bin_size[:, None]  # [K, P]
    # Only some consecutive samples of a grid larger than the map are within reach: estimate which, with a margin.
    spacing = (bin_size / grid.clamp(min=1)).double()[:, None]
    nearest = torch.where(spacing > 0, -1 - edge.double(), size - edge.double()) / torch.where(spacing == 0, 1, spacing)
    slack = len(number) + 4
    largest = int(grid.max()) if len(grid) else 0
    steps = spacing.abs()[(grid > slack)[:, None]]
    reach = math.ceil((size + 1) / float(steps.min())) + 2 * slack if len(steps) and float(steps.min()) > 0 else largest
    count = max(min(largest, reach), 1)
    first = (nearest.floor() - slack).clamp(min=torch.zeros_like(nearest), max=(grid[:, None] - count).clamp(min=0))
    index = first[..., None] + torch.arange(count, device=start.device)  # [K, P, J], whole numbers
    index = index.to(start.dtype)
    safe = grid.clamp(min=1)[:, None, None]
    point = edge[..., None] + (index + 0.5) * bin_size[:, None, None] / safe
    valid = (index < grid[:, None, None]) & (point >= -1) & (point <= size)
    inside = torch.where(valid, point, 0).clamp(min=0)
    low = inside.long()
    fraction = torch.where(low >= size - 1, 0, inside - low)
    return Places(low.clamp(max=size - 1), fraction, valid, grid[:, None], valid.sum(-1) < grid[:, None])


def _weights(places: Places, size: int) -> Tensor:
    """Convert the average over each bin's samples to weights of cells, [K, P, size]."""
    weight = torch.where(places.valid, 1 / places.count.clamp(min=1)[..., None], 0)
    result = weight.new_zeros(*weight.shape[:2], size)
    result.scatter_add_(2, places.low, weight * (1 - places.fraction))
    return result.scatter_add_(2, (places.low + 1).clamp(max=size - 1), weight * places.fraction)


def _sites(features: list[Tensor], boxes: Tensor, levels: Tensor | None) -> list[tuple[int, int, Tensor]]:
    """Group the RoIs by map: (level, image, indices of its RoIs), without maps that have none."""
    image = boxes[:, 0]
    image = torch.where((image > -1) & (image < features[0].shape[0]), image, -1).long()  # NaN fails the comparison
    level = torch.zeros_like(image) if levels is None else levels
    sites = []
    for i in range(len(features)):
        for n in range(features[0].shape[0]):
            index = ((level == i) & (image == n)).nonzero()[:, 0]
            if len(index):
                sites.append((i, n, index))
    return sites


def _prepare(features: list[Tensor], boxes: Tensor) -> Tensor:
    return boxes.to(torch.float64 if features[0].dtype == torch.float64 else torch.float32)


def average(
    features: list[Tensor],
    boxes: Tensor,
    levels: Tensor | None,
    scales: list[float],
    height: int,
    width: int,
    sampling_ratio: int,
    rule: str,
) -> Tensor:
    """Compute `aligned_rcnn::average` as matrix products Wy F Wx^T with the weights of rows and columns."""
    boxes = _prepare(features, boxes)
    shape = (boxes.shape[0], features[0].shape[1], height, width)
    output = features[0].new_zeros(shape, dtype=boxes.dtype)
    for i, n, index in _sites(features, boxes, levels):
        values = features[i][n].to(boxes.dtype)  # [C, H, W]
        part = max(CHUNK_ELEMENTS // (values.shape[0] * values.shape[1] * width), 1)
        for rois in torch.split(index, part):
            rows = _places(boxes[rois][:, [2, 4]], scales[i], height, sampling_ratio, rule, values.shape[1])
            cols = _places(boxes[rois][:, [1, 3]], scales[i], width, sampling_ratio, rule, values.shape[2])
            wide = torch.einsum("chw,kqw->kchq", values, _weights(cols, values.shape[2]))
            pooled = torch.einsum("kph,kchq->kcpq", _weights(rows, values.shape[1]), wide)
            output = output.index_copy(0, rois, pooled)
    return output.to(features[0].dtype)


def ps_average(
    features: list[Tensor],
    boxes: Tensor,
    levels: Tensor | None,
    scales: list[float],
    height: int,
    width: int,
    sampling_ratio: int,
    rule: str,
) -> Tensor:
    """Compute `aligned_rcnn::ps_average`: average all channels in all bins, then keep each bin's own channels."""
    pooled = average(features, boxes, levels, scales, height, width, sampling_ratio, rule)
    by_bin = pooled.reshape(boxes.shape[0], features[0].shape[1] // (height * width), height, width, height, width)
    return torch.einsum("kcpqpq->kcpq", by_bin)


def maximum(
    features: list[Tensor],
    boxes: Tensor,
    levels: Tensor | None,
    scales: list[float],
    height: int,
    width: int,
    sampling_ratio: int,
    rule: str,
) -> Tensor:
    """Compute the values of `aligned_rcnn::maximum`, bin by bin."""
    boxes = _prepare(features, boxes)
    shape = (boxes.shape[0], features[0].shape[1], height, width)
    output = features[0].new_zeros(shape, dtype=boxes.dtype)
    for i, n, index in _sites(features, boxes, levels):
        values = features[i][n].to(boxes.dtype).permute(1, 2, 0)  # [H, W, C]
        rows = _places(boxes[index][:, [2, 4]], scales[i], height, sampling_ratio, rule, values.shape[0])
        cols = _places(boxes[index][:, [1, 3]], scales[i], width, sampling_ratio, rule, values.shape[1])
        part = max(CHUNK_ELEMENTS // (rows.low.shape[2] * cols.low.shape[2] * values.shape[2]), 1)
        parts = []
        for chunk in torch.split(torch.arange(len(index), device=boxes.device), part):
            # What each bin is computed from is not kept for the backward pass, but computed again.
            bins = [
                checkpoint(_bin, values, rows, cols, chunk, ph, pw, rule, use_reentrant=False, preserve_rng_state=False)
                for ph in range(height)
                for pw in range(width)
            ]
            parts.append(torch.stack(bins, -1).reshape(len(chunk), -1, height, width))
        output = output.index_copy(0, index, torch.cat(parts))
    return output.to(features[0].dtype)


def _bin(values: Tensor, rows: Places, cols: Places, rois: Tensor, ph: int, pw: int, rule: str) -> Tensor:
    """Compute the maximum over one bin of the RoIs `rois`, [k, C]."""
    y, x = rows.low[rois, ph][:, :, None], cols.low[rois, pw][:, None, :]
    valid = (rows.valid[rois, ph][:, :, None] & cols.valid[rois, pw][:, None, :]).flatten(1)[..., None]
    interpolates = not rule.startswith("pool")
    found = values[y, x]  # [k, Jy, Jx, C]
    if interpolates:
        fy, fx = rows.fraction[rois, ph][:, :, None, None], cols.fraction[rois, pw][:, None, :, None]
        # The next cell, or the same one where the next has weight 0 and may lie off the map.
        below, beside = y + (fy[..., 0] > 0), x + (fx[..., 0] > 0)
        top = (1 - fx) * found + fx * values[y, beside]
        found = (1 - fy) * top + fy * ((1 - fx) * values[below, x] + fx * values[below, beside])
    found = found.flatten(1, 2)
    if interpolates:
        best = torch.where(valid, found, -math.inf).max(1).values
        zeros = (rows.zeros[rois, ph] | cols.zeros[rois, pw])[:, None]
        best = torch.where(zeros & (best < 0), 0, best)
    else:
        lowest = -torch.finfo(torch.float32).max
        best = torch.where(valid & (found > lowest), found, lowest).max(1).values
    return torch.where(valid.any(1), best, 0)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    side = (high - low).clamp(min=0)
    return side[..., 0] * side[..., 1]


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Compute the IoU [N, M] of boxes [N, 4] and [M, 4]; 0 where the union is empty."""
    common = _intersection(a, b)
    union = _area(a)[:, None] + _area(b)[None] - common
    return torch.where(union > 0, common / union, 0.0)


def match(boxes: Tensor, objects: Tensor, crowd: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute `aligned_rcnn::match`, some boxes at a time."""
    if len(objects) == 0 or len(boxes) == 0:
        zeros = boxes.new_zeros(len(boxes))
        return zeros - 1, zeros.long(), zeros.bool(), zeros
    chunks = torch.split(boxes, max(CHUNK_PAIRS // len(objects), 1))
    best, covered = [], []
    highest = boxes.new_zeros(len(objects), 1)
    for chunk in chunks:
        overlap = _iou(objects, chunk).masked_fill(crowd[:, None], -1.0)
        best.append(overlap.max(0))
        highest = torch.maximum(highest, overlap.max(1, keepdim=True).values)
        own = _area(chunk)
        share = torch.where(own > 0, _intersection(objects, chunk) / own, 0.0)
        covered.append(share.masked_fill(~crowd[:, None], 0.0).max(0).values)
    nearest = [((_iou(objects, c) == highest) & (highest > 0) & ~crowd[:, None]).any(0) for c in chunks]
    values, index = (torch.cat(parts) for parts in zip(*best, strict=True))
    return values, index, torch.cat(nearest), torch.cat(covered)


def rank(boxes: Tensor, objects: Tensor, crowd: Tensor, distance: str, topk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `aligned_rcnn::rank`, some boxes at a time."""
    count, all_objects = boxes.shape[1], objects.shape[1]
    if count == 0 or all_objects == 0:
        places = torch.zeros(count, dtype=torch.int64, device=boxes.device)
        return boxes.new_full((count,), torch.inf), places, places - 1
    chunks = torch.split(boxes, max(CHUNK_PAIRS // all_objects, 1), dim=1)
    best = []
    nearest = boxes.new_full((all_objects, topk), torch.inf)
    for chunk in chunks:
        found = _distances(objects, chunk, crowd, distance)
        best.append(found.min(0))
        nearest = torch.cat((nearest, found), 1).topk(topk, largest=False).values
    limit = nearest[:, -1:]
    ranked = []
    for chunk in chunks:
        found = _distances(objects, chunk, crowd, distance)
        within, index = torch.where(found <= limit, found, torch.inf).min(0)
        ranked.append(torch.where(within.isfinite(), index, -1))
    values, places = (torch.cat(parts) for parts in zip(*best, strict=True))
    first = (~crowd).to(torch.uint8).argmax()  # of boxes that have no distance
    return values, torch.where(values.isfinite(), places, first), torch.cat(ranked)


def _distances(objects: Tensor, boxes: Tensor, crowd: Tensor, distance: str) -> Tensor:
    """Compute the distances [G, N] of csrc/gaussian.h, infinite for crowd regions and what has no Gaussian."""
    x, y, width, height, logarithm = boxes[:, None]
    ox, oy, own_width, own_height, own_logarithm = objects[:, :, None]
    dx, dy = x - ox, y - oy
    if distance == "wasserstein":
        dw, dh = width - own_width, height - own_height
        found = (dx * dx + dy * dy) + (dw * dw + dh * dh)
    else:
        half = boxes.new_tensor(0.5)  # a number would be multiplied with the reciprocal, which rounds twice
        across, down = half / (own_width * own_width), half / (own_height * own_height)
        spread = (width * width + dx * dx) * across + (height * height + dy * dy) * down
        found = (spread + ((own_logarithm - 1) - logarithm)).clamp(min=0)
    return torch.where(found.isfinite() & ~crowd[:, None], found, torch.inf)


def nms(boxes: Tensor, order: Tensor, groups: Tensor, iou_threshold: float, topk: int) -> Tensor:
    """Compute `aligned_rcnn::nms`, one kept box after the other."""
    kept: list[Tensor] = []
    while order.shape[0] > 0 and len(kept) < topk:
        best, rest = order[:1], order[1:]
        kept.append(best)
        overlaps = _iou(boxes[best], boxes[rest])[0].double() > iou_threshold
        order = rest[~(overlaps & (groups[rest] == groups[best]))]
    return torch.cat(kept) if kept else order[:0]
