"""RoI crops that RoIAlign is compared with, composed of torch's own operations.

Both sample a grid whose first and last points lie on the edges of the box. Under `spatial_scale` s, an edge at pixel x
lies at cell x * s, without a half-pixel shift.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor

from ops.checks import check_features, check_map, check_output_size, check_scale, check_scales
from ops.native import is_channels_last
from ops.pooling import Boxes, OutputSize, place


@torch.fx.wrap
def roi_crop(input: Tensor, boxes: Boxes, output_size: OutputSize, spatial_scale: float = 1.0) -> Tensor:
    """Crop RoIs with an affine grid of 2 PH x 2 PW bilinear samples, then 2 x 2 max pooling (spatial transformer).

    Args:
        input: Tensor[N, C, H, W]; float32, float64, float16 or bfloat16.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype.
        output_size: (PH, PW), or one int for both.
        spatial_scale: cells per pixel.

    Returns:
        Tensor[K, C, PH, PW]. Outside the map are zeros, interpolated with the border cells over one cell.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to, for one RoI, theta mapping [-1, 1] onto the box: grid = affine_grid(theta, (1, C, 2 PH, 2 PW),
        align_corners=True), then max_pool2d(grid_sample(input, grid, align_corners=True), 2).
    """
    check_map(input, "input")
    return _roi_crop([input], boxes, output_size, [check_scale(spatial_scale)], None)


@torch.fx.wrap
def multiscale_roi_crop(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    levels: Tensor | None = None,
) -> Tensor:
    """Crop each RoI from its level with `roi_crop`; arguments, result and errors as in `ops.multiscale`."""
    features = check_features(features)
    return _roi_crop(features, boxes, output_size, check_scales(scales, len(features)), levels)


@torch.fx.wrap
def crop_and_resize(input: Tensor, boxes: Boxes, output_size: OutputSize, spatial_scale: float = 1.0) -> Tensor:
    """Crop RoIs as TensorFlow's `crop_and_resize`: one bilinear sample per bin, the outermost on the box's edges.

    Args:
        input: Tensor[N, C, H, W]; float32, float64, float16 or bfloat16.
        boxes: Tensor[K, 5] or a list of Tensor[L, 4]; any floating dtype. In pixels: TensorFlow's normalised y
            is y * spatial_scale / (H - 1), so that 0 and 1 are the centres of the outermost cells.
        output_size: (PH, PW), or one int for both. Where a side is 1, the sample lies at the box's centre.
        spatial_scale: cells per pixel.

    Returns:
        Tensor[K, C, PH, PW]; samples outside the map are 0.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to, for one RoI inside the map: grid_sample(input, affine_grid(theta, (1, C, PH, PW),
        align_corners=True), align_corners=True), theta mapping [-1, 1] onto the box.
    """
    check_map(input, "input")
    return _crop_and_resize([input], boxes, output_size, [check_scale(spatial_scale)], None)


@torch.fx.wrap
def multiscale_crop_and_resize(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    scales: Sequence[float],
    levels: Tensor | None = None,
) -> Tensor:
    """Crop each RoI from its level with `crop_and_resize`; arguments, result and errors as in `ops.multiscale`."""
    features = check_features(features)
    return _crop_and_resize(features, boxes, output_size, check_scales(scales, len(features)), levels)


def _roi_crop(
    features: list[Tensor], boxes: Boxes, output_size: OutputSize, scales: list[float], levels: Tensor | None
) -> Tensor:
    height, width = check_output_size(output_size)
    crop = _sample(features, boxes, (2 * height, 2 * width), scales, levels, fades=True)
    return _as_given(F.max_pool2d(crop, 2), features)


def _crop_and_resize(
    features: list[Tensor], boxes: Boxes, output_size: OutputSize, scales: list[float], levels: Tensor | None
) -> Tensor:
    return _as_given(_sample(features, boxes, check_output_size(output_size), scales, levels, fades=False), features)


def _as_given(output: Tensor, features: list[Tensor]) -> Tensor:
    """Convert an output to the features' dtype and memory format."""
    last = is_channels_last(features)
    return output.to(features[0].dtype, memory_format=torch.channels_last if last else torch.contiguous_format)


def _sample(
    features: list[Tensor],
    boxes: Boxes,
    size: tuple[int, int],
    scales: list[float],
    given_levels: Tensor | None,
    fades: bool,
) -> Tensor:
    """Sample an edge-to-edge grid of each RoI from all levels at once: [K, C, *size], in the coordinates' dtype.

    The cells of all levels form the rows of one matrix; each sample is a weighted sum of four rows.
    """
    rois, levels = place(features, boxes, scales, given_levels)
    dtype = torch.float64 if features[0].dtype == torch.float64 else torch.float32
    rois = rois.to(dtype)
    levels = torch.zeros_like(rois[:, 0], dtype=torch.int64) if levels is None else levels.long()
    exists = (rois[:, 0] > -1) & (rois[:, 0] < features[0].shape[0]) & (levels >= 0) & (levels < len(features))
    levels = torch.where(exists, levels, 0)
    image = torch.where(exists, rois[:, 0], 0).long()

    def by_level(values: Sequence[float]) -> Tensor:
        return rois.new_tensor(values)[levels]

    heights, widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    cells = [f.shape[0] * f.shape[2] * f.shape[3] for f in features]
    offsets = torch.tensor([sum(cells[:i]) for i in range(len(cells))], device=rois.device)[levels]
    row_count, col_count = (torch.tensor(sides, device=rois.device)[levels] for sides in (heights, widths))
    scale = by_level(scales)
    y_low, y_weight = _edge_to_edge(rois[:, 2] * scale, rois[:, 4] * scale, size[0], row_count, fades)
    x_low, x_weight = _edge_to_edge(rois[:, 1] * scale, rois[:, 3] * scale, size[1], col_count, fades)
    with torch.autocast(rois.device.type, enabled=False):
        matrix = torch.cat([f.permute(0, 2, 3, 1).reshape(-1, f.shape[1]) for f in features])
    result = rois.new_zeros(rois.shape[0], *size, features[0].shape[1])
    for dy in (0, 1):
        row = image * row_count * col_count + offsets
        row = row[:, None] + (y_low + dy).clamp(min=0).minimum(row_count[:, None] - 1) * col_count[:, None]
        for dx in (0, 1):
            index = row[:, :, None] + (x_low + dx).clamp(min=0).minimum(col_count[:, None] - 1)[:, None, :]
            weight = y_weight[dy][:, :, None] * x_weight[dx][:, None, :]
            used = exists[:, None, None] & (weight != 0)
            value = torch.where(used[..., None], matrix[torch.where(used, index, 0)].to(dtype), 0)
            result = result + weight[..., None] * value
    return result.permute(0, 3, 1, 2)


def _edge_to_edge(
    low: Tensor, high: Tensor, count: int, size: Tensor, fades: bool
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Place points from edge to edge: the cell below each, int64 [K, count], and the weights of it and of the next.

    Points off the map have weight 0; with `fades`, those within one cell of it keep the weight of the border cell.
    """
    if count == 1:
        point = ((low + high) / 2)[:, None]
    else:
        step = torch.arange(count, device=low.device, dtype=low.dtype)
        point = low[:, None] + step * ((high - low) / (count - 1))[:, None]
    limit = (size - 1).to(low.dtype)[:, None]
    reach = 1 if fades else 0
    inside = (point >= -reach) & (point <= limit + reach)  # false for NaN
    point = torch.where(inside, point, 0)
    cell = point.floor()
    fraction = point - cell
    first = torch.where(inside & (cell >= 0) & (cell <= limit), 1 - fraction, 0)
    second = torch.where(inside & (cell + 1 <= limit), fraction, 0)
    return cell.long(), (first, second)
