"""Assign RoIs to the levels of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ops.checks import check_boxes, check_choice, check_scale, check_scales

EPSILON = 1e-6
"""Added to the logarithm, as in torchvision, so that a RoI of exactly the canonical size gets the canonical level."""


def assign_levels(
    boxes: Tensor | Sequence[Tensor],
    scales: Sequence[float],
    canonical_size: float = 224,
    canonical_level: float = 4,
    rounding: str = "floor",
) -> Tensor:
    """Assign each RoI to a level by its area: floor(canonical_level + log2(sqrt(area) / canonical_size)) (FPN, eq. 1).

    Args:
        boxes: Tensor[K, 5] (image index, x1, y1, x2, y2), or a list of Tensor[L, 4], in pixels; or Tensor[K, 4].
        scales: cells per pixel of each level: level k has scale 2^-k. Results are clamped to the levels given.
        canonical_size: the side, in pixels, of a RoI that belongs to `canonical_level`.
        canonical_level: k of that level; 4 is the stride 16.
        rounding: "floor" (FPN), or "round" to the nearest level (Matterport's Mask R-CNN in Keras).

    Returns:
        int64 Tensor[K]: indices into `scales`. Boxes without an area (empty, inverted, NaN) get the finest level.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.
    """
    if not (isinstance(boxes, Tensor) and boxes.dim() == 2 and boxes.shape[1] == 4 and boxes.is_floating_point()):
        boxes = check_boxes(boxes)
    numbers = [-math.log2(scale) for scale in check_scales(scales)]
    check_choice(rounding, "rounding", ("floor", "round"))
    canonical_size = check_scale(canonical_size, "canonical_size")
    edges = boxes[:, -4:].to(torch.float64 if boxes.dtype == torch.float64 else torch.float32)
    side = ((edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])).sqrt()
    number = canonical_level + torch.log2(side / canonical_size) + EPSILON
    number = number.floor() if rounding == "floor" else number.round()
    number = number.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf).clamp(min(numbers), max(numbers))
    # The nearest of the levels given; between two equally near, the finer one.
    # One by one, since a tensor of `numbers` would have to be copied to the device.
    distances = [(number - present - 1e-3).abs() for present in numbers]
    return torch.stack(distances, 1).argmin(1)
