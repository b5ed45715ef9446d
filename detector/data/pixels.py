"""Open image files of any depth and number of bands, and read their pixels as they are stored.

Pillow reads what has 8 bits, and grey images of 16 or 32. It would reduce other files to 8 bits or three bands without
a word; OpenCV and tifffile read those.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from detector.data.stored import (
    ORIENTATION,
    Pixels,
    ReadRegion,
    Refused,
    Region,
    Stored,
    check_pixels,
    decode_by_opencv,
    named,
    open_image,
    turned,
)
from detector.data.tiff import describe_tiff, is_plain, region_reader

REDUCED = re.compile(r"(?<!BGR);16|SGI16")
"""In the decoder's arguments: samples of 16 bits. `BGR;16` has 16 bits for the three together."""

EIGHT_BITS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
"""Pillow's modes of 8 bits a band, or fewer."""

DEEP = {"I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I;16N": np.uint16, "I": np.int32, "F": np.float32}
"""The types of Pillow's modes of one deeper band."""


@contextmanager
def opened(path: Path, channels: int, max_pixels: int | None) -> Iterator[Stored]:
    """Open an image file.

    Args:
        path: an image, or an array of NumPy, `*.npy`, of [H, W], [H, W, bands] or [bands, H, W].
        channels: expected; tells the last two apart, and what Pillow decodes to.
        max_pixels: the most pixels that a band may have; None: any number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, or is larger than allowed (`TooLarge`). The message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    with ExitStack() as files:
        with named(path):
            stored = _open(path, channels, max_pixels, files)
            check_pixels(path, stored.size, max_pixels)
        yield stored


def _open(path: Path, channels: int, max_pixels: int | None, files: ExitStack) -> Stored:
    if path.suffix.lower() == ".npy":
        return _array(path, channels)
    try:
        image = files.enter_context(open_image(path, max_pixels))
    except UnidentifiedImageError:
        if not path.suffix.lower().startswith(".tif"):
            raise
        return describe_tiff(path, files.enter_context(tifffile.TiffFile(path)))  # of bands that Pillow does not know
    if isinstance(image, TiffImagePlugin.TiffImageFile) and not is_plain(image, path):
        return describe_tiff(path, files.enter_context(tifffile.TiffFile(path)))
    if image.mode in EIGHT_BITS and not _is_reduced(image, path):
        return _plain(image, path, channels, files)
    return _deep(image, path)


def _orientation(image: Image.Image) -> int:
    """Read EXIF's orientation, or 1 where there is none before the pixels."""
    try:
        value = Image.Image.getexif(image).get(ORIENTATION, 1)  # that of a PNG would decode it
    except (SyntaxError, ValueError, struct.error):  # not EXIF at all: the image is shown as it is stored
        return 1
    return value if value in range(1, 9) else 1


def _plain(image: Image.Image, path: Path, channels: int, files: ExitStack) -> Stored:
    """Describe a file that Pillow reads completely: 8 bits a band."""
    grey, alpha = image.mode in ("1", "L", "LA", "La"), image.has_transparency_data
    # Pillow converts to RGB itself, which is fastest. It repeats grey and drops alpha, as `ImageReader` does.
    mode = "RGB" if channels == 3 else ("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB")
    orientation = _orientation(image)
    height, width = image.height, image.width
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        stored = (width, height) if orientation >= 5 else (height, width)
    else:
        stored = height, width

    def pixels() -> Pixels:
        values = np.array(image if image.mode == mode else image.convert(mode))
        values = values if values.ndim == 3 else values[..., None]
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow has turned them
            values = turned(values, {6: 8, 8: 6}.get(orientation, orientation))
        return values

    def check() -> None:
        if image.format == "PNG":
            image.verify()  # checks the checksums without decoding
        else:
            image.draft("RGB", (width // 8, height // 8))  # decodes a JPEG at an eighth of its size, which is fast
            image.load()

    def regions() -> ReadRegion | None:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("L", "RGB"):
            return _plain_region(image, path, len(mode), files)
        return None

    return Stored(
        path, stored, orientation, len(mode), alpha and channels != 3, np.dtype(np.uint8), pixels, check, regions
    )


def _plain_region(image: TiffImagePlugin.TiffImageFile, path: Path, bands: int, files: ExitStack) -> ReadRegion | None:
    """Return what reads a region of an 8-bit TIFF, grey or RGB, as Pillow reads it; None if only Pillow can."""
    tags = image.tag_v2
    if tags.get(262) not in (1, 2) or any(bits != 8 for bits in tags.get(258, (1,))):
        return None
    read = region_reader(path, files.enter_context(tifffile.TiffFile(path)))
    if read is None or len(image.getbands()) == bands:
        return read
    return lambda at: np.repeat(read(at), bands, 2)


def _is_reduced(image: Image.Image, path: Path) -> bool:
    """Return whether Pillow would reduce deeper samples to 8 bits."""
    tiles: list[Any] = getattr(image, "tile", None) or []
    if image.format == "PPM":
        return any(tile.codec_name.startswith("ppm") and tile.args[1] > 255 for tile in tiles)
    if image.format == "JPEG2000":
        content = path.read_bytes()
        depth = content.find(b"\xff\x4f\xff\x51") + 42  # of the first component, behind the sizes
        return (content[depth] & 127) + 1 > 8
    return any(REDUCED.search(f"{tile.codec_name} {tile.args}") for tile in tiles)


def _deep(image: Image.Image, path: Path) -> Stored:
    """Describe a file of more than 8 bits a band, other than a TIFF."""
    orientation, size = _orientation(image), (image.height, image.width)
    if image.mode in DEEP and image.format != "PPM":  # Pillow scales the values of a PPM

        def pixels() -> Pixels:
            values = np.array(image)[..., None]
            return values.astype(values.dtype.newbyteorder("="), copy=False)

        return Stored(path, size, orientation, 1, False, np.dtype(DEEP[image.mode]), pixels)
    grey_alpha = "LA;16" in str(getattr(image, "tile", ""))
    alpha = grey_alpha or image.mode == "RGBA"
    bands = (2 if alpha else 1) if grey_alpha or image.mode in DEEP else (4 if alpha else 3)

    def decoded() -> Pixels:
        values = decode_by_opencv(path)
        if grey_alpha:
            return values[..., [0, 3]]
        return values[..., :bands]  # OpenCV makes alpha of the one colour that a PNG declares transparent

    return Stored(path, size, orientation, bands, alpha, np.dtype(np.uint16), decoded)


def _array(path: Path, channels: int) -> Stored:
    """Describe an array of NumPy."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    shape = values.shape
    if values.ndim not in (2, 3) or 0 in shape:
        raise Refused(
            f"{path}: an image is an array [height, width], [height, width, channels] or [channels, height, width], "
            f"not one of shape {shape}"
        )
    if values.ndim == 3 and channels not in (shape[0], shape[2]):
        raise Refused(
            f"{path}: an array of shape {shape} is neither [height, width, {channels}] nor [{channels}, height, width];"
            " set dataset.channels to the number of its channels"
        )
    if values.ndim == 3 and shape[0] == shape[2]:
        raise Refused(
            f"{path}: an array of shape {shape} can be [height, width, channels] or [channels, height, width]; write "
            "it as a TIFF"
        )
    if values.dtype.kind not in "uif":
        raise Refused(f"{path}: pixels are integers or floats, not {values.dtype}")

    def pixels() -> Pixels:
        if values.ndim == 2:
            return np.array(values[..., None])
        return np.array(values if shape[2] == channels else values.transpose(1, 2, 0))

    def region(at: Region) -> Pixels:
        x1, y1, x2, y2 = at
        if values.ndim == 2:
            return np.array(values[y1:y2, x1:x2, None])
        if shape[2] == channels:
            return np.array(values[y1:y2, x1:x2])
        return np.array(values[:, y1:y2, x1:x2].transpose(1, 2, 0))

    first = 1 if values.ndim == 3 and shape[2] != channels else 0
    size = shape[first], shape[first + 1]
    bands = 1 if values.ndim == 2 else channels
    return Stored(path, size, 1, bands, False, values.dtype.newbyteorder("="), pixels, regions=lambda: region)
