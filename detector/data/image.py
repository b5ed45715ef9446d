"""Image files to tensors."""

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
"""What Pillow raises: a broken PNG chunk is a SyntaxError to it, and a file that is cut short an OSError."""

WHOLE = 5000
"""the most images that are read to the end before training"""


def read_image(path: Path) -> Tensor:
    """The image at `path`, uint8 [3, H, W] in RGB; its EXIF rotation is ignored, as in the annotations of COCO and VOC.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, or is cut short; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except BROKEN as error:
        raise _unreadable(path, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def check_size(path: Path, size: Size, stated: Size, source: Path) -> None:
    """Raise ValueError unless the image at `path`, of `size`, has the (height, width) that its annotations state."""
    if size != stated:
        raise ValueError(
            f"{path}: the image is {size[1]}x{size[0]} pixels (width x height), but {source} says "
            f"{stated[1]}x{stated[0]}; the boxes would be misplaced. Restore the original image, or annotate this one"
        )


def check_images(images: Sequence[tuple[Path, Size, Path]]) -> None:
    """Raise ValueError if an image cannot be read or is not of the stated size, before hours of training are spent.

    Of sets of up to `WHOLE` images each file is read to its end, of larger ones only the beginning, which tells what
    kind of image it is, and its size.

    Args:
        images: the file, its (height, width), and the file of annotations that states them.
    """
    whole = len(images) <= WHOLE

    def check(entry: tuple[Path, Size, Path]) -> None:
        path, stated, source = entry
        try:
            with Image.open(path) as image:
                size = image.height, image.width
                if whole and image.format == "PNG":
                    image.verify()  # the checksums, without decoding
                elif whole:
                    image.draft("RGB", (image.width // 8, image.height // 8))  # a JPEG is decoded at an eighth
                    image.load()
        except BROKEN as error:
            raise _unreadable(path, error) from error
        check_size(path, size, stated, source)

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(check, images):
            pass


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: unreadable image ({error}); replace the file or remove it from the set")
