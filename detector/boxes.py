"""Box arithmetic: float xyxy in continuous pixels, width x2 - x1.

Boxes are Tensor [..., 4]; nothing here changes its arguments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detector.types import Size

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""A regressed box is at most this much (log) larger than its reference, as in Detectron and torchvision."""


def precise(value: Tensor) -> Tensor:
    """What a network gave, in float32 (or float64, where it was): boxes want more digits than autocast leaves them."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def area(boxes: Tensor) -> Tensor:
    """The area of boxes [..., 4] in square pixels, [...]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip(boxes: Tensor, size: Size) -> Tensor:
    """Boxes [..., 4] cut to an image of `size` (height, width)."""
    height, width = size
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), -1)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    side = (high - low).clamp(min=0)
    return side[..., 0] * side[..., 1]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes [N, 4] and [M, 4]: [N, M]; 0 where both are empty."""
    inter = _intersection(a, b)
    union = area(a)[:, None] + area(b)[None] - inter
    return torch.where(union > 0, inter / union, 0.0)


def coverage(a: Tensor, b: Tensor) -> Tensor:
    """The share of each box of `a` [N, 4] that lies within each box of `b` [M, 4]: [N, M]."""
    own = area(a)[:, None]
    return torch.where(own > 0, _intersection(a, b) / own, 0.0)


def encode(boxes: Tensor, references: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """The deltas (dx, dy, dw, dh), [..., 4], from `references` to `boxes` (R-CNN, appendix C), times `weights`."""
    size = references[..., 2:] - references[..., :2]
    centre = references[..., :2] + 0.5 * size
    true_size = boxes[..., 2:] - boxes[..., :2]
    true_centre = boxes[..., :2] + 0.5 * true_size
    deltas = torch.cat(((true_centre - centre) / size, torch.log(true_size / size)), -1)
    return deltas * deltas.new_tensor(weights)


def decode(deltas: Tensor, references: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """The inverse of `encode`: boxes [..., 4] from deltas [..., 4]; the last two are capped at `MAX_LOG_SCALE`."""
    deltas = deltas / deltas.new_tensor(weights)
    size = references[..., 2:] - references[..., :2]
    centre = references[..., :2] + 0.5 * size + deltas[..., :2] * size
    half = 0.5 * size * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE))
    return torch.cat((centre - half, centre + half), -1)
