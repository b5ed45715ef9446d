"""Check an operator's arguments, assign levels and choose the implementation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ops import fallback, native
from ops.checks import (
    check_boxes,
    check_features,
    check_levels,
    check_map,
    check_output_size,
    check_sampling_ratio,
    check_scale,
    check_scales,
)
from ops.levels import assign_levels

Boxes = Tensor | Sequence[Tensor]
OutputSize = int | Sequence[int]
FALLBACK = {"average": fallback.average, "ps_average": fallback.ps_average, "maximum": fallback.maximum}


def pool_level(
    operator: str,
    rule: str,
    input: Tensor,
    boxes: Boxes,
    output_size: OutputSize,
    spatial_scale: float,
    sampling_ratio: int = -1,
) -> Tensor:
    """Run an operator of `ops.native` on one feature map [N, C, H, W].

    Args:
        operator: "average", "ps_average" or "maximum".
        rule: a name of csrc/geometry.h's `Rule`.
        input, boxes, output_size, spatial_scale, sampling_ratio: as of `ops.roi_align`.

    Returns:
        [K, C, PH, PW]; [K, C / (PH * PW), PH, PW] for "ps_average".
    """
    check_map(input, "input")
    return _pool(operator, rule, [input], boxes, output_size, [check_scale(spatial_scale)], sampling_ratio, None)


def pool_levels(
    operator: str,
    rule: str,
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    sampling_ratio: int = -1,
    levels: Tensor | None = None,
) -> Tensor:
    """Run an operator of `ops.native` on a pyramid; other arguments and result as of `pool_level`."""
    features = check_features(features)
    checked = check_scales(scales, len(features))
    return _pool(operator, rule, features, boxes, output_size, checked, sampling_ratio, levels)


def _pool(
    operator: str,
    rule: str,
    features: list[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: list[float],
    sampling_ratio: int,
    levels: Tensor | None,
) -> Tensor:
    height, width = check_output_size(output_size)
    channels = features[0].shape[1]
    if operator == "ps_average" and channels % (height * width):
        raise ValueError(
            f"the features' channels must be a multiple of output_size's bins, {height} x {width}; got {channels}"
        )
    sampling_ratio = check_sampling_ratio(sampling_ratio)
    rois, levels = place(features, boxes, scales, levels)
    arguments = (features, rois, levels, scales, height, width, sampling_ratio, rule)
    if not native.available(features[0].device):
        with torch.autocast(features[0].device.type, enabled=False):  # autocast would round its matrix products
            return FALLBACK[operator](*arguments)
    result = getattr(torch.ops.aligned_rcnn, operator)(*arguments)
    return result[0] if operator == "maximum" else result  # type: ignore[no-any-return]


def place(
    features: list[Tensor], boxes: Boxes, scales: list[float], levels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Convert boxes to Tensor[K, 5] and assign their levels; None for the levels of a single map unless given."""
    rois = check_boxes(boxes, features[0].shape[0], features[0].device)
    if levels is not None:
        return rois, check_levels(levels, rois)
    return rois, assign_levels(rois, scales) if len(features) > 1 else None
