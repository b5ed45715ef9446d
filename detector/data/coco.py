"""Read datasets in COCO's JSON format.

The file is checked as a whole when it is read, so that errors in the data are reported before training begins.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import AnnotatedDataset, Annotations
from detector.data.arrange import ClassChoice, Others, choose_classes
from detector.data.coco_columns import Columns
from detector.data.doubts import measured_areas, say_doubts, without_impossible
from detector.data.faults import Effect, collecting, note, refusing, sound
from detector.data.image import ImageReader
from detector.data.json_stream import stream_lists
from detector.data.packed import Ids, Integers, Strings, starts_of
from detector.types import DetectionDataset

log = logging.getLogger(__name__)

Record = dict[str, Any]

LAYOUT = (
    "COCO's layout is a folder of images and one JSON with the lists `images`, `annotations` and `categories`: "
    "<data_dir>/coco/train2017/*.jpg and <data_dir>/coco/annotations/instances_train2017.json"
)

Areas = Literal["stated", "measured"]
Crowds = Literal["regions", "objects"]

LARGEST = 2**31 - 1
"""Pixels of an image at most: pycocotools counts them in 32 bits."""


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
    left out, two entries for one image file are joined, annotation ids that repeat or are missing are numbered anew;
    each is logged with its number, and so is what looks like a mistake (see `detector.data.doubts`).

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
    images, classes, columns = _read(path)
    table = _table(path, images, classes, columns, crowds)
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
    return _table(source, truth["images"], truth["categories"], columns, "regions")


def _table(path: Path, images: Sequence[Any], classes: Sequence[Any], columns: Columns, crowds: Crowds) -> Annotations:
    """Put the annotations in the order of the images, under labels."""
    categories = _categories(classes, path)
    entries = _images(images, path)
    image, label = _references(columns, entries, categories)
    image, records = _join_entries(image, entries, path)
    categories, label = _without_parents(categories, label, path)
    order = np.argsort(image, kind="stable")
    sizes = _sizes(records)
    segmentations = columns.segmentations(sizes[image].astype(np.int64))
    return Annotations(
        source=path,
        classes=[c["name"] for c in categories],
        category_ids=[int(c["id"]) for c in categories],
        image_ids=Ids.pack([_plain(r["id"]) for r in records]),
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
    )


def _references(columns: Columns, images: Sequence[Record], categories: Sequence[Record]) -> tuple[Integers, Integers]:
    """Return the image and the category of each annotation, by their places."""
    image = _resolve(columns.image_ids, [r["id"] for r in images], columns.name, "image_id", "images of the file")
    label = _resolve(columns.category_ids, [c["id"] for c in categories], columns.name, "category_id", "categories")
    return image, label


def _sizes(images: Sequence[Record]) -> NDArray[np.int32]:
    """Return height and width of each image, [N, 2]."""
    return np.array([(r["height"], r["width"]) for r in images], np.int32).reshape(-1, 2)


def _read(path: Path) -> tuple[list[Any], list[Any], Columns]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file. {LAYOUT}. Set data_dir, or the path itself")
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
    categories, images = _categories(lists["categories"], path), _images(lists["images"], path)
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


def _plain(value: Any) -> Any:
    """Return an id as an int or a text; whole floats become ints."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) or (isinstance(value, float) and value.is_integer())


def _categories(entries: Sequence[Any], path: Path) -> list[Record]:
    sound_ones: dict[Any, Record] = {}
    for category in entries:
        with refusing("categories that cannot be read"):
            known = isinstance(category, dict) and _is_id(category.get("id")) and not isinstance(category["id"], str)
            if not known or not isinstance(category.get("name"), str):
                raise ValueError(f"{path}: a category needs an int `id` and a `name`, not {category!r}")
            if category["id"] in sound_ones:
                other = sound_ones[category["id"]]["name"]
                raise ValueError(
                    f"{path}: the category ids repeat: {category['id']!r} is that of {other!r} and {category['name']!r}"
                )
            sound_ones[category["id"]] = category
    entries = list(sound_ones.values())
    if not entries:
        raise ValueError(f"{path}: there are no category ids, since the list of categories is empty")
    shared = {name for name, count in Counter(c["name"] for c in entries).items() if count > 1}
    if shared:
        log.warning("%s: several categories are called %s; their ids tell them apart", path, sorted(shared))
    named = [{**c, "name": f"{c['name']} (id {c['id']})"} if c["name"] in shared else c for c in entries]
    return sorted(named, key=lambda c: int(c["id"]))


def _without_parents(categories: list[Record], label: Integers, path: Path) -> tuple[list[Record], Integers]:
    """Leave out categories that are only the parent of others, as Roboflow writes one with id 0."""
    used = set(np.unique(label).tolist())
    parents = {c.get("supercategory") for c in categories if c.get("supercategory") != c["name"]}
    kept = [
        place
        for place, c in enumerate(categories)
        if place in used or c["name"] not in parents or c.get("supercategory") not in (None, "", "none")
    ]
    if len(kept) == len(categories):
        return categories, label
    names = [c["name"] for place, c in enumerate(categories) if place not in kept]
    log.warning("%s: left out %s, which has no objects and is only the supercategory of others", path, names)
    return [categories[place] for place in kept], np.searchsorted(kept, label)


def _images(entries: Sequence[Any], path: Path) -> list[Record]:
    records: dict[Any, Record] = {}
    for position, image in enumerate(entries):
        with refusing("image entries that cannot be read"):
            where = f"{path}: images[{position}]"
            if (
                not isinstance(image, dict)
                or not _is_id(image.get("id"))
                or not isinstance(image.get("file_name"), str)
            ):
                raise ValueError(f"{where} needs an `id` and a `file_name`, not {str(image)[:120]}")
            for side in ("width", "height"):
                if not isinstance(image.get(side), int) or image[side] <= 0:
                    raise ValueError(
                        f"{where} ({image['file_name']}): `{side}` must be a positive int, not {image.get(side)!r}"
                    )
            if image["width"] * image["height"] > LARGEST:
                raise ValueError(
                    f"{where} ({image['file_name']}): {image['width']}x{image['height']} pixels are more than "
                    f"run-length codes can count ({LARGEST}); cut the image into tiles"
                )
            if image["id"] in records:
                raise ValueError(f"{where} ({image['file_name']}): the id {image['id']!r} is taken by another image")
            records[image["id"]] = image
    return list(records.values())


def _resolve(values: Sequence[Any], ids: Sequence[Hashable], name: Callable[[int], str], key: str, of: str) -> Integers:
    """Look up which of `ids` each value is; a number may be written as a text, where that leaves no doubt."""
    places = {value: place for place, value in enumerate(ids)}
    found = [places.get(v) if isinstance(v, Hashable) else None for v in values]
    missing = [i for i, place in enumerate(found) if place is None]
    texts = {str(_plain(value)): place for value, place in places.items()}
    if missing and len(texts) == len(places):
        for i in missing:
            found[i] = texts.get(str(_plain(values[i])))
        read = [i for i in missing if found[i] is not None]
        if read:
            number = found[read[0]]
            assert number is not None
            note("ids of another type", Effect.CORRECTED, (f"{name(i)} has {key} {values[i]!r}" for i in read))
            log.warning(
                "%s has %s %r for %r (%d such); they are taken for the same",
                name(read[0]),
                key,
                values[read[0]],
                ids[number],
                len(read),
            )
    for i in missing:
        if found[i] is None:
            verb = "belongs to image_id" if key == "image_id" else f"has {key}"
            shown = f"{len(ids)} {of}" if key == "image_id" else f"file's {of} {list(ids)}"
            way = "the annotation or add the image" if key == "image_id" else "it, add the category or correct it"
            raise ValueError(f"{name(i)} {verb} {values[i]!r}, which is not among the {shown}; remove {way}")
    return np.array(found, np.int64)


def _join_entries(image: Integers, entries: list[Record], path: Path) -> tuple[Integers, list[Record]]:
    """Join entries that name the same file; else the objects of each would be background for the others."""
    first: dict[str, int] = {}
    target = np.array(
        [first.setdefault(os.path.normpath(r["file_name"]), place) for place, r in enumerate(entries)], np.int64
    )
    joined = np.flatnonzero(target != np.arange(len(entries)))
    if not len(joined):
        return image, entries
    for place in joined.tolist():
        one, other = entries[target[place]], entries[place]
        with refusing("image entries that cannot be read"):
            if (one["width"], one["height"]) != (other["width"], other["height"]):
                raise ValueError(
                    f"{path}: images {one['id']!r} and {other['id']!r} name one file, {one['file_name']}, but differ "
                    "in size; correct one of them"
                )
    note(
        "images that are listed more than once",
        Effect.CORRECTED,
        (
            f"{path}: {entries[place]['file_name']} has the ids {entries[target[place]]['id']!r} and "
            f"{entries[place]['id']!r}"
            for place in joined
        ),
    )
    example = entries[joined[0]]
    log.warning(
        "%s: %d images are listed more than once, such as %s (id %r); their objects are joined under the first id",
        path,
        len(set(target[joined].tolist())),
        example["file_name"],
        entries[target[joined[0]]]["id"],
    )
    kept = np.unique(target)
    return np.searchsorted(kept, target[image]), [entries[place] for place in kept.tolist()]


def _refuse_negative(table: Annotations) -> None:
    negative = np.flatnonzero(table.areas < 0)
    if collecting():
        where = (f"{table.name(i)} has the area {table.areas[i]:g}" for i in negative.tolist())
        note("negative areas", Effect.REFUSED, where)
    elif len(negative):
        raise ValueError(
            f"{table.name(int(negative[0]))} has the area {table.areas[negative[0]]:g} ({len(negative)} are "
            "negative); correct it, or take those of masks and boxes: areas=measured"
        )


def find_images(table: Annotations, folder: Path) -> Annotations:
    """Find the image files in a folder; a back-slash in a name may separate folders.

    Returns:
        the annotations with the names of the files that are there.

    Raises:
        FileNotFoundError: the folder or an image does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images. {LAYOUT}. Set data_dir, or the path itself")
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
        raise FileNotFoundError(
            f"{folder / names[missing[0]]}: no such image ({len(missing)} of {len(names)} images of {table.source} are "
            "missing); complete the folder, or point to the right one"
        )
    return replace(table, files=Strings.pack(names))
