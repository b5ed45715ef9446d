"""Clean annotations of what training would refuse, skip or cut."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.annotations import Annotations
from detector.data.coco_entries import plain_id, read_images
from detector.data.faults import collect
from detector.data.json_stream import uncollected

LISTS = ("images", "annotations", "categories")

NOTHING: dict[str, Any] = {}

READ = ("id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd", "difficult", "ignore")
"""Keys of annotations that are read, and written as they were understood."""


def cleaned(table: Annotations, unusable: Collection[int]) -> Annotations:
    """Return annotations as training would use them: without some images, boxes cut, impossible areas left out.

    Args:
        table: as it is read, without the entries that cannot be read and the boxes that are skipped.
        unusable: numbers of images that cannot be used.
    """
    kept = table.select(np.setdiff1d(np.arange(len(table)), list(unusable)))
    x1, y1, x2, y2 = kept.corners().T
    return replace(
        kept,
        boxes=np.stack((x1, y1, x2 - x1, y2 - y1), 1),
        areas=np.where(kept.areas < 0, np.nan, kept.areas),
    )


def to_coco(table: Annotations) -> dict[str, Any]:
    """Write annotations as `Annotations.to_coco` does, with all else that their JSONs say.

    The files are read again for it: keys beside the three lists are those of the first file that has them; images and
    annotations keep the keys that no reader knows, such as `license` and `attributes`.

    Args:
        table: of one JSON or several, with the column `place` in `extra`; others are written without further keys.
    """
    written = table.to_coco()
    if "place" not in table.extra:
        return written
    sources = list(table.sources) if table.sources is not None else [str(table.source)] * len(table)
    images, objects = dict[str, dict[str, dict[str, Any]]](), dict[str, list[dict[str, Any]]]()
    others: dict[str, Any] = {}
    for source in dict.fromkeys(sources):
        with uncollected():
            content = _read(Path(source))
            images[source] = _images(content["images"], Path(source))
            objects[source] = [_unread(entry) for entry in content["annotations"]]
        others = {key: value for key, value in content.items() if key not in LISTS} | others
        del content
    for entry, source in zip(written["images"], sources, strict=True):
        number = str(entry["id"])
        # As `arrange.join` names images whose ids occur in several files.
        known = [number.removeprefix(prefix) for prefix in ("", f"{Path(source).stem}:", f"{source}:")]
        for key, value in next(images[source][key] for key in known if key in images[source]).items():
            entry.setdefault(key, value)
    owners = table.images()
    numbers = {int(number): i for i, number in enumerate(table.ids)}
    original: Mapping[str, Any] = {}
    for annotation in written["annotations"]:
        i = numbers.get(annotation["id"])  # copies of an ignored object follow on it
        if i is not None:
            original = objects[sources[owners[i]]][int(table.extra["place"][i])]
        for key, value in original.items():
            annotation.setdefault(key, value)
    return others | written


def _unread(entry: Any) -> dict[str, Any]:
    """Return what no reader knows of an annotation; nothing, most often, which all then share."""
    found = {key: value for key, value in entry.items() if key not in READ} if isinstance(entry, dict) else None
    return found or NOTHING


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def _images(entries: list[Any], path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of the images that can be read, by their ids."""
    with collect():
        return {str(plain_id(entry["id"])): entry for entry in read_images(entries, path)}
