"""Detect objects in the images of a prediction, whole or window by window, and hand them to what writes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from detector.data.image import ImageReader, ImageRegions
from detector.data.stored import Region
from detector.inference.detector import Detector
from detector.inference.inputs import Input
from detector.inference.output_folder import OutputFolder
from detector.inference.results import Found, plain_detections
from detector.inference.saving import Saver, Shown
from detector.inference.score_thresholds import Drawn
from detector.inference.tiles import Tiling, detect_tiles
from detector.types import Objects, Size
from detector.visualize import as_rgb

LARGE = 64_000_000
"""Pixels above which an image that is detected by windows is drawn on a smaller copy, so that 2 GiB of memory are
enough whatever its size, if it is read by windows."""


@dataclass
class Work:
    """What a prediction works with, and what it has to say at the end."""

    detector: Detector
    reader: ImageReader
    tiling: Tiling | None
    batch: int
    drawn: Drawn
    savers: dict[str, Saver]
    folder: OutputFolder
    pixels: dict[str, dict[str, Any]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    decoded: list[str] = field(default_factory=list)
    """large images that were decoded as a whole"""
    frames: int = 0
    full: int = 0
    """images, windows and frames whose detections are all drawn, and as many as a detector keeps"""

    def detect(self, images: Sequence[Tensor]) -> list[Objects]:
        """Detect the objects of images, windows or frames."""
        found = self.detector(images)
        self.full += sum(len(o) >= self.detector.detections and bool(self.drawn.chosen(o).all()) for o in found)
        return found

    def found(self, name: str, stem: str, size: Size, objects: Objects) -> Found:
        """Say what was found in an image or a frame."""
        rows = plain_detections(objects, self.detector.classes, size, self.detector.model.heads.outputs)
        return Found(name, stem, len(self.pixels), size, objects, self.drawn(objects), rows)

    def save(self, given: Input, size: Size, orientation: int, objects: Objects, show: Callable[[], Shown]) -> None:
        """Write what was found in an image."""
        self.pixels[given.name] = {
            "width": size[1],
            "height": size[0],
            "pixels": "as stored" if getattr(self.reader, "exif", None) is False else "upright",
            "exif_orientation": orientation,
        }
        found = self.found(given.name, given.stem, size, objects)
        for saver in self.savers.values():
            saver.add(found, show)


class Unreadable(Exception):
    """An image cannot be read; the others are done."""


@contextmanager
def reading() -> Iterator[None]:
    """Raise what is wrong with a file as `Unreadable`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise Unreadable(str(error)) from error


def detect_images(work: Work, images: Sequence[Input], console: Console) -> None:
    """Detect the objects of images, and write them; those that cannot be read are noted."""
    pending: list[tuple[Input, Tensor, int]] = []
    for place, given in enumerate(track(images, "Detecting", console=console, disable=not images), 1):
        try:
            if work.tiling is not None:
                _detect_large(work, given, work.tiling)
                continue
            with reading():
                pending.append((given, work.reader.read(given.path), work.reader.orientation(given.path)))
        except Unreadable as error:
            work.unread.append(str(error))
        if pending and (len(pending) == work.batch or place == len(images)):
            found = work.detect([image for _, image, _ in pending])
            for (one, image, orientation), objects in zip(pending, found, strict=True):
                size = image.shape[1], image.shape[2]
                work.save(one, size, orientation, objects, partial(_as_it_is, image))
            pending.clear()


def _as_it_is(image: Tensor) -> Shown:
    return image, 1


def _detect_large(work: Work, given: Input, tiling: Tiling) -> None:
    """Detect the objects of an image window by window."""
    with ExitStack() as files:
        with reading():
            orientation = work.reader.orientation(given.path)
            regions = files.enter_context(work.reader.regions(given.path))

        def read(at: Region) -> Tensor:
            with reading():
                return regions.read(at)

        if not regions.partial and len(tiling.windows(regions.size)) > 1:
            work.decoded.append(given.name)
        objects = detect_tiles(read, regions.size, tiling, work.detect, work.batch)
        work.save(given, regions.size, orientation, objects, lambda: shown(regions))


def shown(regions: ImageRegions, most: int = LARGE) -> Shown:
    """Return an image to draw on, as a whole, or a copy whose sides are divided by a whole number.

    Args:
        regions: of the image; they are read strip by strip.
        most: pixels of the copy.
    """
    height, width = regions.size
    factor = max(1, math.ceil(math.sqrt(height * width / most)))
    rows, columns = height // factor, width // factor
    copy = torch.empty(rows, columns, 3, dtype=torch.uint8).permute(2, 0, 1)
    step = max(1, 256 // factor)
    for top in range(0, rows, step):
        end = min(top + step, rows)
        strip = as_rgb(regions.read((0, top * factor, width, end * factor)))
        if factor > 1:
            cells = strip[:, :, : columns * factor].reshape(3, end - top, factor, columns, factor)
            strip = cells.float().mean((2, 4)).round().to(torch.uint8)
        copy[:, top:end] = strip
    return copy, factor
