"""Suppress duplicate boxes by non-maximum suppression (NMS)."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor

from ops import native
from ops.checks import check_corners

_MOVED_APART = 1000
"""Up to so many boxes torchvision moves the groups apart on the CPU, which rounds the coordinates."""


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, topk: int | None = None) -> Tensor:
    """Keep the boxes that no box of the same group and a higher score overlaps by more than a threshold.

    On the CPU it stops at the first `topk` boxes, compares a box with the kept ones of its own group alone, and is
    several times faster than torchvision's; on a GPU it is torchvision's. No gradients.

    Args:
        boxes: Tensor[N, 4], x1, y1, x2, y2 in pixels; any floating dtype. Those of 16 bits are converted to float32.
        scores: Tensor[N]; of equal scores the first box is the better one.
        idxs: int64 Tensor[N], the group of each box: a class, or a level of the pyramid.
        iou_threshold: boxes of an IoU above it are duplicates.
        topk: number of boxes to keep, those of highest score; None: all.

    Returns:
        int64 Tensor[K]: indices of the kept boxes, by descending score.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to: torchvision.ops.batched_nms(boxes, scores, idxs, iou_threshold)[:topk], to the last bit where no
        coordinate is negative and no scores are equal. (Below 0, torchvision lets boxes of different groups suppress
        each other; of equal scores it may return any box first.)
    """
    _check(boxes, scores, idxs, topk)
    boxes = boxes.detach()
    if boxes.dtype != torch.float64:
        boxes = boxes.float()
    if boxes.device.type != "cpu" or not native.available(boxes.device):
        found: Tensor = torchvision.ops.batched_nms(boxes, scores.to(boxes.dtype), idxs, iou_threshold)
        return found[:topk]
    if 0 < len(boxes) <= _MOVED_APART:
        boxes = boxes + (idxs.to(boxes.dtype) * (boxes.max() + 1))[:, None]
    order = scores.argsort(stable=True, descending=True)
    kept: Tensor = torch.ops.aligned_rcnn.nms(boxes, order, idxs, iou_threshold, len(boxes) if topk is None else topk)
    return kept


def _check(boxes: Any, scores: Any, idxs: Any, topk: Any) -> None:
    check_corners(boxes, "boxes", "N")
    for name, tensor in (("scores", scores), ("idxs", idxs)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}")
        if tensor.shape != boxes.shape[:1]:
            raise ValueError(f"{name} must be Tensor[{boxes.shape[0]}], one per box; got shape {tuple(tensor.shape)}")
        if tensor.device != boxes.device:
            raise ValueError(f"{name} must be on the boxes' device, {boxes.device}; got {tensor.device}")
    if idxs.dtype != torch.int64:
        raise TypeError(f"idxs must be int64; got {idxs.dtype}")
    if topk is not None and topk < 0:
        raise ValueError(f"topk must be at least 0, or None for all; got {topk}")
