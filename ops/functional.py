"""RoI operators on one feature map: each pools K RoIs into PH x PW bins.

Shapes: N images, C channels, H x W cells; K RoIs; PH x PW bins. Boxes are x1, y1, x2, y2 in pixels, continuous (pixel j
covers [j, j + 1)), as Tensor[K, 5] with the image index first or as a list of Tensor[L, 4], one per image. A RoI whose
image or level does not exist gives zeros. Coordinates and sums are float32 (float64 for float64 features);
results have the features' dtype and memory format. Features get gradients, boxes do not.
"""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor

from ops.checks import check_choice
from ops.pooling import Boxes, OutputSize, pool_level

MODES = {"avg": "average", "max": "maximum"}
QUANTIZATIONS = ("round", "floor")
PS_QUANTIZATIONS = {"round": "ps_pool", "rfcn": "ps_pool_rfcn"}


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
    """Pool RoIs with RoIAlign (Mask R-CNN, section 3): average or maximum of bilinear samples at exact positions.

    Args:
        input: Tensor[N, C, H, W]; float32, float64, float16 or bfloat16. Or quantized, with N = 1 and quantized
            boxes Tensor[K, 5]: the result is then quantized like the input.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        spatial_scale: cells per pixel.
        sampling_ratio: samples per bin along each axis; below 1: adaptive, the bin's extent in cells, rounded up.
        aligned: shift coordinates by half a cell, so that a cell's value lies at its centre (Detectron2's ROIAlignV2);
            False: the original version, which also widens RoIs to at least one cell.
        mode: "avg" or "max" of a bin's samples; samples outside the map count as zeros in both.

    Returns:
        Tensor[K, C, PH, PW].

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to, for one RoI inside the map, aligned, with s samples along each side of a bin: crop = grid_sample(
        input, grid) at the centres of PH * s x PW * s equal parts of the RoI (affine_grid's default), then
        avg_pool2d(crop, s). torchvision.ops.roi_align computes the same (mode "avg").
    """
    check_choice(mode, "mode", tuple(MODES))
    rule = "align_half" if aligned else "align"
    quantized = isinstance(input, Tensor) and input.is_quantized
    map, rois = _dequantize(input, boxes) if quantized else (input, boxes)
    output = pool_level(MODES[mode], rule, map, rois, output_size, spatial_scale, sampling_ratio)
    if quantized:
        return torch.quantize_per_tensor(output, input.q_scale(), input.q_zero_point(), input.dtype)
    return output


def _dequantize(input: Tensor, boxes: Boxes) -> tuple[Tensor, Tensor]:
    """Dequantize the arguments, under the conditions of torchvision's quantized RoIAlign."""
    if not (isinstance(boxes, Tensor) and boxes.is_quantized):
        raise ValueError("boxes must be a quantized tensor, as input is one")
    if input.dim() == 4 and input.shape[0] != 1:
        raise ValueError(f"Only one image per batch is allowed when input is quantized; got {input.shape[0]}")
    return input.dequantize(), boxes.dequantize()


@torch.fx.wrap
def roi_pool(
    input: Tensor, boxes: Boxes, output_size: OutputSize, spatial_scale: float = 1.0, quantization: str = "round"
) -> Tensor:
    """Pool RoIs with RoIPool (Fast R-CNN, section 2.1): round RoI and bins to whole cells, take each bin's maximum.

    Args:
        input: Tensor[N, C, H, W]; float32, float64, float16 or bfloat16.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        spatial_scale: cells per pixel.
        quantization: "round" for the operator in use (Caffe, torchvision): edges rounded half away from zero, both end
            cells included; "floor" for the textbooks': edges floored, the end cell excluded.

    Returns:
        Tensor[K, C, PH, PW]; a bin without cells is 0. Of equal maxima, the first cell gets the gradient.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to, for one RoI: crop = input[n, :, round(y1 s):round(y2 s) + 1, round(x1 s):round(x2 s) + 1], then
        adaptive_max_pool2d(crop, output_size). torchvision.ops.roi_pool computes the same ("round").
    """
    check_choice(quantization, "quantization", QUANTIZATIONS)
    return pool_level("maximum", f"pool_{quantization}", input, boxes, output_size, spatial_scale)


@torch.fx.wrap
def roi_warp(
    input: Tensor,
    boxes: Boxes,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    mode: str = "avg",
) -> Tensor:
    """Pool RoIs with RoIWarp (MNC, section 3.2): round the RoI as RoIPool does, then sample it bilinearly.

    Args:
        input: Tensor[N, C, H, W]; float32, float64, float16 or bfloat16.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        spatial_scale: cells per pixel.
        sampling_ratio: samples per bin along each axis; below 1: adaptive, the bin's extent in cells, rounded up.
        mode: "avg" or "max" of a bin's samples.

    Returns:
        Tensor[K, C, PH, PW].

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to: roi_align(input, rounded, output_size, 1.0, sampling_ratio, mode=mode), where `rounded` has the edges
        round(x1 s), round(y1 s), round(x2 s) + 1, round(y2 s) + 1.
    """
    check_choice(mode, "mode", tuple(MODES))
    return pool_level(MODES[mode], "warp", input, boxes, output_size, spatial_scale, sampling_ratio)


@torch.fx.wrap
def ps_roi_align(
    input: Tensor, boxes: Boxes, output_size: OutputSize, spatial_scale: float = 1.0, sampling_ratio: int = -1
) -> Tensor:
    """Pool RoIs with position-sensitive RoIAlign (Light-Head R-CNN): aligned RoIAlign, each bin from its own channels.

    Args:
        input: Tensor[N, C * PH * PW, H, W]; float32, float64, float16 or bfloat16.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        spatial_scale: cells per pixel.
        sampling_ratio: samples per bin along each axis; below 1: adaptive, the bin's extent in cells, rounded up.

    Returns:
        Tensor[K, C, PH, PW]: channel c of bin (ph, pw) is pooled from input channel (c * PH + ph) * PW + pw.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to: roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, aligned=True), reshaped to
        [K, C, PH, PW, PH, PW], of which einsum("kcpqpq->kcpq") is taken. torchvision.ops.ps_roi_align computes the
        same.
    """
    return pool_level("ps_average", "align_half", input, boxes, output_size, spatial_scale, sampling_ratio)


@torch.fx.wrap
def ps_roi_pool(
    input: Tensor, boxes: Boxes, output_size: OutputSize, spatial_scale: float = 1.0, quantization: str = "round"
) -> Tensor:
    """Pool RoIs with position-sensitive RoIPool (R-FCN, equation 1): average each bin's cells in its own channels.

    Args:
        input: Tensor[N, C * PH * PW, H, W]; float32, float64, float16 or bfloat16.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        spatial_scale: cells per pixel.
        quantization: "round" for torchvision's: edges rounded to cells, half away from zero, the end cell excluded, the
            map's last row and column never read (torchvision's backward pass does not skip them: its gradient is wrong
            at the map's far edges); "rfcn" for that of R-FCN's authors, in other frameworks, too (RUNTIMES.md): edges
            rounded to pixels, the end pixel included, then only the bins are rounded, outwards, to cells.

    Returns:
        Tensor[K, C, PH, PW]: channel c of bin (ph, pw) is pooled from input channel (c * PH + ph) * PW + pw; a bin
        without cells is 0.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to, for one RoI: crop = input[n, :, round(y1 s):round(y2 s), round(x1 s):round(x2 s)], then
        adaptive_avg_pool2d(crop, output_size), reshaped to [C, PH, PW, PH, PW], of which einsum("cpqpq->cpq") is taken.
        torchvision.ops.ps_roi_pool computes the same ("round"). With "rfcn", bin p has the rows floor(y + p h / PH) up
        to ceil(y + (p + 1) h / PH) of y = round(y1) s and h = max((round(y2) + 1) s - y, 0.1), columns alike.
    """
    check_choice(quantization, "quantization", tuple(PS_QUANTIZATIONS))
    return pool_level("ps_average", PS_QUANTIZATIONS[quantization], input, boxes, output_size, spatial_scale)
