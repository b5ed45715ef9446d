"""Take images as a user has them: paths, PIL images, arrays, tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from detector.data.image import ImageReader

GivenImage = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""A path; a PIL image; an array uint8 [H, W, 3], RGB, or [H, W], grey; or a tensor uint8 [3, H, W], RGB."""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode by the number of channels."""

DEEP = ("I", "F")
"""How Pillow's modes of more than 8 bits begin."""


def is_one(images: object) -> bool:
    """Return whether this is one image, not a sequence of them."""
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim <= 3
    return isinstance(images, str | os.PathLike | Image.Image)


def as_tensor(image: object, reader: ImageReader) -> Tensor:
    """Return an image as the reader of a detector reads it, [D, H, W].

    Args:
        image: a path, which the reader reads; a PIL image, which is turned upright by its EXIF orientation unless the
            reader leaves images as they are stored; an array uint8 [H, W, D] or [H, W], of RGB for D = 3; or a tensor
            [D, H, W], uint8, or floats in 0..255 as the reader makes them of deep images.
        reader: the detector's.

    Raises:
        FileNotFoundError, ValueError: as of `ImageReader.read`, of a path; the array or tensor has another shape or
            type.
        TypeError: it is none of these.
    """
    if isinstance(image, str | os.PathLike):
        return reader.read(Path(image))
    channels = getattr(reader, "channels", None)  # a reader of the user's own may not say
    if isinstance(image, Image.Image):
        return _of_pillow(image, reader, channels or 3)
    if isinstance(image, np.ndarray):
        return _of_array(image, channels or 3)
    if isinstance(image, Tensor):
        return _checked(image, channels)
    raise TypeError(
        f"an image is a path, a PIL image, an array [height, width, {channels or 3}] or a tensor "
        f"[{channels or 3}, height, width], not {type(image).__name__}: {str(image)[:80]}"
    )


def as_tensors(images: object, reader: ImageReader) -> list[Tensor]:
    """Return several images as of `as_tensor`; an error names the place of the image.

    Raises:
        TypeError: they are no sequence.
    """
    if not isinstance(images, Sequence | np.ndarray | Tensor):
        raise TypeError(f"give an image or a list of images, not {type(images).__name__}: {str(images)[:80]}")
    tensors = []
    for place, image in enumerate(images):
        try:
            tensors.append(as_tensor(image, reader))
        except (ValueError, TypeError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"image {place}: {error}") from error
    return tensors


def _of_pillow(image: Image.Image, reader: ImageReader, channels: int) -> Tensor:
    mode = MODES.get(channels)
    if mode is None or image.mode.startswith(DEEP):
        raise ValueError(
            f"a PIL image of mode {image.mode} cannot become {channels} channels of 8 bits; give its path, or a "
            "tensor as detector.reader.read returns it"
        )
    upright = image if getattr(reader, "exif", None) is False else ImageOps.exif_transpose(image)
    return _of_array(np.array(upright if upright.mode == mode else upright.convert(mode)), channels)


def _of_array(image: NDArray[Any], channels: int) -> Tensor:
    expected = f"an array is an image as uint8 [height, width, {channels}]{', RGB' if channels == 3 else ''}"
    if image.dtype != np.uint8:
        raise ValueError(f"{expected}, not {image.dtype} {list(image.shape)}; floats are given as tensors, in 0..255")
    if image.ndim == 2 and channels in (1, 3):
        image = np.repeat(image[..., None], channels, 2)
    if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        turned = image.ndim == 3 and image.shape[0] == channels
        way = "; this one has its channels first: array.transpose(1, 2, 0)" if turned else ""
        raise ValueError(f"{expected}, not {list(image.shape)}{way}")
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def _checked(image: Tensor, channels: int | None) -> Tensor:
    expected = f"a tensor is an image as uint8 [{channels or 'channels'}, height, width]"
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(f"{expected}, or floats in 0..255, not {image.dtype} {list(image.shape)}")
    if image.ndim != 3 or channels not in (None, image.shape[0]) or 0 in image.shape:
        turned = image.ndim == 3 and image.shape[2] == channels
        way = "; this one has its channels last: tensor.permute(2, 0, 1)" if turned else ""
        raise ValueError(f"{expected}, not {list(image.shape)}{way}")
    return image.cpu()
