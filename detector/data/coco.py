"""Read datasets in COCO's JSON format.

The file is checked as a whole when it is read, so that errors in the data are reported before training begins.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detector.data.image import check_images, check_size, read_image
from detector.run_lengths import decode, from_segmentation
from detector.types import Masks, Sample, Target

log = logging.getLogger(__name__)

Record = dict[str, Any]

LAYOUT = (
    "COCO's layout is a folder of images and one JSON with the lists `images`, `annotations` and `categories`: "
    "<data_dir>/coco/train2017/*.jpg and <data_dir>/coco/annotations/instances_train2017.json"
)


class CocoDataset:
    """Read a COCO JSON and its folder of images.

    Labels 0..C-1 are in the order of the category ids; categories that share a name have their id appended to it. Boxes
    without area or outside the image are skipped, and their number is logged; boxes that cross the image's edge are
    clipped. Masks are used if any object has a `segmentation` (`has_masks`); those of objects without one are unknown
    (`Masks.known`), and the number of these is logged.

    Args:
        images: the folder that the `file_name`s in the JSON are relative to.
        annotations: the JSON file.
        keep_empty: keep images without objects, or with crowds only; false for training.
        masks: decode the masks, if the file has them.
        limit: use only the first `limit` of these images; None: all.

    Raises:
        FileNotFoundError: the folder, the file, or an image named in it does not exist.
        ValueError: the file is not JSON, not in COCO's format, or inconsistent; an image cannot be read, or its size is
            not the one in the JSON (see `check_images`). The message names the file and the entry.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        *,
        keep_empty: bool = True,
        masks: bool = True,
        limit: int | None = None,
    ) -> None:
        self.images = Path(images)
        self.path = Path(annotations)
        content = _read(self.path)
        self._categories = _categories(content, self.path)
        self.classes: list[str] = [c["name"] for c in self._categories]
        self.category_ids: list[int] = [c["id"] for c in self._categories]
        self._label = {c: label for label, c in enumerate(self.category_ids)}
        records = _images(content, self.path)
        _check_files(self.images, [r["file_name"] for r in records.values()], self.path)
        self._annotations = self._collect(content["annotations"], records)
        self._records = [r for r in records.values() if keep_empty or self._trainable(r["id"])][:limit]
        if not self._records:
            kind = "image" if keep_empty else "image with an object to train on"
            raise ValueError(f"{self.path}: holds no {kind}; check that it is the annotation file of the right split")
        check_images([(self.images / r["file_name"], (r["height"], r["width"]), self.path) for r in self._records])
        objects = [a for group in self._annotations.values() for a in group]
        with_masks = sum(bool(a.get("segmentation")) for a in objects)
        self._masks = masks and with_masks > 0
        if masks and 0 < with_masks < len(objects):
            log.warning(
                "%s: %d of %d objects have no segmentation: they count as boxes, not in the mask loss and in mask AP",
                self.path,
                len(objects) - with_masks,
                len(objects),
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        record = self._records[index]
        path = self.images / record["file_name"]
        image = read_image(path)
        size = record["height"], record["width"]
        check_size(path, (image.shape[1], image.shape[2]), size, self.path)
        objects = self._annotations[record["id"]]
        target = Target(
            boxes=torch.tensor([_clipped(a["bbox"], size) for a in objects], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([self._label[a["category_id"]] for a in objects], dtype=torch.int64),
            crowd=torch.tensor([bool(a["iscrowd"]) for a in objects], dtype=torch.bool),
            difficult=torch.zeros(len(objects), dtype=torch.bool),
            masks=self._decode(objects, size) if self._masks else None,
        )
        return Sample(image, target, record["id"], size)

    @property
    def has_masks(self) -> bool:
        """Whether samples carry masks."""
        return self._masks

    def ground_truth(self) -> dict[str, Any]:
        """Return the file's `images`, `annotations` and `categories`, without the skipped ones.

        An annotation without `iscrowd` gets 0.
        """
        annotations = [a for r in self._records for a in self._annotations[r["id"]]]
        return {"images": self._records, "annotations": annotations, "categories": self._categories}

    def _trainable(self, image_id: int | str) -> bool:
        return any(not a["iscrowd"] for a in self._annotations[image_id])

    def _collect(self, annotations: list[Any], images: dict[Any, Record]) -> dict[Any, list[Record]]:
        """Check the annotations one by one and group those with a usable box by image id."""
        groups: dict[Any, list[Record]] = {image_id: [] for image_id in images}
        skipped: Counter[str] = Counter()
        seen: set[Any] = set()
        for position, annotation in enumerate(annotations):
            where = f"{self.path}: annotations[{position}]"
            if not isinstance(annotation, dict):
                raise ValueError(f"{where} is {type(annotation).__name__}, not an object")
            number = annotation.get("id", position + 1)
            where += f" (id {number!r})"
            if not isinstance(number, int | str) or number in seen:
                raise ValueError(f"{where}: its id is not an int of its own; number the annotations 1, 2, 3, ...")
            seen.add(number)
            image = images.get(_key(annotation.get("image_id")))
            if image is None:
                raise ValueError(
                    f"{where} belongs to image_id {annotation.get('image_id')!r}, which is not among the "
                    f"{len(images)} images of the file; remove the annotation or add the image"
                )
            if _key(annotation.get("category_id")) not in self._label:
                raise ValueError(
                    f"{where} has category_id {annotation.get('category_id')!r}, which is not among the file's "
                    f"categories {self.category_ids}; add the category or correct the annotation"
                )
            area = annotation.get("area", 0.0)
            if not isinstance(area, int | float) or not math.isfinite(area):
                raise ValueError(f"{where}: its area must be a number, not {area!r}; correct it or leave it out")
            if annotation.get("segmentation"):
                check_mask(annotation["segmentation"], (image["height"], image["width"]), where)
            box = _box(annotation.get("bbox"), where)
            x1, y1, x2, y2 = _clipped(box, (image["height"], image["width"]))
            if box[2] <= 0 or box[3] <= 0:
                skipped["without area"] += 1
            elif x2 <= x1 or y2 <= y1:
                skipped["outside the image"] += 1
            else:
                groups[image["id"]].append({"id": number, "iscrowd": 0, **annotation})
        if skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
            log.warning("%s: skipped %d of %d boxes: %s", self.path, sum(skipped.values()), len(annotations), reasons)
        return groups

    def _decode(self, objects: list[Record], size: tuple[int, int]) -> Masks:
        known = torch.tensor([bool(a.get("segmentation")) for a in objects], dtype=torch.bool)
        empty = {"size": list(size), "counts": [math.prod(size)]}  # takes the place of an unknown mask
        codes = [from_segmentation(a.get("segmentation") or empty, size) for a in objects]
        masks = decode(codes, size, [f"{self.path}: annotation {a['id']!r}" for a in objects])
        return replace(masks, known=known)


def check_mask(segmentation: Any, size: tuple[int, int], where: str) -> None:
    """Check a COCO segmentation: a list of polygons, or a dict of `counts` (a string or run lengths) and `size`.

    Args:
        segmentation: as it stands in the JSON.
        size: height and width of the image.
        where: the beginning of an error's message.

    Raises:
        ValueError: it is neither, or is made for another image size.
    """
    height, width = size
    if isinstance(segmentation, list):
        for polygon in segmentation:
            numbers = isinstance(polygon, list) and all(
                isinstance(v, int | float) and math.isfinite(v) for v in polygon
            )
            if not numbers or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError(
                    f"{where}: a polygon must be x, y, x, y, ... of at least three points, not {polygon!r}"
                )
    elif isinstance(segmentation, dict) and "counts" in segmentation and "size" in segmentation:
        if segmentation["size"] != [height, width]:
            raise ValueError(f"{where}: its mask has size {segmentation['size']}, its image {[height, width]}")
        counts = segmentation["counts"]
        runs = isinstance(counts, list) and all(isinstance(c, int) and c >= 0 for c in counts)
        if isinstance(counts, list) and (not runs or sum(counts) != height * width):
            raise ValueError(f"{where}: the run lengths must be counts that sum to {height}*{width}")
    else:
        raise ValueError(f"{where}: the segmentation is neither polygons nor run lengths: {str(segmentation)[:80]}")


def _read(path: Path) -> dict[str, list[Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file. {LAYOUT}. Set data_dir, or the path itself")
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}). {LAYOUT}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path}: JSON, but not COCO's: it has no list `{key}`. {LAYOUT}")
    return content  # type: ignore[no-any-return]


def _key(value: Any) -> Any:
    """Return the value if it can be an id, else None; ids are looked up in dicts, so lists must not get through."""
    return value if isinstance(value, int | str) else None


def _categories(content: dict[str, list[Any]], path: Path) -> list[Record]:
    for category in content["categories"]:
        known = isinstance(category, dict) and isinstance(category.get("id"), int)
        if not known or not isinstance(category.get("name"), str):
            raise ValueError(f"{path}: a category needs an int `id` and a `name`, not {category!r}")
    ids = [c["id"] for c in content["categories"]]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"{path}: the category ids {ids} are empty, or repeat")
    shared = {name for name, count in Counter(c["name"] for c in content["categories"]).items() if count > 1}
    if shared:
        log.warning("%s: several categories are called %s; their ids tell them apart", path, sorted(shared))
    named = [{**c, "name": f"{c['name']} (id {c['id']})"} if c["name"] in shared else c for c in content["categories"]]
    return sorted(named, key=lambda c: int(c["id"]))


def _images(content: dict[str, list[Any]], path: Path) -> dict[Any, Record]:
    records: dict[Any, Record] = {}
    for position, image in enumerate(content["images"]):
        where = f"{path}: images[{position}]"
        if not isinstance(image, dict) or _key(image.get("id")) is None or not isinstance(image.get("file_name"), str):
            raise ValueError(f"{where} needs an `id` and a `file_name`, not {str(image)[:120]}")
        for side in ("width", "height"):
            if not isinstance(image.get(side), int) or image[side] <= 0:
                raise ValueError(
                    f"{where} ({image['file_name']}): `{side}` must be a positive int, not {image.get(side)!r}"
                )
        if image["id"] in records:
            raise ValueError(f"{where} ({image['file_name']}): the id {image['id']!r} is taken by another image")
        records[image["id"]] = image
    return records


def _check_files(folder: Path, names: list[str], source: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images. {LAYOUT}. Set data_dir, or the path itself")
    # One listing of the folder is much faster than a look-up of each of a hundred thousand files.
    present = {entry.name for entry in os.scandir(folder)}
    missing = [n for n in names if n not in present and not (folder / n).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder / missing[0]}: no such image ({len(missing)} of {len(names)} images of {source} are missing); "
            "complete the folder, or point to the right one"
        )


def _box(value: Any, where: str) -> list[float]:
    if (
        not isinstance(value, list)
        or len(value) != 4
        or not all(isinstance(v, int | float) and math.isfinite(v) for v in value)
    ):
        raise ValueError(f"{where}: `bbox` must be four numbers x, y, width, height, not {value!r}")
    return value


def _clipped(box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Convert x, y, width, height to x1, y1, x2, y2, clipped to the image of (height, width)."""
    x, y, w, h = box
    height, width = size
    return max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
