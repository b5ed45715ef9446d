"""Box arithmetic: float xyxy in continuous pixels, width x2 - x1.

Boxes are Tensor [..., 4]; nothing here changes its arguments.
"""

from __future__ import annotations

import math

import torch
import torchvision
from torch import Tensor

import ops
from detector.types import Size

BoxRegWeights = tuple[float, float, float, float]
"""Factors of the deltas (dx, dy, dw, dh); Detectron2's `BBOX_REG_WEIGHTS`."""

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""The largest dw and dh (natural logarithms) that are applied to a box, as in Detectron and torchvision."""


def precise(value: Tensor) -> Tensor:
    """Cast a network's output to float32 (float64 stays): boxes need more digits than autocast leaves them."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def area(boxes: Tensor) -> Tensor:
    """Compute the areas [...] of boxes [..., 4], in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip(boxes: Tensor, size: Size) -> Tensor:
    """Clip boxes [..., 4] to an image of `size` (height, width)."""
    height, width = size
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), -1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Compute the IoU [N, M] of boxes [N, 4] and [M, 4]; 0 where both boxes are empty."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    side = (high - low).clamp(min=0)
    inter = side[..., 0] * side[..., 1]
    union = area(a)[:, None] + area(b)[None] - inter
    return torch.where(union > 0, inter / union, 0.0)


def encode(boxes: Tensor, references: Tensor, bbox_reg_weights: BoxRegWeights) -> Tensor:
    """Encode boxes as deltas to `references`, [..., 4] each (R-CNN, appendix C), times `bbox_reg_weights`."""
    size = references[..., 2:] - references[..., :2]
    centre = references[..., :2] + 0.5 * size
    true_size = boxes[..., 2:] - boxes[..., :2]
    true_centre = boxes[..., :2] + 0.5 * true_size
    deltas = torch.cat(((true_centre - centre) / size, torch.log(true_size / size)), -1)
    return deltas * deltas.new_tensor(bbox_reg_weights)


def decode(deltas: Tensor, references: Tensor, bbox_reg_weights: BoxRegWeights) -> Tensor:
    """Apply deltas to `references`, [..., 4] each: the inverse of `encode`; dw and dh are capped at `MAX_LOG_SCALE`."""
    deltas = deltas / deltas.new_tensor(bbox_reg_weights)
    size = references[..., 2:] - references[..., :2]
    centre = references[..., :2] + 0.5 * size + deltas[..., :2] * size
    half = 0.5 * size * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE))
    return torch.cat((centre - half, centre + half), -1)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, topk: int) -> Tensor:
    """Keep the best `topk` boxes that overlap no better kept box of their group: indices, by descending score.

    Arguments as of `ops.batched_nms`, which does it on the CPU; elsewhere torchvision's kernel does. All results are
    torchvision's: it leaves the order of equal scores among more than 1,000 boxes to a sort.
    """
    if boxes.device.type != "cpu":
        kept: Tensor = torchvision.ops.batched_nms(boxes, scores, idxs, iou_threshold)
        return kept[:topk]
    if torch.compiler.is_exporting() or len(boxes) <= 1000:
        return ops.batched_nms(boxes, scores, idxs, iou_threshold, topk)
    kept = ops.batched_nms(boxes, scores, idxs, iou_threshold).sort().values
    return kept[scores[kept].sort(descending=True).indices[:topk]]
