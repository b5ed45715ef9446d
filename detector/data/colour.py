"""Resize images of any number of channels, and jitter their colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.types import Size

AT_ONCE = 4
"""The most channels that OpenCV averages at once."""


def resize(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """Resize an image [H, W, D], averaging where it shrinks, which avoids aliasing."""
    mode = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    if image.shape[2] == 3:
        whole: NDArray[Any] = cv2.resize(image, size[::-1], interpolation=mode)
        return whole
    parts = [image[..., d : d + AT_ONCE] for d in range(0, image.shape[2], AT_ONCE)]
    shrunk = [cv2.resize(np.ascontiguousarray(part), size[::-1], interpolation=mode) for part in parts]
    return np.concatenate([part.reshape(*size, -1) for part in shrunk], 2)


def jitter(image: NDArray[Any], brightness: float, contrast: float, order: Sequence[int]) -> NDArray[Any]:
    """Scale brightness and contrast of an image [H, W, D] of any channels: all by the same factors.

    Args:
        image: uint8, where results are rounded and end at 0 and 255, or floats, which may reach beyond.
        brightness: the factor of all values.
        contrast: the factor of their distances from the image's mean.
        order: of the two, 0 and 1; other numbers are left out.
    """
    values = image.astype(np.float32)
    for step in order:
        if step == 0:
            values *= brightness
        elif step == 1:
            mean = values.mean()
            values = (values - mean) * contrast + mean
    return values if image.dtype != np.uint8 else values.round().clip(0, 255).astype(np.uint8)
