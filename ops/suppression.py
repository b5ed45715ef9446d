"""Suppress duplicate boxes by non-maximum suppression (NMS)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ops import fallback, native
from ops.checks import check_corners

_COORDINATE_TRICK_BOXES = 1000
"""Up to so many boxes in all torchvision moves the groups apart on the CPU, which rounds the coordinates."""


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, topk: int | None = None) -> Tensor:
    """Keep the boxes that overlap no better kept box of their group by more than a threshold.

    It stops at the first `topk` boxes and compares a box with the kept ones of its own group alone: on the CPU several
    times faster than torchvision's. On a GPU it is a chain of tensor operations, and torchvision's kernel is the better
    choice. No gradients.

    Args:
        boxes: Tensor[N, 4], x1, y1, x2, y2 in pixels; any floating dtype. Those of 16 bits are converted to float32.
        scores: Tensor[N], the higher the better; of equal scores the first box is the better one.
        idxs: Tensor[N] of an integer dtype, the group of each box: a class, or a level of the pyramid.
        iou_threshold: a box of an IoU above it with a better kept one is dropped.
        topk: number of boxes to keep, the best; None: all.

    Returns:
        int64 Tensor[K]: indices of the kept boxes, by descending score.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to: torchvision.ops.batched_nms(boxes, scores, idxs, iou_threshold)[:topk], to the last bit where all
        coordinates are finite and none is negative. (Where one is negative, torchvision may let boxes of different
        groups suppress each other, and where one is not finite, it may suppress none; of equal scores, it may keep any
        box.)
    """
    _check(boxes, scores, idxs, iou_threshold, topk)
    limit = _ALL if topk is None else topk
    if torch.compiler.is_exporting():  # as one operator, since what it does depends on the number of boxes
        kept: Tensor = torch.ops.aligned_rcnn.batched_nms(boxes, scores, idxs, iou_threshold, limit)
        return kept
    return _batched_nms(boxes, scores, idxs, iou_threshold, limit)


def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, limit: int) -> Tensor:
    boxes = boxes.detach()
    if boxes.dtype != torch.float64:
        boxes = boxes.float()
    idxs = idxs.long()
    order = scores.argsort(stable=True, descending=True)
    if 0 < boxes.shape[0] <= _COORDINATE_TRICK_BOXES:
        largest = torch.where(boxes.isfinite(), boxes, 0).max()
        boxes = boxes + (idxs.to(boxes.dtype) * (largest + 1))[:, None]
    if boxes.device.type != "cpu" or not native.available(boxes.device):
        return fallback.nms(boxes, order, idxs, iou_threshold, limit)
    kept: Tensor = torch.ops.aligned_rcnn.nms(boxes, order, idxs, iou_threshold, limit)
    return kept


_ALL = 2**63 - 1


def _fake(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, topk: int) -> Tensor:
    return idxs.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


_SCHEMA = "(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold, int topk) -> Tensor"
if not hasattr(torch.ops.aligned_rcnn, "batched_nms"):  # another copy of this package may have done it (native.py)
    torch.library.define("aligned_rcnn::batched_nms", _SCHEMA)
    torch.library.impl("aligned_rcnn::batched_nms", "CompositeExplicitAutograd", _batched_nms)
    torch.library.register_fake("aligned_rcnn::batched_nms", _fake)


def _check(boxes: Any, scores: Any, idxs: Any, iou_threshold: Any, topk: Any) -> None:
    check_corners(boxes, "boxes", "N")
    for name, tensor in (("scores", scores), ("idxs", idxs)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}")
        if tensor.shape != boxes.shape[:1]:
            raise ValueError(f"{name} must be Tensor[{boxes.shape[0]}], one per box; got shape {tuple(tensor.shape)}")
        if tensor.device != boxes.device:
            raise ValueError(f"{name} must be on the boxes' device, {boxes.device}; got {tensor.device}")
    if idxs.is_floating_point() or idxs.is_complex() or idxs.dtype == torch.bool:
        raise TypeError(f"idxs must be of an integer dtype; got {idxs.dtype}")
    if not isinstance(iou_threshold, int | float):
        raise TypeError(f"iou_threshold must be a number; got {iou_threshold!r}")
    if iou_threshold != iou_threshold:
        raise ValueError("iou_threshold must be a number; got NaN")
    if topk is not None and not isinstance(topk, int | torch.SymInt):
        raise TypeError(f"topk must be a whole number, or None for all; got {topk!r}")
    if topk is not None and topk < 0:
        raise ValueError(f"topk must be at least 0, or None for all; got {topk}")
