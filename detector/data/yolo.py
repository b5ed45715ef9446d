"""Read datasets in YOLO's format, of which a text file beside each image, or in a folder of its own, has the labels."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.annotations import Annotations
from detector.data.doubts import measured_areas, without_impossible
from detector.data.faults import Effect, collecting, note, refusing
from detector.data.image import ImageReader
from detector.data.image_files import header_sizes, relative_to
from detector.data.packed import Ids, Integers, Strings, starts_of
from detector.data.segmentations import Segmentations, usable
from detector.data.text import read_lines
from detector.data.yolo_files import LAYOUT, find_files
from detector.data.yolo_points import PointShape, box_of, fitting_points, way_out

log = logging.getLogger(__name__)

ROUNDING = 1e-4
"""How far a share may be out of 0..1 by rounding alone."""

MICRO = 6
"""Decimals of a pixel that are kept."""

FARTHEST = 0.01
"""How far it may be out at most; farther it is none, but a number of pixels, say."""


@dataclass
class _Rows:
    """The objects read so far."""

    labels: list[int] = field(default_factory=list)
    shares: list[list[float]] = field(default_factory=list)
    """of the image's width and height: x, y of the centre, width, height; or x, y, x, y, ... of a polygon"""
    places: list[tuple[Path, int]] = field(default_factory=list)
    """file and line, from 1"""
    posed: int = 0
    """objects with key points, which are not read"""

    def name(self, index: int) -> str:
        """Name an object for messages."""
        path, line = self.places[index]
        return f"{path}:{line}"


def read_yolo(
    path: Path, split: str = "train", images: Path | None = None, reader: ImageReader | None = None
) -> Annotations:
    """Read the annotations of a split.

    A row of five numbers is a box, one of seven or more, in odd number, a polygon, whose bounding box becomes the box;
    a file has only one of these kinds, as ultralytics (8.4.190) demands.
    If a data.yaml has `kpt_shape`, rows are boxes, and key points that are not read; a warning says if it may lack it.
    Images without a text file have no objects. Sizes are those of the images as the reader turns them. Image ids are
    file names without suffix, or where these repeat, paths without it, or with it; category ids are YOLO's class
    numbers, from 0. Areas are those of polygons and boxes. Boxes without area or outside the image are skipped,
    polygons without a pixel left out. `extra` has the column `line`, the object's in its text file, from 1.

    Where images and labels are found is said by `find_files`. Of a data.yaml the rules are those of
    https://docs.ultralytics.com/datasets/detect: the labels of `.../images/a/b.jpg` are in `.../labels/a/b.txt`.

    Args:
        path: a data.yaml, an obj.data, or a list of class names, as of `find_files`.
        split: train, val, or test.
        images: the folder of the images, in place of the ones that the file names.
        reader: reads the images, upright unless its `exif` is false: labels are drawn on the images as it turns them;
            None: one for RGB of 8 bits.

    Returns:
        paths of images are relative to the folder of `path`, or absolute if they do not lie below it.

    Raises:
        FileNotFoundError: a file, a folder or an image does not exist, or no image has labels.
        ValueError: a file is malformed, or a class number is not among the names. The message names file and line.
    """
    files = find_files(path, split, images)
    classes, names = files.classes, list(files.classes.values())
    labels = dict(zip(files.images, files.labels, strict=True))
    found = list(labels)
    if len(found) < len(files.images):
        log.warning("%s: %d images of %s are listed again", path, len(files.images) - len(found), split)
    if collecting():
        found = _readable(found, reader)
    sources = [labels[image] for image in found]
    if found and not any(source.is_file() for source in sources):
        raise FileNotFoundError(
            f"{sources[0]}: no such labels, nor any for the {len(found)} images of {split}. {LAYOUT}"
        )
    sizes = np.array(header_sizes(found, reader), np.int32).reshape(-1, 2)
    rows, counts = _Rows(), []
    for source in sources:
        before = len(rows.labels)
        with refusing("text files that cannot be read"):
            _read_labels(source, classes, path, rows, files.points)
        counts.append(len(rows.labels) - before)
    _say_points(rows, path, files.points)
    owners = np.repeat(np.arange(len(found)), counts)
    boxes, shapes = _shapes(rows, sizes[owners].astype(np.int64))
    places = [relative_to(image, path.absolute().parent) for image in found]
    names_of_images = ([image.stem for image in found], [os.path.splitext(name)[0] for name in places], places)
    table = Annotations(
        source=path,
        classes=names,
        category_ids=list(classes),
        image_ids=Ids.pack(next(some for some in names_of_images if len(set(some)) == len(found))),
        files=Strings.pack(places),
        sizes=sizes,
        starts=starts_of(counts),
        ids=np.arange(1, len(owners) + 1),
        labels=np.array(rows.labels, np.int32),
        boxes=boxes,
        areas=np.full(len(owners), np.nan),
        crowd=np.zeros(len(owners), bool),
        difficult=np.zeros(len(owners), bool),
        segmentations=shapes,
        categories=[{"id": i, "name": name} for i, name in classes.items()],
        sources=Strings.pack(map(str, sources)),
        extra={"line": np.array([number for _, number in rows.places], np.int64)},
    )
    return measured_areas(without_impossible(table))


def _readable(images: list[Path], reader: ImageReader | None) -> list[Path]:
    """Note the images that cannot be read, and return the others."""
    kept = []
    for image in images:
        with refusing("images that cannot be read"):
            header_sizes([image], reader)
            kept.append(image)
    return kept


def _say_points(rows: _Rows, path: Path, points: PointShape | None) -> None:
    """Log a warning for key points that are not read, and for polygons that may be boxes and key points."""
    if points is not None:
        if rows.posed:
            log.warning("%s: the key points of %d objects are not read, their boxes are", path, rows.posed)
        return
    fitting = fitting_points(rows.shares)
    if fitting is not None:
        doubt = (
            f"all {len(rows.shares)} objects are read as polygons, but may be boxes with {fitting.count} key points in "
            f"them, such as that of {rows.name(0)}; if they are, add `{fitting}` to the data.yaml"
        )
        note("doubts about a whole file", Effect.LEARNT, [f"{path}: {doubt}"])
        log.warning("%s: %s", path, doubt)


def _read_labels(
    source: Path, classes: Mapping[int, str], path: Path, rows: _Rows, points: PointShape | None = None
) -> None:
    """Add the objects of a text file, if there is one."""
    if not source.is_file():
        return
    places: dict[float, int] = {number: place for place, number in enumerate(classes)}
    lines = list(enumerate(read_lines(source), 1))
    polygon = 0 if points else next((number for number, line in lines if len(line.split()) > 6), 0)
    for number, line in lines:
        if not line.strip():
            continue
        with refusing("lines that cannot be read"):
            where = f"{source}:{number}"
            try:
                label, *shares = map(float, line.split())
            except ValueError:
                raise ValueError(f"{where}: {line.strip()[:80]!r} are not numbers") from None
            whole = shares
            if points is not None:
                shares = box_of(shares, points, where)
            elif len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
                raise ValueError(
                    f"{where}: {1 + len(shares)} numbers; a box has 5 (class, x, y, width, height), a polygon an odd "
                    "number of at least 7 (class, x, y, x, y, ...)" + way_out(shares)
                )
            if polygon and len(shares) == 4:
                raise ValueError(
                    f"{where}: five numbers are a box, but line {polygon} of the file is a polygon; if these are two "
                    "points of a tiny object, as FiftyOne writes them, remove the line, else write one kind only"
                )
            if label not in places:
                raise ValueError(
                    f"{where}: class number {label:g}, but {path} has nc={len(classes)}, numbers {_numbers(classes)} "
                    f"for {list(classes.values())[:20]}; COCO's category ids must be replaced by the places of their "
                    "names"
                )
            worst = max(shares, key=lambda v: abs(v - 0.5) if math.isfinite(v) else math.inf)
            if not -FARTHEST <= worst <= 1 + FARTHEST:
                raise ValueError(
                    f"{where}: {worst:g} is no share of the image's width or height, which are 0..1; divide pixels "
                    f"by them{'' if points else way_out(shares)}"
                )
            rows.labels.append(places[label])
            rows.shares.append(shares)
            rows.places.append((source, number))
            rows.posed += len(whole) > len(shares)


def _numbers(classes: Mapping[int, str]) -> str:
    numbers = list(classes)
    return f"0..{len(numbers) - 1}" if numbers == list(range(len(numbers))) else str(numbers[:20])


def _shapes(rows: _Rows, sizes: Integers) -> tuple[np.ndarray[Any, np.dtype[np.float64]], Segmentations | None]:
    """Convert shares to boxes x, y, width, height in pixels, [M, 4], and polygons; `sizes` of each object's image."""
    lengths = np.array([len(s) for s in rows.shares], np.int64)
    flat = np.fromiter(chain.from_iterable(rows.shares), np.float64, int(lengths.sum()))
    over = np.flatnonzero((flat < -ROUNDING) | (flat > 1 + ROUNDING))
    if len(over):
        first = int(np.searchsorted(lengths.cumsum(), over[0], side="right"))
        log.warning(
            "%s: %g is out of 0..1, as %d numbers are; what reaches out of the image is cut",
            rows.name(first),
            flat[over[0]],
            len(over),
        )
    sides = np.repeat(sizes[:, ::-1], lengths // 2, axis=0).astype(np.float64)
    flat = (flat.reshape(-1, 2) * sides).reshape(-1).round(MICRO)  # what were whole pixels are so again
    polygon = lengths > 4
    kind = np.repeat(polygon, lengths)
    shapes = Segmentations(
        flat[kind], starts_of(lengths[polygon]), starts_of(polygon.astype(np.int64)), Strings.pack([""] * len(lengths))
    )
    boxes = np.zeros((len(lengths), 4))
    x, y, w, h = flat[~kind].reshape(-1, 4).T
    boxes[~polygon] = np.stack((x - w / 2, y - h / 2, w, h), 1)
    bounds = shapes.polygon_bounds()
    boxes[polygon] = np.concatenate((bounds[:, :2], bounds[:, 2:] - bounds[:, :2]), 1)
    if not polygon.any():
        return boxes, None
    lost = shapes.known & ~usable(shapes, sizes, rows.name)
    if lost.any():
        name = rows.name(int(lost.argmax()))
        note("masks without a pixel", Effect.SKIPPED, map(rows.name, np.flatnonzero(lost).tolist()))
        log.warning(
            "%s: the polygon has no pixel within its image, as %d have; they are left out", name, int(lost.sum())
        )
    return boxes, shapes.without(lost)
