"""Read datasets in COCO's JSON format.

The file is checked as a whole when it is read, so that errors in the data are reported before training begins.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import AnnotatedDataset, Annotations
from detector.data.arrange import ClassChoice, Others, choose_classes, join_images
from detector.data.coco_columns import Columns
from detector.data.coco_entries import (
    Record,
    plain_id,
    read_categories,
    read_images,
    resolve_ids,
    with_distinct_names,
    without_parents,
)
from detector.data.doubts import measured_areas, say_doubts, without_impossible
from detector.data.faults import Effect, collecting, note, sound
from detector.data.image import ImageReader
from detector.data.json_stream import stream_lists, uncollected
from detector.data.packed import Ids, Integers, Strings, starts_of
from detector.types import DetectionDataset

log = logging.getLogger(__name__)

LAYOUT = (
    "COCO's layout is a folder of images and one JSON with the lists `images`, `annotations` and `categories`: "
    "<data_dir>/coco/train2017/*.jpg and <data_dir>/coco/annotations/instances_train2017.json"
)

IMAGES_KEY = "give the right one: dataset.images=FOLDER, or of one split dataset.train.images=FOLDER"

Areas = Literal["stated", "measured"]
Crowds = Literal["regions", "objects"]


class CocoDataset(AnnotatedDataset):
    """Read a COCO JSON and its folder of images; see `read_coco`.

    Args:
        images: the folder that the `file_name`s in the JSON are relative to.
        annotations: the JSON file.
        keep_empty: keep images without objects, or with crowds only; false for training.
        masks: decode the masks, if the file has them.
        limit: use only the first `limit` of these images; None: all.
        classes, others: as of `detector.data.arrange.choose_classes`; None: all classes.
        areas, crowds: as of `read_coco`.
        reader: reads the images; None: one for RGB of 8 bits.

    Raises:
        FileNotFoundError: the folder, the file, or an image named in it does not exist.
        ValueError: the file is not JSON, not in COCO's format, or inconsistent; an image cannot be read, or its size is
            not the one in the JSON (see `ImageReader`). The message names the file and the entry.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        *,
        keep_empty: bool = True,
        masks: bool = True,
        limit: int | None = None,
        classes: ClassChoice | None = None,
        others: Others = "background",
        areas: Areas = "stated",
        crowds: Crowds = "regions",
        reader: ImageReader | None = None,
    ) -> None:
        table = find_images(read_coco(Path(annotations), areas=areas, crowds=crowds), Path(images))
        table = table if classes is None else choose_classes(table, classes, others)
        super().__init__(table, Path(images), keep_empty=keep_empty, masks=masks, limit=limit, reader=reader)


def read_coco(
    path: Path,
    *,
    areas: Areas = "stated",
    crowds: Crowds = "regions",
) -> Annotations:
    """Read the annotations of a COCO JSON.

    Labels 0..C-1 are in the order of the category ids; categories that share a name have their id appended to it. Boxes
    without area or outside the image are skipped, polygons of fewer than three points and masks without a pixel are
    left out, annotation ids that repeat or are missing are numbered anew; each is logged with its number, and so is
    what looks like a mistake (see `detector.data.doubts`).

    Args:
        path: the JSON file.
        areas: "stated": as in the file; "measured": those of the polygons, of the run-length codes, or of the boxes of
            objects without either.
        crowds: what `iscrowd: 1` means: "regions" of many objects, which are ignored, or "objects" like all others.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, not in COCO's format, or inconsistent; the message names the entry.
    """
    for key, value, choices in (
        ("areas", areas, ("stated", "measured")),
        ("crowds", crowds, ("regions", "objects")),
    ):
        if value not in choices:
            raise ValueError(f"{key} must be {' or '.join(choices)}, not {value!r}")
    with uncollected():
        table = _table(path, *_read(path), crowds)
    if areas == "stated":
        _refuse_negative(table)
    say_doubts(table, crowds_kept=crowds == "regions", stated=areas == "stated")
    table = without_impossible(table)
    return table if areas == "stated" else measured_areas(table)


def from_ground_truth(dataset: DetectionDataset) -> Annotations:
    """Make `Annotations` of a dataset's ground truth."""
    truth, source = dataset.ground_truth(), Path(type(dataset).__name__)
    columns = Columns(source)
    columns.add(truth["annotations"])
    return replace(_table(source, truth["images"], truth["categories"], columns, "regions"), extra={})


def _table(path: Path, images: Sequence[Any], classes: Sequence[Any], columns: Columns, crowds: Crowds) -> Annotations:
    """Put the annotations in the order of the images, under labels."""
    categories = read_categories(classes, path)
    records = read_images(images, path)
    image, label = _references(columns, records, categories)
    categories, label = without_parents(categories, label, path)
    categories = with_distinct_names(categories, path)
    order = np.argsort(image, kind="stable")
    sizes = _sizes(records)
    segmentations = columns.segmentations(sizes[image].astype(np.int64))
    return Annotations(
        source=path,
        classes=[c["name"] for c in categories],
        category_ids=[int(c["id"]) for c in categories],
        image_ids=Ids.pack([plain_id(r["id"]) for r in records]),
        files=Strings.pack(r["file_name"] for r in records),
        sizes=sizes,
        starts=starts_of(np.bincount(image, minlength=len(records))),
        ids=columns.numbers()[order],
        labels=label[order].astype(np.int32),
        boxes=columns.boxes[order],
        areas=columns.areas[order],
        crowd=columns.crowd[order] & (crowds == "regions"),
        difficult=columns.difficult[order],
        segmentations=None if segmentations is None else segmentations.select(order),
        categories=categories,
        extra={"place": columns.places()[order]},  # by which what else the file says of an object is found again
    )


def _references(columns: Columns, images: Sequence[Record], categories: Sequence[Record]) -> tuple[Integers, Integers]:
    """Return the image and the category of each annotation, by their places."""
    image = resolve_ids(columns.image_ids, [r["id"] for r in images], columns.name, "image_id", "images of the file")
    label = resolve_ids(columns.category_ids, [c["id"] for c in categories], columns.name, "category_id", "categories")
    return image, label


def _sizes(images: Sequence[Record]) -> NDArray[np.int32]:
    """Return height and width of each image, [N, 2]."""
    return np.array([(r["height"], r["width"]) for r in images], np.int32).reshape(-1, 2)


def _meant(path: Path) -> str:
    """Name the file that was meant, with a name that is there in place of the first that is not; or that one."""
    missing = next(part for part in reversed((path, *path.parents)) if not part.exists())
    beside = [other.name for other in missing.parent.iterdir()] if missing.parent.is_dir() else []
    if near := difflib.get_close_matches(missing.name, beside, 1):
        return f" (did you mean {missing.with_name(near[0]) / path.relative_to(missing)}?)"
    return f" (there is no {missing.name!r} in {missing.parent.resolve()})"


def _read(path: Path) -> tuple[list[Any], list[Any], Columns]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such annotation file{_meant(path)}. {LAYOUT}. Set data_dir, or the path itself"
        )
    lists: dict[str, list[Any]] = {}
    columns = Columns(path)
    try:
        for key, batch in stream_lists(path, ("images", "annotations", "categories")):
            content = lists.setdefault(key, [])
            if key == "annotations" and not collecting():
                columns.add(batch)
            else:
                content += batch
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}. {LAYOUT}") from error
    for key in ("images", "annotations", "categories"):
        if key not in lists:
            raise ValueError(f"{path}: JSON, but not COCO's: it has no list `{key}`. {LAYOUT}")
    if collecting():
        columns = _sift(path, lists)
    return lists["images"], lists["categories"], columns


def _sift(path: Path, lists: dict[str, list[Any]]) -> Columns:
    """Note what is wrong with each entry, and leave out those that cannot be read."""
    categories, images = read_categories(lists["categories"], path), read_images(lists["images"], path)
    left_out = [
        {repr(e["id"]) for e in lists[key] if isinstance(e, dict) and "id" in e} - {repr(r["id"]) for r in records}
        for key, records in (("images", images), ("categories", categories))
    ]
    known = {c["id"] for c in categories}
    lists["images"], lists["categories"] = images, [c for c in lists["categories"] if _has_id(c, known)]
    places = [
        place
        for place, a in enumerate(lists["annotations"])
        if not isinstance(a, dict)
        or not (repr(a.get("image_id")) in left_out[0] or repr(a.get("category_id")) in left_out[1])
    ]
    entries = [lists["annotations"][place] for place in places]

    def check(some: Sequence[Any], begin: int) -> None:
        columns = Columns(path, places[begin : begin + len(some)])
        columns.add(some)
        image, _ = _references(columns, images, categories)
        columns.segmentations(_sizes(images)[image].astype(np.int64))

    kept = sound(entries, check, "annotations that cannot be read")
    columns = Columns(path, [places[i] for i in kept])
    columns.add([entries[i] for i in kept])
    return columns


def _has_id(entry: Any, ids: set[Any]) -> bool:
    """Return whether an entry has one of these ids, and take that from them."""
    found = isinstance(entry, dict) and isinstance(entry.get("id"), Hashable) and entry["id"] in ids
    ids -= {entry["id"]} if found else set()
    return found


def _refuse_negative(table: Annotations) -> None:
    negative = np.flatnonzero(table.areas < 0)
    if collecting():
        where = (f"{table.name(i)} has the area {table.areas[i]:g}" for i in negative.tolist())
        note("negative areas", Effect.REFUSED, where)
    elif len(negative):
        raise ValueError(
            f"{table.name(int(negative[0]))} has the area {table.areas[negative[0]]:g} ({len(negative)} are "
            "negative); correct it, or take those of masks and boxes: dataset.areas=measured"
        )


def find_images(table: Annotations, folder: Path) -> Annotations:
    """Find the image files in a folder; a back-slash in a name may separate folders.

    Returns:
        the annotations with the names of the files that are there; entries that name one file are joined.

    Raises:
        FileNotFoundError: the folder or an image does not exist.
        ValueError: two entries name one file, but state different sizes.
    """
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        near = difflib.get_close_matches(folder.name, beside, 1)
        meant = f" (did you mean {folder.parent / near[0]}?)" if near else ""
        raise FileNotFoundError(
            f"{folder}: no such folder of images{meant}; {IMAGES_KEY}, or set data_dir for COCO's layout. {LAYOUT}"
        )
    # One listing of the folder is much faster than a look-up of each of a hundred thousand files.
    present = {entry.name for entry in os.scandir(folder)}
    names = list(table.files)
    missing = [i for i, n in enumerate(names) if n not in present and not (folder / n).is_file()]
    for i in list(missing):
        other = names[i].replace("\\", "/")
        if (folder / other).is_file():
            names[i] = other
            missing.remove(i)
    if missing and not collecting():
        name = names[missing[0]]
        plain = os.path.basename(name.replace("\\", "/"))
        below = next((f for f in sorted(folder.iterdir()) if (f / name).is_file()), None)
        there = f"; it is in {below}" if below is not None else ""
        if plain in present:
            there = f"; {plain} is there, without the folders of its file_name"
        raise FileNotFoundError(
            f"{folder / name}: no such image ({len(missing)} of {len(names)} images of {table.source} are "
            f"missing{there}); complete the folder, or {IMAGES_KEY}"
        )
    root = os.path.abspath(folder)
    return join_images(
        replace(table, files=Strings.pack(names)), [os.path.normpath(os.path.join(root, name)) for name in names]
    )
