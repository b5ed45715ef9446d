"""Read the images and categories of a COCO JSON, and the ids by which its annotations refer to them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.faults import Effect, note, refusing
from detector.data.json_values import Values
from detector.data.packed import Integers

log = logging.getLogger(__name__)

Record = dict[str, Any]

LARGEST = 2**31 - 1
"""Pixels of an image at most: pycocotools counts them in 32 bits."""

DIFFER = "images {!r} and {!r} name one file, {}, but differ in size; correct one of them"

SIDES = ("width", "height")
"""Of an image, in pixels."""


def plain_id(value: Any) -> Any:
    """Return an id as an int or a text; whole floats become ints."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) or (isinstance(value, float) and value.is_integer())


def read_categories(entries: Sequence[Any], path: Path) -> list[Record]:
    """Check the categories, and sort them by their ids."""
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
    return sorted(entries, key=lambda c: int(c["id"]))


def with_distinct_names(categories: list[Record], path: Path) -> list[Record]:
    """Append their id to the names of categories that share one."""
    shared = {name for name, count in Counter(c["name"] for c in categories).items() if count > 1}
    if shared:
        log.warning("%s: several categories are called %s; their ids tell them apart", path, sorted(shared))
    return [{**c, "name": f"{c['name']} (id {c['id']})"} if c["name"] in shared else c for c in categories]


def without_parents(categories: list[Record], label: Integers, path: Path) -> tuple[list[Record], Integers]:
    """Leave out categories that are only the parent of others, as Roboflow writes one with id 0.

    One of the others may have its name.
    """
    used = set(np.flatnonzero(np.bincount(label)).tolist())
    parents = {c.get("supercategory") for c in categories if c["id"] != 0}
    kept = [
        place
        for place, c in enumerate(categories)
        if place in used or c["id"] != 0 or c["name"] not in parents or c.get("supercategory") not in (None, "", "none")
    ]
    if len(kept) == len(categories):
        return categories, label
    names = [c["name"] for place, c in enumerate(categories) if place not in kept]
    log.warning("%s: left out %s, which has no objects and is only the supercategory of others", path, names)
    return [categories[place] for place in kept], np.searchsorted(kept, label)


def read_images(entries: Sequence[Any], path: Path) -> list[Record]:
    """Check the entries of the images."""
    records: dict[Any, Record] = {}
    first: dict[str, Record] = {}
    for position, image in enumerate(entries):
        image = _with_whole_sides(image)
        fault = _image_fault(image)
        if fault is None and image["id"] in records:
            fault = f"({image['file_name']}): the id {image['id']!r} is taken by another image"
        if fault is None:
            one = first.setdefault(os.path.normpath(image["file_name"]), image)
            if any(one[side] != image[side] for side in SIDES):
                fault = f"({image['file_name']}): {DIFFER.format(one['id'], image['id'], one['file_name'])}"
        if fault is None:
            records[image["id"]] = image
        else:
            with refusing("image entries that cannot be read"):
                raise ValueError(f"{path}: images[{position}] {fault}")
    return list(records.values())


def _with_whole_sides(image: Any) -> Any:
    """Make ints of sides that are whole floats."""
    sides = {side: image.get(side) for side in SIDES} if isinstance(image, dict) else {}
    whole = {side: int(value) for side, value in sides.items() if isinstance(value, float) and value.is_integer()}
    return {**image, **whole} if whole else image


def _image_fault(image: Any) -> str | None:
    """Say what is wrong with the entry of an image."""
    if not isinstance(image, dict) or not _is_id(image.get("id")) or not isinstance(image.get("file_name"), str):
        return f"needs an `id` and a `file_name`, not {str(image)[:120]}"
    for side in SIDES:
        if type(image.get(side)) is not int or image[side] <= 0:
            return f"({image['file_name']}): `{side}` must be a positive int, not {image.get(side)!r}"
    if image["width"] * image["height"] > LARGEST:
        return (
            f"({image['file_name']}): {image['width']}x{image['height']} pixels are more than run-length codes can "
            f"count ({LARGEST}); cut the image into tiles"
        )
    return None


def resolve_ids(
    values: Sequence[Any], ids: Sequence[Hashable], name: Callable[[int], str], key: str, of: str
) -> Integers:
    """Look up which of `ids` each value is; a number may be written as a text, where that leaves no doubt."""
    quick = _find_ints(values, ids)
    if quick is not None:
        return quick
    places = {value: place for place, value in enumerate(ids)}
    found = [places.get(v) if isinstance(v, Hashable) else None for v in values]
    missing = [i for i, place in enumerate(found) if place is None]
    texts = {str(plain_id(value)): place for value, place in places.items()}
    if missing and len(texts) == len(places):
        for i in missing:
            found[i] = texts.get(str(plain_id(values[i])))
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
            if isinstance(values[i], str) and not any(isinstance(one, str) for one in ids):
                shown += ", whose ids are numbers and not texts"
            way = "the annotation or add the image" if key == "image_id" else "it, add the category or correct it"
            raise ValueError(f"{name(i)} {verb} {values[i]!r}, which is not among the {shown}; remove {way}")
    return np.array(found, np.int64)


def _find_ints(values: Sequence[Any], ids: Sequence[Hashable]) -> Integers | None:
    """Look up which of `ids` each value is; None unless all are ints and each is one of them."""
    known = Values()
    known.extend(ids)
    wanted, known_ints = values.ints() if isinstance(values, Values) else None, known.ints()
    if wanted is None or known_ints is None or not len(known):
        return None
    order = np.argsort(known_ints)
    found = order[np.searchsorted(known_ints, wanted, sorter=order).clip(max=len(known) - 1)]
    return found if bool((known_ints[found] == wanted).all()) else None
