"""RoI operators on a pyramid, in one call for all levels: RoI k is pooled from `features[levels[k]]`.

Arguments, result and errors that they share:

- `features`: the levels, a list of Tensor[N, C, H_l, W_l] of one dtype; `scales`: cells per pixel of each.
- `boxes`, `output_size` and the rest: as for the operator on one map.
- `levels`: integer Tensor[K], indices into `features`; None: `assign_levels(boxes, scales)`. A RoI whose level does not
  exist gives zeros.
- Result: Tensor[K, C, PH, PW] in the order of the boxes, channels last if all levels are.
- Errors: ValueError or TypeError that names the malformed argument and its value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.fx
from torch import Tensor

from ops.checks import check_choice
from ops.functional import MODES, PS_QUANTIZATIONS, QUANTIZATIONS
from ops.pooling import Boxes, OutputSize, pool_levels


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
    """Pool each RoI from its level with `roi_align`; arguments, result and errors as in the module's docstring.

    Equivalent to: for each level l, output[levels == l] = roi_align(features[l], boxes[levels == l], output_size,
        scales[l], sampling_ratio, aligned, mode).
    """
    check_choice(mode, "mode", tuple(MODES))
    rule = "align_half" if aligned else "align"
    return pool_levels(MODES[mode], rule, features, boxes, output_size, scales, sampling_ratio, levels)


@torch.fx.wrap
def multiscale_roi_pool(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    quantization: str = "round",
    levels: Tensor | None = None,
) -> Tensor:
    """Pool each RoI from its level with `roi_pool`; arguments, result and errors as in the module's docstring.

    Equivalent to: for each level l, output[levels == l] = roi_pool(features[l], boxes[levels == l], output_size,
        scales[l], quantization).
    """
    check_choice(quantization, "quantization", QUANTIZATIONS)
    return pool_levels("maximum", f"pool_{quantization}", features, boxes, output_size, scales, levels=levels)


@torch.fx.wrap
def multiscale_roi_warp(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    sampling_ratio: int = -1,
    mode: str = "avg",
    levels: Tensor | None = None,
) -> Tensor:
    """Pool each RoI from its level with `roi_warp`; arguments, result and errors as in the module's docstring.

    Equivalent to: for each level l, output[levels == l] = roi_warp(features[l], boxes[levels == l], output_size,
        scales[l], sampling_ratio, mode).
    """
    check_choice(mode, "mode", tuple(MODES))
    return pool_levels(MODES[mode], "warp", features, boxes, output_size, scales, sampling_ratio, levels)


@torch.fx.wrap
def multiscale_ps_roi_align(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    sampling_ratio: int = -1,
    levels: Tensor | None = None,
) -> Tensor:
    """Pool each RoI from its level with `ps_roi_align`; arguments, result and errors as in the module's docstring.

    Equivalent to: for each level l, output[levels == l] = ps_roi_align(features[l], boxes[levels == l], output_size,
        scales[l], sampling_ratio).
    """
    return pool_levels("ps_average", "align_half", features, boxes, output_size, scales, sampling_ratio, levels)


@torch.fx.wrap
def multiscale_ps_roi_pool(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    quantization: str = "round",
    levels: Tensor | None = None,
) -> Tensor:
    """Pool each RoI from its level with `ps_roi_pool`; arguments, result and errors as in the module's docstring.

    Equivalent to: for each level l, output[levels == l] = ps_roi_pool(features[l], boxes[levels == l], output_size,
        scales[l], quantization).
    """
    check_choice(quantization, "quantization", tuple(PS_QUANTIZATIONS))
    rule = PS_QUANTIZATIONS[quantization]
    return pool_levels("ps_average", rule, features, boxes, output_size, scales, levels=levels)
