"""The public functions. Each pools K regions of feature maps into a grid of bins.

Shapes: N images, C channels, H x W cells; K RoIs; PH x PW bins. Boxes are x1, y1, x2, y2 in pixels, continuous (pixel j
covers [j, j + 1)), as Tensor[K, 5] with the image's index first or as a list of Tensor[L, 4], one per image. A RoI
whose image or level does not exist gives zeros. Coordinates and sums are float32 whatever the features' dtype (float64
for float64 features); results have the features' dtype and memory format. Gradients reach the features, not the boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.fx
from torch import Tensor

from ops import fallback, native
from ops.checks import (
    check_boxes,
    check_choice,
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


def _pool(
    features: list[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: list[float],
    sampling_ratio: int,
    rule: str,
    maximum: bool,
    levels: Tensor | None = None,
) -> Tensor:
    """The rest of the way for every operator: `features` and `scales` are checked."""
    height, width = check_output_size(output_size)
    sampling_ratio = check_sampling_ratio(sampling_ratio)
    rois = check_boxes(boxes, features[0].shape[0], features[0].device)
    if levels is not None:
        levels = check_levels(levels, rois)
    elif len(features) > 1:
        levels = assign_levels(rois, scales)
    arguments = (features, rois, levels, scales, height, width, sampling_ratio, rule)
    if not native.available(features[0].device):
        return fallback.maximum(*arguments) if maximum else fallback.average(*arguments)
    if maximum:
        output, _ = torch.ops.aligned_rcnn.maximum(*arguments)
        return output  # type: ignore[no-any-return]
    return torch.ops.aligned_rcnn.average(*arguments)  # type: ignore[no-any-return]


def _align_rule(aligned: bool) -> str:
    return "align_half" if aligned else "align"


@torch.fx.wrap
def roi_align(
    input: Tensor,
    boxes: Boxes,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    mode: str = "avg",
) -> Tensor:
    """RoIAlign (Mask R-CNN, section 3): bilinear samples at exact positions in each bin, averaged or their maximum.

    Args:
        input: Tensor[N, C, H, W]; float32, float64, float16 or bfloat16.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        spatial_scale: cells per pixel.
        sampling_ratio: samples a bin along each axis; below 1, adaptive: the bin's extent in cells, rounded up.
        aligned: shift coordinates by half a cell, so that a cell's value lies at its centre (Detectron2's version);
            otherwise the original one, which also widens RoIs to at least one cell.
        mode: "avg", or "max" (samples outside the map count as zeros in both).

    Returns:
        Tensor[K, C, PH, PW].

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to, for one inner RoI, aligned, with s samples a bin:
        theta maps [-1, 1] onto the RoI; grid_sample(input, affine_grid(theta, (1, C, PH * s, PW * s))) followed by
        avg_pool2d(s). torchvision.ops.roi_align computes the same (mode "avg").
    """
    check_map(input, "input")
    check_choice(mode, "mode", ("avg", "max"))
    scales = [check_scale(spatial_scale)]
    return _pool([input], boxes, output_size, scales, sampling_ratio, _align_rule(aligned), mode == "max")


@torch.fx.wrap
def roi_pool(
    input: Tensor, boxes: Boxes, output_size: OutputSize, spatial_scale: float = 1.0, quantization: str = "round"
) -> Tensor:
    """RoIPool (Fast R-CNN, section 2.1): RoIs and bins are rounded to whole cells; the maximum of each bin.

    Args:
        input: Tensor[N, C, H, W]; float32, float64, float16 or bfloat16.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        spatial_scale: cells per pixel.
        quantization: "round", the operator in use (Caffe, torchvision): edges rounded half away from zero, both end
            cells counted; "floor", the textbooks': edges floored, the end cell not counted.

    Returns:
        Tensor[K, C, PH, PW]; a bin without cells is 0. The first cell that attains a maximum takes its gradient.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to, for one RoI: crop = input[n, :, round(y1 s):round(y2 s) + 1, round(x1 s):round(x2 s) + 1], then
        adaptive_max_pool2d(crop, output_size). torchvision.ops.roi_pool computes the same ("round").
    """
    check_map(input, "input")
    check_choice(quantization, "quantization", ("round", "floor"))
    return _pool([input], boxes, output_size, [check_scale(spatial_scale)], -1, f"pool_{quantization}", maximum=True)


@torch.fx.wrap
def multiscale_roi_align(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    sampling_ratio: int = -1,
    aligned: bool = False,
    mode: str = "avg",
    levels: Tensor | None = None,
) -> Tensor:
    """`roi_align` from the levels of a pyramid, in one call: RoI k from `features[levels[k]]`.

    Args:
        features: the levels, Tensor[N, C, H_l, W_l] each, of one dtype.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        scales: cells per pixel of each level.
        sampling_ratio, aligned, mode: as for `roi_align`.
        levels: integer Tensor[K], indices into `features`; None: `assign_levels(boxes, scales)`. A RoI whose level does
            not exist gives zeros.

    Returns:
        Tensor[K, C, PH, PW], in the order of the boxes; channels last where all levels are.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to: for each level l, output[levels == l] = roi_align(features[l], boxes[levels == l], output_size,
        scales[l], sampling_ratio, aligned, mode).
    """
    features = check_features(features)
    check_choice(mode, "mode", ("avg", "max"))
    checked = check_scales(scales, len(features))
    rule = _align_rule(aligned)
    return _pool(features, boxes, output_size, checked, sampling_ratio, rule, mode == "max", levels)


@torch.fx.wrap
def multiscale_roi_pool(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    quantization: str = "round",
    levels: Tensor | None = None,
) -> Tensor:
    """`roi_pool` from the levels of a pyramid, in one call: RoI k from `features[levels[k]]`.

    Args and raises as `multiscale_roi_align` and `roi_pool`.

    Returns:
        Tensor[K, C, PH, PW], in the order of the boxes; channels last where all levels are.

    Equivalent to: for each level l, output[levels == l] = roi_pool(features[l], boxes[levels == l], output_size,
        scales[l], quantization).
    """
    features = check_features(features)
    check_choice(quantization, "quantization", ("round", "floor"))
    checked = check_scales(scales, len(features))
    return _pool(features, boxes, output_size, checked, -1, f"pool_{quantization}", maximum=True, levels=levels)
