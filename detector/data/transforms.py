"""Transforms of our own for albumentations, which move rows and columns as wholes.

albumentations holds boxes as fractions of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.colour import jitter, resize
from detector.types import Size


def nearest(length: int, new_length: int) -> NDArray[np.int64]:
    """Return the pixels that `cv2.resize` takes of a row of `length` to make one of `new_length` of it."""
    row = np.arange(length, dtype=np.float32)[None]
    taken: NDArray[np.float32] = cv2.resize(row, (new_length, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]
    return taken.astype(np.int64)


GREY = 128
"""What images are padded with, in the middle of 0..255 (Ghiasi et al. 2021)."""

ROUNDING = 1e-3
"""A box side up to this, in pixels, is a rounding error: the box ends where a crop begins."""


def padded(image: Tensor, size: Size) -> Tensor:
    """Pad an image [D, H, W] with grey at the right and at the bottom to `size`; stored channels last."""
    result = torch.full((*size, image.shape[0]), GREY, dtype=image.dtype).permute(2, 0, 1)
    result[:, : image.shape[1], : image.shape[2]] = image
    return result


def resized(size: tuple[float, float], short: int, longest: int | None) -> tuple[int, int]:
    """Compute the resized height and width by Detectron2's rule: shorter side `short`, longer at most `longest`."""
    scale = short / min(size)
    if longest is not None and max(size) * scale > longest:
        scale = longest / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


class Colour(A.ColorJitter):  # type: ignore[misc]
    """Jitter colours; what floats have beyond 0 and 1 stays beyond, and other images than RGB keep their hues."""

    def apply(
        self, img: NDArray[Any], brightness: float, contrast: float, order: Sequence[int], **params: Any
    ) -> NDArray[Any]:
        """Jitter the colours of an image [H, W, D]."""
        if img.shape[2] != 3:
            return jitter(img, brightness, contrast, order)
        inside = img if img.dtype == np.uint8 else img.clip(0, 1)
        moved: NDArray[Any] = super().apply(inside, brightness=brightness, contrast=contrast, order=order, **params)
        return moved if img.dtype == np.uint8 else moved + (img - inside)


class Resize(A.DualTransform):  # type: ignore[misc]
    """Resize image and masks; boxes do not change, as albumentations holds them as fractions of the image."""

    _targets = (
        A.core.type_definitions.Targets.IMAGE,
        A.core.type_definitions.Targets.MASK,
        A.core.type_definitions.Targets.BBOXES,
    )

    def __init__(self, short_sizes: Sequence[int] | None, max_size: int | None, scale: Sequence[float] | None) -> None:
        super().__init__(p=1.0)
        self.short_sizes = None if short_sizes is None else tuple(short_sizes)
        self.max_size = max_size
        self.scale = None if scale is None else tuple(scale)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the new height and width; `growth` is how many times as large areas become."""
        del data
        before = height, width = params["shape"][:2]
        if self.short_sizes is not None:
            short = self.py_random.choice(self.short_sizes)
            height, width = resized((height, width), short, self.max_size)
        if self.scale is not None:
            factor = self.py_random.uniform(*self.scale)
            height, width = int(height * factor + 0.5), int(width * factor + 0.5)
        size = max(height, 1), max(width, 1)
        return {"new_size": size, "growth": size[0] * size[1] / (before[0] * before[1])}

    def apply(self, img: np.ndarray[Any, Any], new_size: tuple[int, int], **params: Any) -> np.ndarray[Any, Any]:
        """Resize an image [H, W, D]."""
        del params
        if img.shape[:2] == new_size:
            return img
        return resize(img, new_size)

    def apply_to_mask(
        self, mask: np.ndarray[Any, Any], new_size: tuple[int, int], **params: Any
    ) -> np.ndarray[Any, Any]:
        """Resize a mask [H, W]."""
        del params
        if mask.shape[:2] == new_size:
            return mask
        return cv2.resize(mask, new_size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    def apply_to_bboxes(self, bboxes: np.ndarray[Any, Any], **params: Any) -> np.ndarray[Any, Any]:
        """Return boxes as they are."""
        del params
        return bboxes


class Crop(A.DualTransform):  # type: ignore[misc]
    """Crop a window whose height and width are random fractions of the image's, each at least `least`."""

    _targets = (
        A.core.type_definitions.Targets.IMAGE,
        A.core.type_definitions.Targets.MASK,
        A.core.type_definitions.Targets.BBOXES,
    )

    def __init__(self, least: float) -> None:
        super().__init__(p=1.0)
        self.least = least

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the rows and columns."""
        del data
        window = []
        for side in params["shape"][:2]:
            length = max(1, int(side * self.py_random.uniform(self.least, 1) + 0.5))
            start = self.py_random.randint(0, side - length)
            window.append(slice(start, start + length))
        return {"window": tuple(window)}

    def apply(self, img: np.ndarray[Any, Any], window: tuple[slice, slice], **params: Any) -> np.ndarray[Any, Any]:
        """Crop an image [H, W, D]."""
        del params
        return img[window]

    def apply_to_bboxes(
        self, bboxes: np.ndarray[Any, Any], window: tuple[slice, slice], **params: Any
    ) -> np.ndarray[Any, Any]:
        """Move boxes, as fractions of the image."""
        height, width = params["shape"][:2]
        rows, columns = window
        moved = bboxes.copy()
        moved[:, [0, 2]] = (bboxes[:, [0, 2]] * width - columns.start) / (columns.stop - columns.start)
        moved[:, [1, 3]] = (bboxes[:, [1, 3]] * height - rows.start) / (rows.stop - rows.start)
        return moved


class CropTo(Crop):
    """Crop a random window of at most a given height and width."""

    def __init__(self, size: Size) -> None:
        super().__init__(1.0)
        self.size = size

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the rows and columns."""
        del data
        window = []
        for side, most in zip(params["shape"][:2], self.size, strict=True):
            length = min(side, most)
            start = self.py_random.randint(0, side - length)
            window.append(slice(start, start + length))
        return {"window": tuple(window)}
