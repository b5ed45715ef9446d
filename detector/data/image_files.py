"""Find image files, and read their sizes, for formats whose annotations do not state them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from detector.data.image import ImageReader
from detector.types import Size

UNREADABLE = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PCD", "WMF"})
"""Formats that Pillow tells but cannot decode without further programs, and PhotoCD's: `*.pcd` are clouds of points."""

Image.init()  # registers all formats
SUFFIXES = frozenset(
    suffix.lower() for suffix, kind in Image.EXTENSION.items() if kind in Image.OPEN and kind not in UNREADABLE
) | {".mpo"}  # opened as JPEG
"""By which a folder tells its images from other files, in small letters: those of all formats that Pillow reads."""

NO_IMAGES = (".xml", ".txt", ".json", ".csv")
"""Suffixes of files beside images."""


def images_among(paths: Iterable[Path]) -> list[Path]:
    """Tell images from other files by their suffixes; arrays of NumPy, `*.npy`, are images where there are no others.

    Returns:
        the images, sorted.
    """
    found = sorted(paths)
    images = [path for path in found if path.suffix.lower() in SUFFIXES]
    return images or [path for path in found if path.suffix.lower() == ".npy"]


def header_sizes(paths: Sequence[Path], reader: ImageReader | None = None) -> list[Size]:
    """Read from their headers the height and width of images, as a reader turns them.

    Args:
        paths: of the images.
        reader: reads the images; None: one for RGB of 8 bits, which turns them upright.

    Raises:
        FileNotFoundError, ValueError: one does not exist or cannot be read; the message names it.
    """
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map((reader or ImageReader()).size, paths))


def file_read(folder: str, name: str) -> str:
    """Return the path of the file that a JSON's name of an image means, however the name is spelt.

    Args:
        folder: of the images, an absolute path.
        name: a path relative to it, or an absolute one; back-slashes separate folders if no file has them in its name.
    """
    path = os.path.normpath(os.path.join(folder, name))
    if "\\" in name and not os.path.isfile(path):
        return os.path.normpath(os.path.join(folder, name.replace("\\", "/")))
    return path


def relative_to(path: Path, root: Path) -> str:
    """Write a path relative to `root` if it lies below it, else absolutely; folders are separated by slashes."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        absolute = Path(os.path.abspath(path))
        below = absolute.is_relative_to(os.path.abspath(root))
        return (absolute.relative_to(os.path.abspath(root)) if below else absolute).as_posix()
