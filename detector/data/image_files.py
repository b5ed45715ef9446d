"""Find image files, and read their sizes, for formats whose annotations do not state them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import ExifTags, Image

from detector.data.stored import BROKEN
from detector.types import Size

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""By which a folder tells its images from other files, in small letters."""

QUARTER_TURN = 5
"""The first of EXIF's orientations, 1..8, that exchange width and height."""


def header_sizes(paths: Sequence[Path], *, upright: bool = False) -> list[Size]:
    """Read the height and width of images from their headers.

    Args:
        paths: of the images.
        upright: of the image as its EXIF orientation turns it; else of the stored pixels.

    Raises:
        ValueError: one cannot be read; the message names it.
    """

    def read(path: Path) -> Size:
        try:
            with Image.open(path) as image:
                size = image.height, image.width
                turned = upright and image.getexif().get(ExifTags.Base.Orientation, 1) >= QUARTER_TURN
                return (size[1], size[0]) if turned else size
        except BROKEN as error:
            raise ValueError(f"{path}: unreadable image ({error}); replace it, or remove it from the set") from error

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(read, paths))


def relative_to(path: Path, root: Path) -> str:
    """Write a path relative to `root` if it lies below it, else absolutely; folders are separated by slashes."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        absolute = Path(os.path.abspath(path))
        below = absolute.is_relative_to(os.path.abspath(root))
        return (absolute.relative_to(os.path.abspath(root)) if below else absolute).as_posix()
