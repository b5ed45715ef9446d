"""Read TIFFs whose bands Pillow does not know or would reduce: deep ones, many bands, several pages."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import TiffImagePlugin

from detector.data.stored import ORIENTATION, Pixels, ReadRegion, Refused, Region, Stored, decode_by_opencv
from detector.types import Size

DEFLATE = (8, 32946)
"""Compressions that tifffile decodes without imagecodecs, beside none."""

LARGE_SEGMENT = 1 << 25
"""Pixels of a compressed strip or tile above which a TIFF is read as a whole: each region would decode it again."""


def is_plain(image: TiffImagePlugin.TiffImageFile, path: Path) -> bool:
    """Return whether Pillow reads all of a TIFF: one page, 8 bits a band, in bands whose meaning it knows."""
    tags = image.tag_v2
    bands, bits, extra = tags.get(277, 1), tags.get(258, (1,)), tags.get(338, ())
    alpha = len(extra) == 1 and extra[0] in (1, 2)  # associated or not
    known = alpha or (bands == 4 and tags.get(262) == 5) if bands in (2, 4) else bands in (1, 3) and not extra  # CMYK
    if not known or any(kind != 1 for kind in tags.get(339, (1,))) or any(b > 8 for b in bits):
        return False
    if image.n_frames == 1:
        return True
    with tifffile.TiffFile(path) as file:
        return len(file.series[0].pages) == 1 and not _others(file)


def _others(file: tifffile.TiffFile) -> int:
    """Count the further images of the first one's size; thumbnails and coarser levels are smaller."""
    size = _size(file.series[0])
    return sum(_size(series) == size for series in file.series[1:])


def _size(series: tifffile.TiffPageSeries) -> Size:
    return series.shape[series.axes.index("Y")], series.shape[series.axes.index("X")]


def describe_tiff(path: Path, file: tifffile.TiffFile) -> Stored:
    """Describe a TIFF whose bands are its samples, its pages, or both: all samples of the first page come first."""
    series, page = file.series[0], file.series[0].keyframe
    if _others(file):
        raise Refused(f"{path}: holds images of one size, but of different kinds; split it into files")
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise Refused(f"{path}: holds several pages with a palette; split it into files")
    size = _size(series)
    bands = int(np.prod(series.shape)) // (size[0] * size[1])
    alpha = bands == page.samplesperpixel and len(page.extrasamples) == 1 and int(page.extrasamples[0]) in (1, 2)
    axes = [series.axes.index("Y"), series.axes.index("X")]
    axes += [axis for axis in range(len(series.shape)) if axis not in axes and series.axes[axis] != "S"]
    axes += [axis for axis in range(len(series.shape)) if series.axes[axis] == "S"]

    def pixels() -> Pixels:
        try:
            values = series.asarray()
        except (ValueError, KeyError, ImportError) as error:
            if "imagecodecs" not in str(error):
                raise
            return _compressed(path, (*size, bands), series.dtype, str(error))
        return values.transpose(axes).reshape(*size, bands)

    tag = page.tags.get(ORIENTATION)
    orientation = 1 if tag is None or tag.value not in range(1, 9) else int(tag.value)
    single = len(series.pages) == 1 and bands == page.samplesperpixel
    return Stored(
        path,
        size,
        orientation,
        bands,
        alpha,
        np.dtype(series.dtype),
        pixels,
        regions=lambda: region_reader(path, file) if single else None,
    )


def region_reader(path: Path, file: tifffile.TiffFile) -> ReadRegion | None:
    """Return what reads the samples of a region of the first page, [h, w, samples], and nothing beside.

    Args:
        path: of the file.
        file: the opened file, which must stay open.

    Returns:
        None if the page has to be decoded as a whole: its compression needs imagecodecs, which is not installed, or it
        is compressed in one piece.
    """
    page = file.series[0].keyframe
    if not isinstance(page, tifffile.TiffPage) or page.dtype is None or page.shaped[1] != 1:
        return None
    dtype = page.dtype
    separate, _, length, width, samples = page.shaped
    if page.is_memmappable:
        stored = np.memmap(path, np.dtype(f"{file.byteorder}{dtype.char}"), "r", page.dataoffsets[0], page.shaped, "C")

        def mapped(at: Region) -> Pixels:
            x1, y1, x2, y2 = at
            values = stored[:, 0, y1:y2, x1:x2].transpose(1, 2, 0, 3).reshape(y2 - y1, x2 - x1, separate * samples)
            return values.astype(values.dtype.newbyteorder("="))

        return mapped
    high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, length), width)
    decodable = page.compression == 1 or page.compression in DEFLATE or find_spec("imagecodecs") is not None
    if not decodable or high * wide > LARGE_SEGMENT:
        return None
    across, down = -(-width // wide), -(-length // high)

    def touched(at: Region) -> Iterator[int]:
        x1, y1, x2, y2 = at
        for plane in range(separate):
            for row in range(y1 // high, -(-y2 // high)):
                for column in range(x1 // wide, -(-x2 // wide)):
                    yield (plane * down + row) * across + column

    def decoded(at: Region) -> Pixels:
        x1, y1, x2, y2 = at
        values = np.zeros((y2 - y1, x2 - x1, separate * samples), dtype)
        for index in touched(at):
            count = page.databytecounts[index]
            if not count:  # a segment that was left out is empty
                continue
            file.filehandle.seek(page.dataoffsets[index])
            found = page.decode(file.filehandle.read(count), index, jpegtables=page.jpegtables)
            segment, (plane, _, top, left, _), _ = found
            if segment is None:
                continue
            low, first = max(y1, top), max(x1, left)
            high_end, last = min(y2, top + segment.shape[1]), min(x2, left + segment.shape[2])
            bands = slice(plane * samples, (plane + 1) * samples)
            values[low - y1 : high_end - y1, first - x1 : last - x1, bands] = segment[
                0, low - top : high_end - top, first - left : last - left
            ]
        return values

    return decoded


def _compressed(path: Path, shape: tuple[int, ...], dtype: Any, reason: str) -> Pixels:
    """Decode a TIFF whose compression tifffile needs imagecodecs for; OpenCV does up to four bands."""
    values = decode_by_opencv(path) if shape[2] <= 4 else None
    if values is None or values.shape != shape or values.dtype != dtype:
        raise Refused(
            f"{path}: {reason.strip(chr(34))}, to read {shape[2]} bands: pip install imagecodecs, or write the file "
            "without compression or with Deflate"
        )
    return values
