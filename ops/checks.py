"""Check every argument of the operators once; errors name the argument and its value."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
MAX_SAMPLING_RATIO = 1 << 15
MAX_CELLS = (1 << 31) - 1


def check_features(features: Any, name: str = "features") -> list[Tensor]:
    """Check the levels of a pyramid: a list of Tensor[N, C, H_l, W_l] that agree in dtype, device, N and C."""
    if isinstance(features, Tensor) or not isinstance(features, Sequence):
        raise TypeError(f"{name} must be a list of tensors, one per level; got {type(features).__name__}")
    if len(features) == 0:
        raise ValueError(f"{name} is empty: at least one level is needed")
    for i, feature in enumerate(features):
        check_map(feature, f"{name}[{i}]")
        first = features[0]
        if feature.dtype != first.dtype:
            raise TypeError(f"{name} differ in dtype: {name}[0] is {first.dtype}, {name}[{i}] is {feature.dtype}")
        if feature.device != first.device:
            raise ValueError(
                f"{name} differ in device: {name}[0] is on {first.device}, {name}[{i}] on {feature.device}"
            )
        if feature.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"{name} differ in N, C: {name}[0] has {tuple(first.shape[:2])}, {name}[{i}] {tuple(feature.shape[:2])}"
            )
    return list(features)


def check_map(feature: Any, name: str) -> None:
    """Check one feature map: a floating Tensor[N, C, H, W] with at least one cell."""
    if not isinstance(feature, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(feature).__name__}")
    if feature.dim() != 4:
        raise ValueError(f"{name} must be [N, C, H, W]; got shape {tuple(feature.shape)}")
    if feature.dtype not in DTYPES:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16; got {feature.dtype}")
    height, width = feature.shape[2:]
    if height < 1 or width < 1 or height * width > MAX_CELLS:
        raise ValueError(f"{name} must have between 1 and 2^31 - 1 cells; got {height} x {width}")


def check_boxes(boxes: Any, batch: int | None = None, device: torch.device | None = None) -> Tensor:
    """Check boxes and convert a list of Tensor[L, 4], one per image, to Tensor[K, 5], image index first."""
    if isinstance(boxes, Tensor):
        if boxes.dim() != 2 or boxes.shape[1] != 5:
            raise ValueError(f"boxes must be Tensor[K, 5] or a list of Tensor[L, 4]; got shape {tuple(boxes.shape)}")
        _check_floating(boxes, "boxes")
        _check_device(boxes, "boxes", device)
        return boxes
    if not isinstance(boxes, Sequence) or isinstance(boxes, str):
        raise TypeError(f"boxes must be Tensor[K, 5] or a list of Tensor[L, 4]; got {type(boxes).__name__}")
    for i, one in enumerate(boxes):
        if not isinstance(one, Tensor):
            raise TypeError(f"boxes[{i}] must be a tensor; got {type(one).__name__}")
        if one.dim() != 2 or one.shape[1] != 4:
            raise ValueError(f"boxes[{i}] must be Tensor[L, 4]; got shape {tuple(one.shape)}")
        _check_floating(one, f"boxes[{i}]")
        _check_device(one, f"boxes[{i}]", device)
    if batch is not None and len(boxes) > batch:
        raise ValueError(f"boxes has {len(boxes)} tensors, but the features hold {batch} images")
    if len(boxes) == 0:
        return torch.zeros(0, 5, device=device)
    # The image index must stay exact, and float16 has all integers up to 2048 only.
    dtype = torch.float64 if any(one.dtype == torch.float64 for one in boxes) else torch.float32
    rows = [
        torch.cat((one.new_full((one.shape[0], 1), i, dtype=dtype), one.to(dtype)), 1) for i, one in enumerate(boxes)
    ]
    return torch.cat(rows)


def check_corners(boxes: Any, name: str, letter: str) -> None:
    """Check boxes without an image index: a floating Tensor[letter, 4]."""
    if not isinstance(boxes, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(boxes).__name__}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must be Tensor[{letter}, 4]; got shape {tuple(boxes.shape)}")
    _check_floating(boxes, name)


def _check_floating(tensor: Tensor, name: str) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be of a floating dtype; got {tensor.dtype}")


def _check_device(tensor: Tensor, name: str, device: torch.device | None) -> None:
    if device is not None and tensor.device != device:
        raise ValueError(f"{name} must be on the features' device, {device}; got {tensor.device}")


def check_output_size(output_size: Any) -> tuple[int, int]:
    """Check an output size and convert it to (height, width), in bins."""
    pair = tuple(output_size) if isinstance(output_size, Sequence) else (output_size, output_size)
    if len(pair) == 1:
        pair = (pair[0], pair[0])
    try:
        height, width = (operator.index(size) for size in pair)
    except (TypeError, ValueError):
        raise TypeError(f"output_size must be an int or a pair of ints; got {output_size!r}") from None
    if height < 1 or width < 1:
        raise ValueError(f"output_size must be positive; got {output_size!r}")
    return height, width


def check_scale(scale: Any, name: str = "spatial_scale") -> float:
    """Check a scale: a positive, finite number of cells per pixel."""
    try:
        value = float(scale)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number; got {scale!r}") from None
    if not 0 < value < math.inf:  # false for NaN
        raise ValueError(f"{name} must be positive and finite; got {scale!r}")
    return value


def check_scales(scales: Any, levels: int | None = None) -> list[float]:
    """Check that there is one valid scale per level."""
    if not isinstance(scales, Sequence) or isinstance(scales, str):
        raise TypeError(f"scales must be a list of numbers, one per level; got {scales!r}")
    if levels is not None and len(scales) != levels:
        raise ValueError(
            f"scales must have one entry per level: {levels} levels, {len(scales)} scales ({list(scales)})"
        )
    if len(scales) == 0:
        raise ValueError("scales is empty: at least one level is needed")
    return [check_scale(scale, f"scales[{i}]") for i, scale in enumerate(scales)]


def check_sampling_ratio(sampling_ratio: Any) -> int:
    """Check the number of samples per bin along each axis; values below 1 mean adaptive."""
    try:
        value = operator.index(sampling_ratio)
    except TypeError:
        raise TypeError(f"sampling_ratio must be an int; got {sampling_ratio!r}") from None
    if value > MAX_SAMPLING_RATIO:
        raise ValueError(f"sampling_ratio must be at most {MAX_SAMPLING_RATIO}; got {value}")
    return max(value, -1)


def check_choice(value: Any, name: str, choices: Sequence[str]) -> None:
    """Check that a word is one of the allowed ones."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_levels(levels: Any, boxes: Tensor) -> Tensor:
    """Check the level indices given for the boxes: an integer Tensor[K]."""
    if not isinstance(levels, Tensor):
        raise TypeError(f"levels must be an integer Tensor[K] or None; got {type(levels).__name__}")
    if levels.is_floating_point() or levels.is_complex() or levels.dtype == torch.bool:
        raise TypeError(f"levels must be of an integer dtype; got {levels.dtype}")
    if levels.dim() != 1 or levels.shape[0] != boxes.shape[0]:
        raise ValueError(f"levels must be Tensor[{boxes.shape[0]}], one per box; got shape {tuple(levels.shape)}")
    _check_device(levels, "levels", boxes.device)
    return levels
