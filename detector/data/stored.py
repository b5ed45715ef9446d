"""An image file that has been opened, of whatever format: what its header says, and how its pixels are read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from detector.types import Size

Pixels = NDArray[Any]
"""[H, W, bands]"""

Region = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels, x2 and y2 excluded."""

ReadRegion = Callable[[Region], Pixels]

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    struct.error,
    zlib.error,
    cv2.error,
    tifffile.TiffFileError,
)
"""What the libraries raise for damaged files: Pillow for a broken PNG chunk a SyntaxError, for a truncated file an
OSError; OpenCV an error of its own; NumPy and tifffile the others."""

ORIENTATION = 274
"""The tag of EXIF and TIFF that says how the stored pixels have to be turned."""


class Refused(ValueError):
    """An image is refused; the message names the file and the way out."""


class TooLarge(Refused):
    """An image has more pixels than allowed."""


@dataclass(frozen=True)
class Stored:
    """An image file that has been opened."""

    path: Path
    size: Size
    """height and width of the stored pixels"""
    orientation: int
    """EXIF's, 1 to 8; 1: they stand upright"""
    bands: int
    """with alpha"""
    alpha: bool
    """whether the last band is said to be alpha"""
    dtype: np.dtype[Any]
    decode: Callable[[], Pixels]
    check: Callable[[], None] | None = None
    """finds damage in less time than decoding, after which the pixels cannot be read"""
    regions: Callable[[], ReadRegion | None] | None = None
    """returns what reads the stored pixels of a region without reading the others; None, or where it returns None: the
    file has to be decoded as a whole"""

    @property
    def upright(self) -> Size:
        """Height and width of the pixels as the orientation turns them."""
        height, width = self.size
        return (width, height) if self.orientation >= 5 else (height, width)

    def read(self) -> Pixels:
        """Read the stored pixels.

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        with named(self.path):
            return self.decode()

    def open_regions(self) -> ReadRegion | None:
        """Return what reads the stored pixels of a region; None if the file has to be decoded as a whole.

        Raises:
            ValueError: the file is damaged, now or when it is called; the message names it.
        """
        with named(self.path):
            read = None if self.regions is None else self.regions()
        if read is None:
            return None

        def region(at: Region) -> Pixels:
            with named(self.path):
                return read(at)

        return region

    def verify(self) -> None:
        """Check that the file is not damaged; nothing can be read from it afterwards.

        Raises:
            ValueError: it is; the message names it.
        """
        with named(self.path):
            (self.check or self.decode)()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the file in what the libraries raise."""
    try:
        yield
    except Refused:
        raise
    except BROKEN as error:
        raise Refused(f"{path}: unreadable image ({error}); replace the file or remove it from the set") from error


class _Unlimited:
    """Lift Pillow's limit of pixels, which holds for the whole process, while files are being opened in any thread."""

    def __init__(self) -> None:
        self.lock, self.threads = Lock(), 0
        self.limit: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if self.threads == 0:
                self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.threads += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.threads -= 1
            if self.threads == 0:
                Image.MAX_IMAGE_PIXELS = self.limit


_unlimited = _Unlimited()


def open_image(path: Path, max_pixels: int | None) -> Image.Image:
    """Open an image by Pillow, with `max_pixels` in place of Pillow's own limit.

    Raises:
        TooLarge: it has more pixels.
        OSError: Pillow cannot read it.
    """
    with _unlimited:
        image = Image.open(path)
    try:
        check_pixels(path, (image.height, image.width), max_pixels)
    except TooLarge:
        image.close()
        raise
    return image


def check_pixels(path: Path, size: Size, max_pixels: int | None) -> None:
    """Check the number of pixels of an image against a limit.

    Raises:
        TooLarge: it has more.
    """
    count = size[0] * size[1]
    if max_pixels is not None and count > max_pixels:
        raise TooLarge(
            f"{path}: the image has {size[1]}x{size[0]} = {count} pixels, and max_pixels is {max_pixels}, a guard "
            f"against files that fill the memory; if the image is meant to be so large, raise it: "
            f"dataset.max_pixels={count} (predict.py: max_pixels={count})"
        )


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels upright, as a view.

    Args:
        pixels: [H, W, ...].
        orientation: EXIF's: 2, 4, 5 and 7 are mirrored, 5 to 8 lie on their side.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def decode_by_opencv(path: Path) -> Pixels:
    """Decode a file by OpenCV as it is stored, in the order RGB."""
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("OpenCV cannot decode it")
    if values.ndim == 2:
        return values[..., None]
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(values.shape[2])
    if order is not None:
        for start in range(0, len(values), 256):  # in place: the image may be large
            strip = values[start : start + 256]
            strip[:] = strip[..., order]
    return values
