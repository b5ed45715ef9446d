"""RoIAlign of masks that are stored over windows of their image."""

from __future__ import annotations

import torch
from torch import Tensor

from ops import native
from ops.checks import check_output_size, check_sampling_ratio
from ops.functional import roi_align
from ops.pooling import OutputSize


def roi_align_masks(
    pixels: Tensor,
    windows: Tensor,
    offsets: Tensor,
    size: tuple[int, int],
    boxes: Tensor,
    index: Tensor,
    output_size: OutputSize,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Crop masks to RoIs with RoIAlign: the share of each bin that the mask of the RoI fills.

    The same as `roi_align` on the masks' whole images, but the work and memory are those of the windows.

    Args:
        pixels: Tensor[S], bool: the pixels of all windows; outside of its window a mask is 0.
        windows: Tensor[G, 4], int64: x1, y1, x2, y2 in whole pixels, within the image.
        offsets: Tensor[G], int64: where in `pixels` each window begins; its rows follow one another.
        size: height and width of the image.
        boxes: Tensor[R, 4], in the image's pixels.
        index: Tensor[R], int64: the mask of each box; if there is none, the result is 0.
        output_size: (PH, PW), or one int for both.
        sampling_ratio, aligned: as of `roi_align`.

    Returns:
        float32 Tensor[R, PH, PW], in 0..1. No gradients.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.
    """
    height, width = check_output_size(output_size)
    sampling_ratio = check_sampling_ratio(sampling_ratio)
    shapes = {"pixels": (pixels, 1), "windows": (windows, 2), "offsets": (offsets, 1), "boxes": (boxes, 2)}
    for name, (value, dim) in {**shapes, "index": (index, 1)}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor; got {type(value).__name__}")
        if value.dim() != dim or (dim == 2 and value.shape[1] != 4):
            raise ValueError(f"{name} must be {'[N, 4]' if dim == 2 else '[N]'}; got shape {tuple(value.shape)}")
        if value.device != pixels.device:
            raise ValueError(f"{name} must be on the pixels' device, {pixels.device}; got {value.device}")
    for name, value, dtype in (("pixels", pixels, torch.bool), ("windows", windows, torch.int64)):
        if value.dtype != dtype:
            raise TypeError(f"{name} must be {dtype}; got {value.dtype}")
    if len(offsets) != len(windows) or len(index) != len(boxes):
        raise ValueError(
            f"offsets and windows, index and boxes must be as many; got {len(offsets)} and {len(windows)}, "
            f"{len(index)} and {len(boxes)}"
        )
    if min(size) < 1:
        raise ValueError(f"size must be a height and a width of at least 1; got {size}")
    if not native.available(pixels.device):
        return _one_by_one(pixels, windows, offsets, size, boxes, index, (height, width), sampling_ratio, aligned)
    rule = "align_half" if aligned else "align"
    share: Tensor = torch.ops.aligned_rcnn.average_masks(
        pixels, windows, offsets, boxes, index, *size, height, width, sampling_ratio, rule
    )
    return share[:, 0]


def _one_by_one(
    pixels: Tensor,
    windows: Tensor,
    offsets: Tensor,
    size: tuple[int, int],
    boxes: Tensor,
    index: Tensor,
    output_size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Crop one mask after the other on its whole image, without compiled kernels; see `roi_align_masks`."""
    result = torch.zeros((len(boxes), *output_size), device=boxes.device)
    for mask in torch.unique(index).tolist():
        if 0 <= mask < len(windows):
            x1, y1, x2, y2 = windows[mask].tolist()
            begin = int(offsets[mask])
            map = torch.zeros((1, 1, *size), device=boxes.device)
            map[0, 0, y1:y2, x1:x2] = pixels[begin : begin + (y2 - y1) * (x2 - x1)].view(y2 - y1, x2 - x1).float()
            chosen = index == mask
            cropped = roi_align(map, [boxes[chosen].float()], output_size, 1.0, sampling_ratio, aligned)
            result[chosen] = cropped[:, 0]
    return result
