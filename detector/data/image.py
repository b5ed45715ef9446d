"""Read image files as a model takes them: so many channels, in the unit of 8 bits, upright or as annotated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.data.pixels import opened
from detector.data.stored import Pixels, Region, Stored, turned
from detector.data.value_range import Bounds, measure, parse_range, propose_range, scale
from detector.types import Size

log = logging.getLogger(__name__)

WHOLE = 5000
"""Sets of at most this many images are read completely before training."""

MAX_PIXELS = 178_956_970
"""The default limit of an image's pixels: the one above which Pillow refuses, twice its `MAX_IMAGE_PIXELS`."""

UNCHANGED = Bounds(0, 255)
"""The range in which 8 bits stay as they are."""

CHANNELS = 128
"""The most channels of an image, which is OpenCV's limit."""

ListedImage = tuple[Path, Size, Path]
"""An image's path, the (height, width) in the annotations, and the file of annotations."""


class ImageReader:
    """Read image files of any depth as tensors [channels, H, W] in the unit of 8 bits, 0..255.

    Files of 8 bits stay uint8. Others become float32, scaled so that `range` is 0..255; values outside of it are
    neither clipped nor changed otherwise.

    A grey image becomes RGB by repetition, and an RGB image whose three channels are equal becomes grey. Palettes give
    their colours; CMYK, YCbCr and the like are converted to RGB by Pillow. Alpha is dropped where there is no channel
    for it (2: grey and alpha; 4: RGB and alpha), the colours below it staying as they are stored; it is opaque where
    the file has none. The pages of a TIFF are its bands, as are all samples of a page; the fourth is alpha only if the
    file says so. Of animations, and of the pictures in one JPEG of a telephone, the first is read.

    Args:
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA, or the bands of a TIFF or `.npy`.
        range: the values that become 0 and 255, one pair for all channels, or one for each; a number, or a percentile
            of each image, such as "1%". Alpha is scaled by the whole range of its type, if there is one pair. None: 0
            and 255, and other files than those of 8 bits are refused.
        exif: whether images are turned upright as EXIF's orientation says. None: where annotations state the size of
            the image, it decides; otherwise they are.
        max_pixels: an image of more pixels is refused; None: any size is read.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        channels: int = 3,
        range: Sequence[Any] | None = None,
        exif: bool | None = None,
        max_pixels: int | None = MAX_PIXELS,
    ) -> None:
        if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= CHANNELS:
            raise ValueError(f"channels must be a whole number from 1 to {CHANNELS}, not {channels!r}")
        if exif not in (True, False, None):
            raise ValueError(f"exif must be true, false or null, not {exif!r}")
        if max_pixels is not None and (not isinstance(max_pixels, int) or max_pixels < 1):
            raise ValueError(f"max_pixels must be a whole number of at least 1, or null, not {max_pixels!r}")
        self.channels, self.range, self.exif, self.max_pixels = channels, range, exif, max_pixels
        self._bounds: list[Bounds] | None = None if range is None else parse_range(range, channels)

    def _settings(self) -> tuple[Any, ...]:
        return self.channels, str(self.range), self.exif, self.max_pixels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageReader) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(self._settings())

    def read(self, path: Path, stated: Size | None = None, source: Path | None = None) -> Tensor:
        """Read an image: uint8 or float32 [channels, H, W], stored channels last.

        Args:
            path: of the image.
            stated: the height and width that its annotations state; None: it has none.
            source: the file of annotations, for messages.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be read, or has other channels, a type for which `range` is needed, values that are
                not finite, or another size than stated. The message names it.
        """
        with opened(path, self.channels, self.max_pixels) as stored:
            orientation = self._orientation(stored, stated, source)
            self._check_type(stored)
            pixels = stored.read()
        pixels = np.ascontiguousarray(turned(pixels, orientation))
        return self._convert(pixels, stored, self._measured(pixels, stored))

    @contextmanager
    def regions(self, path: Path) -> Iterator[ImageRegions]:
        """Open an image of which regions are to be read, each as `read` would read it.

        Of uncompressed and Deflate TIFFs of one page (others need imagecodecs) and of `*.npy` only these regions are
        read. Other files are decoded as a whole, once, and held as they are stored; so are images that are turned, and
        those whose `range` is percentiles of the image.

        Raises:
            FileNotFoundError, ValueError: as of `read`.
        """
        with opened(path, self.channels, self.max_pixels) as stored:
            self._check_type(stored)
            orientation = self._orientation(stored, None, None)
            relative = any(bounds.percent for bounds in self._bounds or ())
            region = stored.open_regions() if orientation == 1 and not relative else None
            if region is not None:
                yield ImageRegions(stored.size, True, lambda at: self._convert(region(at), stored, self._bounds))
                return
            pixels = turned(stored.read(), orientation)
            stored = replace(stored, decode=lambda: pixels, check=None, regions=None)
        # The decoder had a copy of its own, which is let go.
        bounds = self._measured(pixels, stored)
        yield ImageRegions(
            (pixels.shape[0], pixels.shape[1]),
            False,
            lambda at: self._convert(pixels[at[1] : at[3], at[0] : at[2]].copy(), stored, bounds),
        )  # torch takes no negative strides, which NumPy calls contiguous where there is one pixel

    def orientation(self, path: Path) -> int:
        """Return EXIF's orientation of an image, 1 to 8, by which `read` turns it unless `exif` is false; 1: upright.

        Raises:
            FileNotFoundError, ValueError: as of `read`.
        """
        with opened(path, self.channels, self.max_pixels) as stored:
            return stored.orientation

    def size(self, path: Path) -> Size:
        """Read from an image's header the height and width that `read` returns it in, if none are stated.

        Raises:
            FileNotFoundError, ValueError: as of `read`; channels, type and values are not checked.
        """
        with opened(path, self.channels, self.max_pixels) as stored:
            return stored.size if self.exif is False else stored.upright

    def check(self, images: Sequence[ListedImage]) -> None:
        """Check that all images of a set can be read, and have the stated sizes, before training begins.

        In sets of up to `WHOLE` images each file is read completely; in larger sets its header, which holds type, bands
        and size, and the values of every so many.

        Raises:
            ValueError: as of `read`. For images that need a `range`, the message says what was found in all of them.
        """
        every = -(-len(images) // WHOLE)
        with ThreadPoolExecutor(4) as pool:
            findings = list(pool.map(self._look, images, (n % every == 0 for n, _ in enumerate(images))))
        deep = [(f, image) for f, image in zip(findings, images, strict=True) if f.dtype != np.uint8]
        if deep and self._bounds is None:
            read = [f for f, _ in deep if f.values is not None]
            raise ValueError(_needs_range(read or [self._look(deep[0][1], True)], len(deep), len(images)))
        outside = [f for f in findings if f.outside]
        if outside:
            log.warning(
                "%d of %d images have values outside of dataset.range=%s, such as %s: they reach from %g to %g, and "
                "are not clipped",
                *(len(outside), len(images), self.range, outside[0].path),
                *_reach(outside),
            )
        undecided = [f.path for f in findings if f.undecided]
        if undecided:
            log.warning(
                "%d of %d images, such as %s, are upside down or mirrored in their files, as EXIF says, and the stated "
                "sizes do not tell how the boxes were drawn. They are turned upright, as annotation tools show them; "
                "dataset.exif=false reads them as stored, dataset.exif=true confirms it",
                *(len(undecided), len(images), undecided[0]),
            )

    def _look(self, image: ListedImage, whole: bool) -> _Finding:
        """Check one image; `whole`: not its header alone."""
        path, stated, source = image
        with opened(path, self.channels, self.max_pixels) as stored:
            orientation = self._orientation(stored, stated, source)
            undecided = self.exif is None and orientation != 1 and stored.upright == stored.size
            values, outside = None, False
            if stored.dtype == np.uint8 or self._bounds is not None:
                self._check_type(stored)
            fixed = [b for b in self._bounds or () if not b.percent and b != UNCHANGED]
            if whole and stored.dtype == np.uint8 and self.channels == 3 and not fixed:
                stored.verify()
            elif whole:
                pixels = stored.read()
                values = low, high = _extremes(pixels, stored)
                self._arrange(pixels, stored)
                outside = bool(fixed) and (low < min(b.low for b in fixed) or high > max(b.high for b in fixed))
        return _Finding(path, stored.dtype, values, outside, undecided)

    def _orientation(self, stored: Stored, stated: Size | None, source: Path | None) -> int:
        """Decide which orientation to turn by, and check the size."""
        upright = stored.upright
        if self.exif is not None:
            orientation = stored.orientation if self.exif else 1
        else:
            orientation = 1 if stated == stored.size != upright else stored.orientation
        if stated is not None and (stored.size if orientation == 1 else upright) != stated:
            raise ValueError(_other_size(stored, stated, source, self.exif))
        return orientation

    def _check_type(self, stored: Stored) -> None:
        """Check channels and type, which the header tells."""
        bands, own = self.channels, stored.bands - stored.alpha
        fits = stored.bands == bands or own == bands or (own, bands) in ((1, 2), (1, 3), (1, 4), (3, 4))
        if not fits and not (own == 3 and bands == 1):  # grey, if all three are equal
            raise ValueError(
                f"{stored.path}: the image has {stored.bands} channels{' with alpha' if stored.alpha else ''}, and "
                f"dataset.channels is {bands}; set dataset.channels={stored.bands}, or convert the image"
            )
        if self._bounds is None and stored.dtype != np.uint8:
            values = _extremes(stored.read(), stored)
            raise ValueError(_needs_range([_Finding(stored.path, stored.dtype, values, False, False)], 1, 1))
        wide = next((b for b in self._bounds or () if not b.percent and (b.low < 0 or b.high > 255)), None)
        if stored.dtype == np.uint8 and wide is not None:
            raise ValueError(
                f"{stored.path}: the image has 8 bits, 0 to 255, and dataset.range={self.range} is of deeper images; "
                "convert the image, or give percentiles, such as dataset.range=[1%,99%]"
            )

    def _arrange(self, pixels: Pixels, stored: Stored) -> tuple[Pixels, bool]:
        """Drop alpha, repeat grey, or take one of equal channels; returns whether the last one is alpha, too."""
        alpha = stored.alpha
        if alpha and (self.channels in (1, 3) or stored.bands - 1 == self.channels):
            pixels, alpha = pixels[..., :-1], False
        own = pixels.shape[2] - alpha
        if own == 3 and self.channels == 1:
            if (pixels != pixels[..., :1]).any():
                raise ValueError(
                    f"{stored.path}: the image has colours, and dataset.channels is 1; set dataset.channels=3, or "
                    "convert the image to grey"
                )
            pixels = pixels[..., :1]
        elif own == 1 and self.channels in (3, 4):
            pixels = np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], 2)
        return pixels, alpha

    def _measured(self, pixels: Pixels, stored: Stored) -> Sequence[Bounds] | None:
        """Return the range as values, percentiles as those of the whole image [H, W, bands]."""
        if self._bounds is None or not any(bounds.percent for bounds in self._bounds):
            return self._bounds
        pixels, alpha = self._arrange(pixels, stored)
        _check_finite(pixels, stored.path)
        return measure(pixels, self._bounds, alpha)

    def _convert(self, pixels: Pixels, stored: Stored, bounds: Sequence[Bounds] | None) -> Tensor:
        """Arrange pixels [H, W, bands], scale them by values, and add opaque alpha where it is missing."""
        pixels, alpha = self._arrange(pixels, stored)
        if bounds is not None and (pixels.dtype != np.uint8 or any(b != UNCHANGED for b in self._bounds or ())):
            _check_finite(pixels, stored.path)
            pixels = scale(pixels, bounds, alpha)
        if pixels.shape[2] < self.channels:
            pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], 2)
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def read_image(path: Path) -> Tensor:
    """Read an image as RGB of 8 bits, uint8 [3, H, W], upright.

    Raises:
        FileNotFoundError, ValueError: as of `ImageReader.read`.
    """
    return ImageReader().read(path)


@dataclass(frozen=True)
class ImageRegions:
    """An image of which regions are read."""

    size: Size
    """height and width"""
    partial: bool
    """whether only the regions are read, not the whole file"""
    read: Callable[[Region], Tensor]
    """(x1, y1, x2, y2), within the image -> [channels, y2 - y1, x2 - x1]"""


@dataclass(frozen=True)
class _Finding:
    """What the check of an image has found."""

    path: Path
    dtype: np.dtype[Any]
    values: tuple[float, float] | None
    """the smallest and the largest; None: they were not read"""
    outside: bool
    """whether values lie outside of a fixed range"""
    undecided: bool
    """whether EXIF turns it, and its size does not tell whether the annotations count on that"""


def _check_finite(pixels: Pixels, path: Path) -> None:
    if pixels.dtype.kind != "f":
        return
    if not np.isfinite([pixels.min(), pixels.max()]).all():  # both are NaN where one value is
        raise ValueError(f"{path}: some of its values are not finite; replace them")


def _extremes(pixels: Pixels, stored: Stored) -> tuple[float, float]:
    """Return the smallest and the largest value, alpha aside."""
    _check_finite(pixels, stored.path)
    values = pixels[..., :-1] if stored.alpha else pixels
    return float(values.min()), float(values.max())


def _reach(findings: Sequence[_Finding]) -> tuple[float, float]:
    """Return the smallest and the largest value of several images, at least one of which was read."""
    known = [f.values for f in findings if f.values is not None]
    return min(low for low, _ in known), max(high for _, high in known)


def _other_size(stored: Stored, stated: Size, source: Path | None, exif: bool | None) -> str:
    height, width = stored.size
    text = f"{stored.path}: the image is {width}x{height} pixels (width x height)"
    upright = stored.upright
    if stored.orientation != 1:
        text += f" as it is stored, {upright[1]}x{upright[0]} when turned by its EXIF orientation {stored.orientation}"
    text += f", but {source} says {stated[1]}x{stated[0]}; the boxes would be misplaced. "
    if exif is not None and stated in (stored.size, upright):
        return f"{text}Leave out dataset.exif={str(exif).lower()}"
    return f"{text}Restore the original image, or annotate this one"


def _needs_range(deep: Sequence[_Finding], number: int, count: int) -> str:
    """Say that `number` of `count` images need a range, some of which were read."""
    kinds = sorted({f.dtype.name for f in deep})
    low, high = _reach(deep)
    proposed = propose_range(deep[0].dtype, low, high)
    return (
        f"{deep[0].path}: {number} of {count} images are not of 8 bits, but {' and '.join(kinds)}, with values from "
        f"{low:g} to {high:g}; say which of them become black and white: dataset.range={proposed}, or percentiles of "
        "each image: dataset.range=[1%,99%] (predict.py: range=)"
    )
