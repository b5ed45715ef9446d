"""Which level of a pyramid a RoI is pooled from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ops.checks import check_boxes, check_choice, check_scale, check_scales

EPSILON = 1e-6
"""Added outside the logarithm, as torchvision does, so that a RoI of exactly the canonical size is on its level."""


def assign_levels(
    boxes: Tensor | Sequence[Tensor],
    scales: Sequence[float],
    canonical_size: float = 224,
    canonical_level: float = 4,
    rounding: str = "floor",
) -> Tensor:
    """The level of each RoI by its area: k = floor(canonical_level + log2(sqrt(area) / canonical_size)) (FPN, eq. 1).

    Args:
        boxes: Tensor[K, 5] (image index, x1, y1, x2, y2), or a list of Tensor[L, 4], in pixels; Tensor[K, 4] will do.
        scales: cells per pixel of each level; level number k has scale 2^-k. k is clamped to the numbers present.
        canonical_size: the side, in pixels, of a RoI that belongs on `canonical_level`.
        canonical_level: the number of that level.
        rounding: "floor" (FPN), or "round" to the nearest number (the Keras Mask R-CNN).

    Returns:
        int64 Tensor[K]: indices into `scales`. Boxes without an area (empty, inverted, NaN) are on the finest level.

    Raises:
        ValueError, TypeError: as `roi_align`; also if `canonical_size` is not positive.
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
    # The nearest level there is; where levels are missing, the finer of two equally near.
    # One by one, as a tensor of `numbers` would have to be copied to the device.
    distances = [(number - present - 1e-3).abs() for present in numbers]
    return torch.stack(distances, 1).argmin(1)
