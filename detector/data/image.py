"""Read and check image files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detector.types import Size

BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises: for a broken PNG chunk a SyntaxError, for a truncated file an OSError."""

WHOLE = 5000
"""Sets of at most this many images are read completely before training."""


def read_image(path: Path) -> Tensor:
    """Read an image as RGB, uint8 [3, H, W], stored channels last.

    Its EXIF rotation is ignored, as in the annotations of COCO and VOC.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, or is truncated; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    try:
        with Image.open(path) as image:
            pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except BROKEN as error:
        raise _unreadable(path, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def check_size(path: Path, size: Size, stated: Size, source: Path) -> None:
    """Check that an image has the size that its annotations state.

    Args:
        path: of the image.
        size: its height and width.
        stated: the height and width in the annotations.
        source: the file of annotations.

    Raises:
        ValueError: they differ.
    """
    if size != stated:
        raise ValueError(
            f"{path}: the image is {size[1]}x{size[0]} pixels (width x height), but {source} says "
            f"{stated[1]}x{stated[0]}; the boxes would be misplaced. Restore the original image, or annotate this one"
        )


def check_images(images: Sequence[tuple[Path, Size, Path]]) -> None:
    """Check that all images can be read and have the size that their annotations state, before training begins.

    In sets of up to `WHOLE` images each file is read completely; in larger sets only its header, which holds format and
    size.

    Args:
        images: for each image its path, the (height, width) in the annotations, and the file of annotations.

    Raises:
        ValueError: an image cannot be read, or has another size; the message names it.
    """
    whole = len(images) <= WHOLE

    def check(entry: tuple[Path, Size, Path]) -> None:
        path, stated, source = entry
        try:
            with Image.open(path) as image:
                size = image.height, image.width
                if whole and image.format == "PNG":
                    image.verify()  # checks the checksums without decoding
                elif whole:
                    image.draft(
                        "RGB", (image.width // 8, image.height // 8)
                    )  # decodes a JPEG at an eighth of its size, which is fast
                    image.load()
        except BROKEN as error:
            raise _unreadable(path, error) from error
        check_size(path, size, stated, source)

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(check, images):
            pass


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: unreadable image ({error}); replace the file or remove it from the set")
