"""Write images whose annotations are drawn on the stored pixels for readers that turn them as EXIF says."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detector.data.image import ImageReader
from detector.data.pixels import opened
from detector.data.stored import ORIENTATION
from detector.data.writers import Split

JPEG = b"\xff\xd8"
"""The first bytes of the files that can be changed without writing them anew: they have no checksums."""


def drawn_as_stored(split: Split) -> dict[int, int]:
    """Find the images that EXIF turns, but whose annotations are drawn on the stored pixels.

    These are the ones that `ImageReader` does not turn: all where `exif` is false, else those whose stated size is that
    of the stored pixels only.

    Returns:
        the orientation, 2 to 8, by the number of the image.

    Raises:
        FileNotFoundError, ValueError: an image does not exist or cannot be read; the message names it.
    """
    table, reader = split.annotations, split.reader

    def find(image: int) -> int:
        with opened(split.images / table.files[image], reader.channels, reader.max_pixels) as stored:
            unturned = reader.exif is False or table.size(image) == stored.size != stored.upright
            return stored.orientation if unturned else 1

    with ThreadPoolExecutor(4) as pool:
        return {image: value for image, value in enumerate(pool.map(find, range(len(table)))) if value != 1}


def set_upright(path: Path, orientation: int) -> None:
    """Overwrite the orientation in a JPEG with 1, upright; its other bytes, and with them its pixels, stay.

    Args:
        path: of the image.
        orientation: that it states.

    Raises:
        ValueError: the file is no JPEG, or states it in another way than EXIF does.
    """
    content = path.read_bytes()
    if content.startswith(JPEG):
        for order in "<>":  # the number of the tag, its type (16 bits), how many values, the value
            before, after = (struct.pack(f"{order}HHIH", ORIENTATION, 3, 1, value) for value in (orientation, 1))
            path.write_bytes(content.replace(before, after, 1))  # EXIF comes before the pixels
            if ImageReader(max_pixels=None).orientation(path) == 1:
                return
        path.write_bytes(content)
    raise ValueError(f"{path}: its EXIF orientation {orientation} can be removed from JPEGs only")
