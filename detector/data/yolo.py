"""Read datasets in YOLO's format: a `data.yaml`, folders of images, and beside them folders of text files."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detector.data.annotations import Annotations
from detector.data.doubts import measured_areas, without_impossible
from detector.data.faults import Effect, collecting, note, refusing
from detector.data.image import ImageReader
from detector.data.image_files import header_sizes, images_among, relative_to
from detector.data.packed import Ids, Integers, Strings, starts_of
from detector.data.segmentations import Segmentations, usable
from detector.data.text import read_lines

log = logging.getLogger(__name__)

LAYOUT = (
    "YOLO's layout is a data.yaml with `train`, `val` and `names`, images in FOLDER/images/train and their labels in "
    "FOLDER/labels/train/*.txt"
)

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

    def name(self, index: int) -> str:
        """Name an object for messages."""
        path, line = self.places[index]
        return f"{path}:{line}"


def read_yolo(
    path: Path, split: str = "train", images: Path | None = None, reader: ImageReader | None = None
) -> Annotations:
    """Read the annotations of a split.

    A row of five numbers is a box, one of seven or more, in odd number, a polygon, whose bounding box becomes the box.
    Images without a text file have no objects. Sizes are those of the images as the reader turns them. Image ids are
    file names without suffix, or where these repeat, paths without it, or with it; category ids are YOLO's class
    numbers, from 0. Areas are those of polygons and boxes. Boxes without area or outside the image are skipped,
    polygons without a pixel left out. `extra` has the column `line`, the object's in its text file, from 1.

    The rules by which files are found are those of https://docs.ultralytics.com/datasets/detect: the labels of
    `.../images/a/b.jpg` are in `.../labels/a/b.txt`.

    Args:
        path: the data.yaml.
        split: its key: train, val, or test.
        images: the folder of the images, in place of the one under that key.
        reader: reads the images, upright unless its `exif` is false: labels are drawn on the images as it turns them;
            None: one for RGB of 8 bits.

    Returns:
        paths of images are relative to the folder of the data.yaml, or absolute if they do not lie below it.

    Raises:
        FileNotFoundError: the data.yaml, a folder or an image does not exist, or no image has labels.
        ValueError: a file is malformed, or a class number is not among the names. The message names file and line.
    """
    settings = _settings(path)
    classes = _classes(settings, path)
    names = list(classes.values())
    listed = list(_images(settings, path, split) if images is None else _folder(images.absolute(), path))
    found = list(dict.fromkeys(listed))
    if len(found) < len(listed):
        log.warning("%s: %d images of %s are listed again", path, len(listed) - len(found), split)
    if collecting():
        found = _readable(found, reader)
    sources = [label_file(image) for image in found]
    if found and not any(source.is_file() for source in sources):
        raise FileNotFoundError(
            f"{sources[0]}: no such labels, nor any for the {len(found)} images of {split}. {LAYOUT}"
        )
    sizes = np.array(header_sizes(found, reader), np.int32).reshape(-1, 2)
    rows, counts = _Rows(), []
    for source in sources:
        before = len(rows.labels)
        with refusing("text files that cannot be read"):
            _read_labels(source, classes, path, rows)
        counts.append(len(rows.labels) - before)
    owners = np.repeat(np.arange(len(found)), counts)
    boxes, shapes = _shapes(rows, sizes[owners].astype(np.int64))
    files = [relative_to(image, path.absolute().parent) for image in found]
    names_of_images = ([image.stem for image in found], [os.path.splitext(name)[0] for name in files], files)
    table = Annotations(
        source=path,
        classes=names,
        category_ids=list(classes),
        image_ids=Ids.pack(next(some for some in names_of_images if len(set(some)) == len(found))),
        files=Strings.pack(files),
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


def label_file(image: Path) -> Path:
    """Return the text file of an image's labels: the last folder `images` of its path becomes `labels`."""
    head, found, tail = image.as_posix().rpartition("/images/")
    return Path(f"{head}/labels/{tail}" if found else tail).with_suffix(".txt")


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. {LAYOUT}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: YAML, but not YOLO's: it has no keys. {LAYOUT}")
    return content


def _classes(settings: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Read the names by class number, a list or a dict, and compare them with `nc`."""
    names, count = settings.get("names"), settings.get("nc")
    if names is None and isinstance(count, int) and count > 0:
        names = [f"class_{i}" for i in range(count)]
    entries: dict[Any, Any] = dict(enumerate(names)) if isinstance(names, list) else names or {}
    if (
        not isinstance(entries, dict)
        or not entries
        or not all(str(k).isdecimal() and isinstance(v, str | int | float) for k, v in entries.items())
    ):
        raise ValueError(f"{path}: `names` must be a list of class names, or a dict of them by number, not {names!r}")
    classes = {int(number): str(entries[number]) for number in sorted(entries, key=int)}
    if count is not None and count != len(classes):
        raise ValueError(f"{path}: nc is {count}, but there are {len(classes)} names: {list(classes.values())}")
    if len(set(classes.values())) < len(entries):
        raise ValueError(f"{path}: the names {list(entries.values())} repeat")
    return classes


def _images(settings: Mapping[str, Any], path: Path, split: str) -> Iterator[Path]:
    """Find the images of a split: those of a folder, a text file of paths, or a list of these."""
    key = "validation" if split == "val" and "val" not in settings else split
    value = settings.get(key)
    values = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str) and v]
    if not values or (isinstance(value, list) and len(values) < len(value)):
        known = [name for name, v in settings.items() if name in ("train", "val", "validation", "test") and v]
        way_out = "; dataset.val_share=0.2 holds out a share of `train`" if split == "val" and "train" in known else ""
        raise ValueError(
            f"{path}: `{split}` must be a folder, a list of images, or several, not {value!r}; it has {known}{way_out}"
        )
    home = path.absolute().parent
    roots = [home / str(settings["path"]), home] if settings.get("path") else [home]
    for entry in values:
        # Roboflow writes ../train/images beside train/images; `path` is often that of another machine.
        tried = [root / name for name in (entry, entry.removeprefix("../")) for root in roots]
        place = next((Path(os.path.normpath(p)) for p in tried if p.exists()), None)
        if place is None:
            raise FileNotFoundError(f"{tried[0]}: no such folder or list of images, but {path} names it. {LAYOUT}")
        yield from _folder(place, path) if place.is_dir() else _listed(place, roots)


def _folder(place: Path, path: Path) -> list[Path]:
    found = images_among(place.rglob("*"))
    if not found:
        raise FileNotFoundError(f"{place}: the folder holds no image, but {path} names it. {LAYOUT}")
    return found


def _listed(path: Path, roots: list[Path]) -> Iterator[Path]:
    for line in read_lines(path):
        name = line.strip()
        if not name:
            continue
        tried = [root / n for n in (name, name.replace("\\", "/")) for root in (path.parent, *roots)]
        image = next((p for p in tried if p.is_file()), None)
        if image is None:
            raise FileNotFoundError(f"{tried[0]}: no such image, but {path} lists it")
        yield Path(os.path.normpath(image))


def _read_labels(source: Path, classes: Mapping[int, str], path: Path, rows: _Rows) -> None:
    """Add the objects of a text file, if there is one."""
    if not source.is_file():
        return
    places: dict[float, int] = {number: place for place, number in enumerate(classes)}
    for number, line in enumerate(read_lines(source), 1):
        if not line.strip():
            continue
        with refusing("lines that cannot be read"):
            where = f"{source}:{number}"
            try:
                label, *shares = map(float, line.split())
            except ValueError:
                raise ValueError(f"{where}: {line.strip()[:80]!r} are not numbers") from None
            if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
                raise ValueError(
                    f"{where}: {1 + len(shares)} numbers; a box has 5 (class, x, y, width, height), a polygon an odd "
                    "number of at least 7 (class, x, y, x, y, ...)"
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
                    "by them"
                )
            rows.labels.append(places[label])
            rows.shares.append(shares)
            rows.places.append((source, number))


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
