"""Write annotations in YOLO's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pycocotools import mask as rle

from detector.data.annotations import Annotations
from detector.data.outlines import joined, pixel_rings
from detector.data.unturned import JPEG, drawn_as_stored, set_upright
from detector.data.voc_writer import decimal
from detector.data.writers import Placing, Split, file_names, new_folder, place_images
from detector.run_lengths import decode, from_segmentation
from detector.types import Size

Floats = NDArray[np.float64]

DIGITS = 11
"""Decimals of shares: at 10,000 pixels they keep a coordinate to a ten-millionth of a pixel."""


@dataclass
class Lost:
    """What YOLO cannot hold, counted."""

    crowds: int = 0
    difficult: int = 0
    truncated: int = 0
    rectangles: int = 0
    moved: int = 0
    farthest: float = 0.0
    upright: int = 0
    turned: int = 0

    def sentences(self) -> list[str]:
        """Say what is lost."""
        kinds = (
            (self.crowds, "YOLO has no crowds: {} are left out, and their regions become background"),
            (self.difficult, "YOLO has no difficult objects: {} are written as objects like others"),
            (self.truncated, "YOLO has no flag for truncated objects: {} are written without"),
            (self.rectangles, "{} objects have no mask, among others that have; their boxes are written as polygons"),
            (
                self.moved,
                "YOLO's boxes are those of the polygons: {} differ from the ones given by more than 0.01 px, "
                f"{self.farthest:.2f} px at most",
            ),
            (
                self.upright,
                "YOLO's readers turn images as EXIF says: {}, whose boxes are drawn on the stored pixels, are copied "
                "without their orientation",
            ),
            (
                self.turned,
                "YOLO's readers turn images as EXIF says: {} have their boxes drawn on the stored pixels; remove the "
                "orientation from them, or write them with images=copy",
            ),
        )
        return [sentence.format(count) for count, sentence in kinds if count]


def write_yolo(splits: Sequence[Split], folder: Path, placing: Placing = "copy") -> list[str]:
    """Write `data.yaml`, and `images/NAME` and `labels/NAME` for each split.

    Objects are polygons if any has a mask, else boxes. A mask of several parts or with holes becomes one polygon whose
    seams enclose nothing, a run-length code one along the edges of its pixels: as pycocotools fills them, none is lost.

    Args:
        splits, folder, placing: as of `write_coco`. All have the same classes.

    Returns:
        sentences about what the format cannot hold.

    Raises:
        FileExistsError: there are files in the folder.
        ValueError: an image is turned by EXIF, its boxes are drawn on the stored pixels, and the tag cannot be removed;
            the classes of the splits differ.
    """
    classes = splits[0].annotations.classes
    for split in splits:
        if split.annotations.classes != classes:
            raise ValueError(
                f"{split.name} has the classes {split.annotations.classes}, {splits[0].name} {classes}; YOLO has one "
                "list for all splits"
            )
    lost, names = Lost(), file_names(splits)
    shapes = [split.annotations.segmentations for split in splits]
    polygons = any(s is not None and s.known.any() for s in shapes)
    with new_folder(folder) as place:
        settings: dict[str, Any] = {split.name: f"images/{split.name}" for split in splits}
        settings |= {"nc": len(classes), "names": dict(enumerate(classes))}
        (place / "data.yaml").write_text(
            yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        for split in splits:
            labels = place / "labels" / split.name
            labels.mkdir(parents=True)
            for image, name in enumerate(names[split.name]):
                rows = label_rows(split.annotations, image, polygons, lost)
                (labels / f"{Path(name).stem}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
            (place / "images" / split.name).mkdir(parents=True)
            place_images(split, place / "images" / split.name, names[split.name], placing)
            _set_upright(split, place / "images" / split.name, names[split.name], placing, lost)
    return lost.sentences()


def _set_upright(split: Split, folder: Path, names: Sequence[str], placing: Placing, lost: Lost) -> None:
    """Remove the orientation from copies of images that YOLO's readers, who turn by it, would not show as annotated."""
    found = drawn_as_stored(split)
    if placing == "none":
        lost.turned += len(found)
        return
    for image, orientation in found.items():
        source = split.images / split.annotations.files[image]
        with source.open("rb") as file:
            jpeg = file.read(len(JPEG)) == JPEG
        if placing == "link" or not jpeg:
            raise ValueError(
                f"{source}: its boxes are drawn on the stored pixels, but YOLO's readers turn the image by its EXIF "
                f"orientation {orientation}, as {len(found)} of {split.name}. "
                + ("images=copy copies it without" if jpeg else "Write the file without it")
                + ", or to=coco states the size of the stored pixels"
            )
        set_upright(folder / names[image], orientation)
        lost.upright += 1


def label_rows(table: Annotations, image: int, polygons: bool, lost: Lost) -> list[str]:
    """Return the lines of an image's file of labels.

    Args:
        table: the annotations.
        image: its number.
        polygons: write objects as polygons, not as boxes.
        lost: what cannot be written is counted there.
    """
    size = height, width = table.size(image)
    objects = slice(int(table.starts[image]), int(table.starts[image + 1]))
    limits = np.array([width, height, width, height], np.float64)
    corners = np.concatenate((table.boxes[objects, :2], table.boxes[objects, :2] + table.boxes[objects, 2:]), 1)
    rows = []
    for i, box in zip(table.objects(image), np.clip(corners, 0, limits), strict=True):
        if table.crowd[i]:
            lost.crowds += 1
            continue
        lost.difficult += int(table.difficult[i])
        lost.truncated += int("truncated" in table.extra and table.extra["truncated"][i])
        x1, y1, x2, y2 = box
        shape = None if table.segmentations is None else table.segmentations.get(i, size)
        if not polygons:
            points = np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x2 - x1, y2 - y1]])
        elif shape is None:
            points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
            lost.rectangles += 1
        else:
            points = np.clip(_polygon(shape, size), 0, limits[:2])
            far = float(np.abs(np.concatenate((points.min(0), points.max(0))) - box).max())
            lost.moved += far > 0.01
            lost.farthest = max(lost.farthest, far)
        shares = (points / limits[:2]).reshape(-1)
        rows.append(" ".join((str(int(table.labels[i])), *(decimal(v, DIGITS) for v in shares.tolist()))))
    return rows


def _polygon(shape: Any, size: Size) -> Floats:
    """Return one polygon for a segmentation, [N, 2]."""
    code = from_segmentation(shape, size)
    if isinstance(shape, list):
        one = joined([np.array(part, np.float64).reshape(-1, 2) for part in shape])
        same = len(shape) == 1 or rle.frPyObjects([one.reshape(-1).tolist()], *size)[0]["counts"] == code["counts"]
        if same:
            return one
    masks = decode([code], size)
    rings = pixel_rings(masks.window(0).numpy())
    return joined([ring + masks.windows[0, :2].numpy() for ring in rings])
