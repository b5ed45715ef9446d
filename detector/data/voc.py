"""Read datasets in VOC's format: an XML per image, lists of image names, and optionally PNGs of object masks."""

from __future__ import annotations

import glob
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import numpy as np
import torch
from scipy import ndimage

from detector.data.image import ImageReader
from detector.data.stored import open_image
from detector.run_lengths import encode
from detector.types import Masks, Sample, Size, Target

log = logging.getLogger(__name__)

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's classes, in alphabetical order"""

LAYOUT = (
    "VOC's layout is <data_dir>/VOCdevkit/VOC2007 with the folders JPEGImages/*.jpg, Annotations/*.xml and "
    "ImageSets/Main/*.txt"
)

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class _Object:
    label: int
    box: tuple[float, float, float, float]
    difficult: bool
    truncated: bool
    instance: int
    """its value in SegmentationObject: 1 for the first object of the XML"""


@dataclass(frozen=True)
class _Record:
    stem: str
    image: Path
    annotation: Path
    size: Size
    objects: tuple[_Object, ...]


class VocDataset:
    """Read one or several image sets of VOC folders.

    A box of an XML, 1-based and inclusive, becomes (xmin - 1, ymin - 1, xmax, ymax) in continuous pixels. Boxes without
    area or outside the image are skipped, and their number is logged; boxes that cross the image's edge are clipped.
    Image ids are file names without their suffix; category ids are 1..C in the order of the labels.

    Args:
        root: the folder that holds the VOC folders.
        sets: pairs of a folder, or a year for `VOC<year>`, and a list in its `ImageSets`: ("2007", "trainval").
        classes: class names by label; None: all that occur in the folders' annotations, sorted.
        keep_empty: keep images without objects; false for training.
        masks: read masks from `SegmentationObject`, and the lists from `ImageSets/Segmentation`.
        limit: use only the first `limit` of these images; None: all.
        reader: reads the images; None: one for RGB of 8 bits.

    Raises:
        FileNotFoundError: a folder, list, image or annotation does not exist.
        ValueError: an annotation is malformed, an image cannot be read, or its size is not the one in its annotation
            (see `ImageReader`). The message names the file.
    """

    def __init__(
        self,
        root: str | Path,
        sets: Sequence[Sequence[str | int]],
        *,
        classes: Sequence[str] | None = CLASSES,
        keep_empty: bool = True,
        masks: bool = False,
        limit: int | None = None,
        reader: ImageReader | None = None,
    ) -> None:
        self.reader = ImageReader() if reader is None else reader
        self.root = Path(root)
        folders = [(_folder(self.root, str(name)), str(split)) for name, split in _pairs(sets)]
        self.classes: list[str] = _names([f for f, _ in folders]) if classes is None else list(classes)
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"{self.root}: the classes {self.classes} are empty, or repeat")
        self.category_ids: list[int] = list(range(1, len(self.classes) + 1))
        self._masks = masks
        self._skipped: Counter[str] = Counter()
        kind = "Segmentation" if masks else "Main"
        records = [
            self._record(folder, stem)
            for folder, split in folders
            for stem in _listed(folder / "ImageSets" / kind / f"{split}.txt", folder / "Annotations")
        ]
        repeated = [stem for stem, count in Counter(r.stem for r in records).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{self.root}: image {repeated[0]} is listed twice ({len(repeated)} such) in {_pairs(sets)}"
            )
        self._records = [r for r in records if keep_empty or r.objects][:limit]
        if not self._records:
            raise ValueError(f"{self.root}: the lists {_pairs(sets)} hold no image to use")
        self.reader.check([(r.image, r.size, r.annotation) for r in self._records])
        if self._skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self._skipped.items()))
            log.warning("%s: skipped %d boxes: %s", self.root, sum(self._skipped.values()), reasons)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        record = self._records[index]
        image = self.reader.read(record.image, record.size, record.annotation)
        objects = record.objects
        target = Target(
            boxes=torch.tensor([o.box for o in objects], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([o.label for o in objects], dtype=torch.int64),
            crowd=torch.zeros(len(objects), dtype=torch.bool),
            difficult=torch.tensor([o.difficult for o in objects], dtype=torch.bool),
            masks=_read_masks(record) if self._masks else None,
        )
        return Sample(image, target, record.stem, record.size)

    @property
    def has_masks(self) -> bool:
        """Whether samples carry masks."""
        return self._masks

    def ground_truth(self) -> dict[str, Any]:
        """Return the ground truth in COCO's format; difficult objects have `difficult: 1` and `ignore: 1`, others 0.

        `area` is that of the mask if masks are read, else that of the box. Masks are read at the first call, once.
        """
        return self._ground_truth

    @cached_property
    def _ground_truth(self) -> dict[str, Any]:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for record in self._records:
            height, width = record.size
            images.append({"id": record.stem, "file_name": record.image.name, "height": height, "width": width})
            masks = _read_masks(record) if self._masks else None
            codes = [] if masks is None else encode(masks)
            for number, o in enumerate(record.objects):
                x1, y1, x2, y2 = o.box
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": record.stem,
                    "category_id": o.label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "difficult": int(o.difficult),
                    "truncated": int(o.truncated),
                    "ignore": int(o.difficult),
                }
                if masks is not None:
                    annotation["segmentation"] = codes[number]
                    annotation["area"] = float(masks.window(number).sum())
                annotations.append(annotation)
        categories = [{"id": i, "name": name} for i, name in zip(self.category_ids, self.classes, strict=True)]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _record(self, folder: Path, stem: str) -> _Record:
        path = folder / "Annotations" / f"{stem}.xml"
        tree = _parse(path)
        height, width = (_number(_child(tree, f"size/{s}", path), int, path) for s in ("height", "width"))
        if min(height, width) <= 0:
            raise ValueError(f"{path}: its size is {width}x{height}; both sides must be positive")
        image = folder / "JPEGImages" / Path(tree.findtext("filename", f"{stem}.jpg").strip()).name
        if image.stem != stem or not image.is_file():
            # The list names the image; `filename` adds only its suffix, and is wrong in many exports.
            found = sorted((folder / "JPEGImages").glob(f"{glob.escape(stem)}.*"))
            if not found:
                raise FileNotFoundError(f"{folder / 'JPEGImages' / stem}.jpg: no such image, but {path} describes it")
            image = found[0]
        objects = []
        for instance, element in enumerate(tree.iter("object"), 1):
            item = self._object(element, path, (height, width), instance)
            if item is not None:
                objects.append(item)
        return _Record(stem, image, path, (height, width), tuple(objects))

    def _object(self, element: ElementTree.Element, path: Path, size: Size, instance: int) -> _Object | None:
        name = _child(element, "name", path)
        if name not in self.classes:
            raise ValueError(
                f"{path}: unknown class {name!r}; the classes are {self.classes}. Correct it, or set classes"
            )
        corners = (_number(_child(element, f"bndbox/{c}", path), float, path) for c in ("xmin", "ymin", "xmax", "ymax"))
        x1, y1, x2, y2 = corners
        x1, y1 = x1 - 1, y1 - 1
        cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(size[1])), min(y2, float(size[0]))
        if x2 <= x1 or y2 <= y1:
            self._skipped["without area"] += 1
            return None
        if cut[2] <= cut[0] or cut[3] <= cut[1]:
            self._skipped["outside the image"] += 1
            return None
        difficult, truncated = (_flag(element, tag, path) for tag in ("difficult", "truncated"))
        return _Object(self.classes.index(name), cut, difficult, truncated, instance)


def _pairs(sets: Sequence[Sequence[str | int]]) -> list[tuple[str, str]]:
    if isinstance(sets, str) or not sets or any(isinstance(s, str) or len(s) != 2 for s in sets):
        raise ValueError(f'sets must be pairs of a folder or year and a list, as [["2007", "trainval"]], not {sets!r}')
    return [(str(folder), str(split)) for folder, split in sets]


def _folder(root: Path, name: str) -> Path:
    folder = root / (f"VOC{name}" if name.isdigit() else name)
    for part in (folder, folder / "JPEGImages", folder / "Annotations", folder / "ImageSets"):
        if not part.is_dir():
            raise FileNotFoundError(f"{part}: no such folder. {LAYOUT}. Set data_dir, or the path itself")
    return folder


def _listed(path: Path, annotations: Path) -> list[str]:
    """Read the image names of a list, one on each line; lists of one class have a flag, -1, 0 or 1, behind the name."""
    if not path.is_file():
        present = sorted(p.stem for p in path.parent.glob("*.txt") if "_" not in p.stem)
        raise FileNotFoundError(f"{path}: no such list of images; there are {present or 'none'} beside it. {LAYOUT}")
    names = []
    for line in path.read_text().splitlines():
        name, *flag = line.strip().rsplit(maxsplit=1)[:2] if line.strip() else [""]
        if flag and (flag[0] not in ("-1", "0", "1") or (annotations / f"{line.strip()}.xml").is_file()):
            name = line.strip()
        names += [name] if name else []
    return names


def _names(folders: list[Path]) -> list[str]:
    """Collect the class names of all annotations in the folders, so that every split has the same classes."""
    paths = [path for folder in dict.fromkeys(folders) for path in sorted((folder / "Annotations").glob("*.xml"))]
    return sorted({_child(element, "name", path) for path in paths for element in _parse(path).iter("object")})


def _parse(path: Path) -> ElementTree.Element:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation, but a list of images names it. {LAYOUT}")
    try:
        return ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path}: not XML ({error})") from error


def _child(element: ElementTree.Element, tag: str, path: Path) -> str:
    text = element.findtext(tag)
    if text is None or not text.strip():
        raise ValueError(f"{path}: <{element.tag}> has no <{tag}>, or an empty one")
    return text.strip()


def _flag(element: ElementTree.Element, tag: str, path: Path) -> bool:
    """Read a flag, which is set by any number but 0, such as a share that is truncated.

    It is not set where the tag is missing, empty (as of pylabel 0.1.55) or "Unspecified", VOC's word for the unknown.
    """
    text = (element.findtext(tag) or "").strip()
    if text.lower() in ("", "unspecified"):
        return False
    try:
        return _number(text, float, path) != 0
    except ValueError as error:
        raise ValueError(f"{error}, in <{tag}>") from None


def _number(text: str, kind: type[Number], path: Path) -> Number:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (kind is int and not value.is_integer()):
        raise ValueError(f"{path}: {text!r} stands where {'a whole' if kind is int else 'a'} number should")
    return kind(value)


def _read_masks(record: _Record) -> Masks:
    """Read the masks of an image's objects from its PNG of object numbers."""
    path = record.annotation.parent.parent / "SegmentationObject" / f"{record.stem}.png"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such mask; set masks to false, or use the lists of ImageSets/Segmentation")
    try:
        with open_image(path, None) as image:  # its size is checked before it is decoded
            size = image.height, image.width
            indices = np.array(image) if size == record.size else None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: unreadable mask ({error})") from error
    if indices is None or indices.shape != record.size:
        shape = size if indices is None else indices.shape
        raise ValueError(f"{path}: the mask's shape is {shape}, its image's {record.size}")
    if not record.objects:
        return Masks.from_windows([], [], record.size)
    places = ndimage.find_objects(indices.astype(np.int32), max(o.instance for o in record.objects))
    pixels, corners = [], []
    for o in record.objects:
        y, x = places[o.instance - 1] or (slice(0, 0), slice(0, 0))  # none where the object has no pixel
        pixels.append(torch.from_numpy(indices[y, x] == o.instance))
        corners.append((x.start, y.start))
    return Masks.from_windows(pixels, corners, record.size)
