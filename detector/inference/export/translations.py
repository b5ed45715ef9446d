"""The operators of `ops` in ONNX's own, of opset 18, which every runtime loads (ONNX Runtime has no RoiAlign of 22).

Each function here is called with the values of a graph while `torch.onnx` writes it, and adds nodes to it. What a
runtime may read otherwise is written out: `sampling_ratio` is 0 for adaptive, the half-pixel shift has its flag, RoIs
of whole cells are rounded before, and maxima over samples are those of single samples, since RoiAlign's mode `max`
takes weighted corners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

OPSET = 18
Value = Any
"""A value of the graph, `onnx_ir.Value`."""
Pool = Callable[[Value, Value, float], Value]
"""`(feature [1, D, H, W], rois [K, 5], scale) -> [K, D, P, P]`"""


def table() -> dict[Any, Callable[..., Any]]:
    """Return the translations by operator, as `torch.onnx.export(custom_translation_table=...)` takes them."""
    own = torch.ops.aligned_rcnn
    return {
        own.average.default: average,
        own.maximum.default: maximum,
        own.ps_average.default: ps_average,
        own.batched_nms.default: batched_nms,
    }


def _op() -> Any:
    from onnxscript import opset18

    return opset18


def _ints(*values: int) -> Value:
    return _op().Constant(value_ints=list(values))


def average(
    features: Any,
    boxes: Any,
    levels: Any,
    scales: Any,
    pooled_height: Any,
    pooled_width: Any,
    sampling_ratio: Any,
    rule: Any,
) -> Any:
    """Translate `aligned_rcnn::average` to RoiAlign."""
    size = pooled_height, pooled_width
    return by_level(partial(_aligned, size=size, samples=sampling_ratio, rule=rule), features, boxes, levels, scales)


def maximum(
    features: Any,
    boxes: Any,
    levels: Any,
    scales: Any,
    pooled_height: Any,
    pooled_width: Any,
    sampling_ratio: Any,
    rule: Any,
) -> Any:
    """Translate `aligned_rcnn::maximum` to MaxRoiPool, or to RoiAlign and ReduceMax; its second output is of no use."""
    pool: Pool
    if rule in ("pool_round", "pool_floor"):
        pool = partial(_whole_cells, size=(pooled_height, pooled_width), rule=rule)
    else:
        pool = partial(_largest, size=(pooled_height, pooled_width), samples=sampling_ratio, rule=rule)
    pooled = by_level(pool, features, boxes, levels, scales)
    return [pooled, _op().Cast(pooled, to=6)]


def ps_average(
    features: Any,
    boxes: Any,
    levels: Any,
    scales: Any,
    pooled_height: Any,
    pooled_width: Any,
    sampling_ratio: Any,
    rule: Any,
) -> Any:
    """Translate `aligned_rcnn::ps_average` to RoiAlign of all channels, of which each bin's own are taken."""
    op, bins = _op(), pooled_height * pooled_width
    channels = features[0].shape[1] // bins
    size = pooled_height, pooled_width
    pool = partial(_aligned, size=size, samples=sampling_ratio, rule=rule)
    pooled = by_level(pool, features, boxes, levels, scales)  # [K, C * PH * PW, PH, PW]
    flat = op.Reshape(pooled, _ints(0, channels, bins * bins))
    own = op.Gather(flat, _ints(*(bin * bins + bin for bin in range(bins))), axis=2)
    return op.Reshape(own, _ints(0, channels, pooled_height, pooled_width))


def by_level(pool: Pool, features: Sequence[Value], boxes: Value, levels: Value, scales: Sequence[float]) -> Value:
    """Pool each RoI from its level: split the RoIs by level, pool them, and put the rows back in order."""
    op = _op()
    if levels is None or len(features) == 1:
        return pool(features[0], boxes, scales[0])
    rows, places = [], []
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        chosen = op.Squeeze(op.NonZero(op.Equal(levels, op.Constant(value_int=number))), _ints(0))
        rows.append(pool(feature, op.Gather(boxes, chosen, axis=0), scale))
        places.append(chosen)
    place = op.Concat(*places, axis=0)
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    numbers = op.Range(zero, op.Squeeze(op.Shape(place), _ints(0)), one)
    row_of = op.ScatterElements(place, place, numbers, axis=0)
    return op.Gather(op.Concat(*rows, axis=0), row_of, axis=0)


def _image(rois: Value) -> Value:
    op = _op()
    return op.Cast(op.Squeeze(op.Slice(rois, _ints(0), _ints(1), _ints(1)), _ints(1)), to=7)


def _edges(rois: Value) -> Value:
    return _op().Slice(rois, _ints(1), _ints(5), _ints(1))


def _aligned(feature: Value, rois: Value, scale: float, *, size: tuple[int, int], samples: int, rule: str) -> Value:
    edges = _edges(rois)
    if rule == "warp":
        edges, scale = _rounded(edges, scale, end=1.0), 1.0
    half = rule == "align_half"
    pooled = _op().RoiAlign(
        feature,
        edges,
        _image(rois),
        coordinate_transformation_mode="half_pixel" if half else "output_half_pixel",
        mode="avg",
        output_height=size[0],
        output_width=size[1],
        sampling_ratio=max(samples, 0),
        spatial_scale=scale,
    )
    return _without_empty(pooled, edges) if half and samples < 1 else pooled


def _without_empty(pooled: Value, edges: Value) -> Value:
    """Set what is pooled from RoIs without area to zero, as it is here: OpenVINO divides by their number of samples."""
    op = _op()
    sides = op.Sub(op.Slice(edges, _ints(2), _ints(4), _ints(1)), op.Slice(edges, _ints(0), _ints(2), _ints(1)))
    some = op.Greater(op.ReduceMin(sides, _ints(1)), _float(0.0))
    return op.Where(op.Unsqueeze(some, _ints(2, 3)), pooled, _float(0.0))


def _largest(feature: Value, rois: Value, scale: float, *, size: tuple[int, int], samples: int, rule: str) -> Value:
    """Pool the maxima of `samples` x `samples` samples a bin."""
    fine = size[0] * samples, size[1] * samples
    crops = _aligned(feature, rois, scale, size=fine, samples=1, rule=rule)
    split = _op().Reshape(crops, _ints(0, 0, size[0], samples, size[1], samples))
    return _op().ReduceMax(split, _ints(3, 5), keepdims=0)


def _whole_cells(feature: Value, rois: Value, scale: float, *, size: tuple[int, int], rule: str) -> Value:
    """Pool the maxima of whole cells; MaxRoiPool counts the cell of the end, which `pool_floor` does not."""
    op = _op()
    edges = _rounded(_edges(rois), scale, 0.0) if rule == "pool_round" else _floored(_edges(rois), scale)
    first = op.Slice(rois, _ints(0), _ints(1), _ints(1))
    return op.MaxRoiPool(feature, op.Concat(first, edges, axis=1), pooled_shape=list(size), spatial_scale=1.0)


def _rounded(edges: Value, scale: float, end: float) -> Value:
    """Round edges [K, 4], none negative, to whole cells, halves up, and add `end` to the right and lower ones."""
    op = _op()
    cells = op.Mul(edges, _float(scale))
    whole = op.Floor(cells)
    up = op.Cast(op.GreaterOrEqual(op.Sub(cells, whole), _float(0.5)), to=1)
    rounded = op.Add(whole, up)
    return op.Add(rounded, op.Constant(value_floats=[0.0, 0.0, end, end])) if end else rounded


def _floored(edges: Value, scale: float) -> Value:
    op = _op()
    return op.Add(op.Floor(op.Mul(edges, _float(scale))), op.Constant(value_floats=[0.0, 0.0, -1.0, -1.0]))


def _float(value: float) -> Value:
    return _op().Constant(value_float=float(value))


def batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: Any, topk: Any) -> Any:
    """Translate `aligned_rcnn::batched_nms` to NonMaxSuppression with a class for each group.

    As scores it takes ranks, so that of equal scores the first box is the better one where TopK orders them so, as ONNX
    Runtime's does, and OpenVINO's not. Up to 1,000 boxes the groups are also moved apart, which rounds the coordinates
    as `ops.batched_nms` does. No box has negative or infinite coordinates, since proposals and detections are clipped
    and checked before.
    """
    op = _op()
    zero = op.Constant(value_int=0)
    count = op.Shape(scores)
    number = op.Squeeze(count, _ints(0))
    _, order = op.TopK(scores, count, axis=0, largest=1, sorted=1)
    from_best = op.Cast(op.Range(number, zero, op.Constant(value_int=-1)), to=1)
    ranks = op.ScatterElements(op.Cast(scores, to=1), order, from_best, axis=0)
    few = op.LessOrEqual(number, op.Constant(value_int=1000))
    flat = op.Concat(op.Reshape(boxes, _ints(-1)), op.Constant(value_floats=[0.0]), axis=0)
    apart = op.Where(few, op.Add(op.ReduceMax(flat, keepdims=0), _float(1.0)), _float(0.0))
    moved = op.Add(boxes, op.Unsqueeze(op.Mul(op.Cast(idxs, to=1), apart), _ints(1)))
    groups = op.Add(op.ReduceMax(op.Concat(idxs, _ints(0), axis=0), keepdims=0), op.Constant(value_int=1))
    group = op.Unsqueeze(op.Range(zero, groups, op.Constant(value_int=1)), _ints(1))
    own = op.Where(op.Equal(group, op.Unsqueeze(idxs, _ints(0))), op.Unsqueeze(ranks, _ints(0)), _float(0.0))
    chosen = op.NonMaxSuppression(
        op.Unsqueeze(moved, _ints(0)),
        op.Unsqueeze(own, _ints(0)),
        _ints(topk),
        op.Constant(value_floats=[not_above(iou_threshold)]),
        op.Constant(value_floats=[0.5]),
    )
    index = op.Squeeze(op.Slice(chosen, _ints(2), _ints(3), _ints(1)), _ints(1))
    most = op.Min(op.Shape(index), _ints(topk))
    _, best = op.TopK(op.Gather(ranks, index, axis=0), most, axis=0, largest=1, sorted=1)
    return op.Gather(index, best, axis=0)


def not_above(value: float) -> float:
    """Return the largest float32 that is not above a number: a float32 exceeds both or none."""
    nearest = np.float32(value)
    return float(nearest if float(nearest) <= value else np.nextafter(nearest, np.float32(-np.inf)))
