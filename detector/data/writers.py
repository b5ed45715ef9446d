"""Write annotations and their images as datasets of other formats: COCO here, VOC and YOLO beside."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detector.data.annotations import Annotations
from detector.data.check.clean import to_coco
from detector.data.doubts import mask_and_box_areas
from detector.data.image import ImageReader

Placing = Literal["copy", "link", "none"]


@dataclass(frozen=True)
class Split:
    """A part of a dataset, such as `train`, that is to be written."""

    name: str
    annotations: Annotations
    images: Path
    """the folder that the paths of the images are relative to"""
    reader: ImageReader = field(default_factory=ImageReader)
    """reads the images"""


def write_coco(splits: Sequence[Split], folder: Path, placing: Placing = "copy") -> list[str]:
    """Write `annotations/instances_NAME.json` for each split, and its images under `NAME/`.

    Ids of images that are not numbers are numbered anew; areas that are not given are those of masks or boxes. What
    else COCO's JSONs say of images and objects is kept, and VOC's flags are keys of the objects.

    Args:
        splits: the parts of the dataset.
        folder: where they are written; it must not exist, or be empty.
        placing: of the images: "copy", symbolic "link", or "none".

    Returns:
        no sentence: the format holds all that is read.

    Raises:
        FileExistsError: there are files in the folder.
    """
    names = file_names(splits)
    with new_folder(folder) as place:
        (place / "annotations").mkdir()
        for split in splits:
            document = coco_document(split.annotations, names[split.name])
            path = place / "annotations" / f"instances_{split.name}.json"
            path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
            place_images(split, place / split.name, names[split.name], placing)
    return []


def coco_document(table: Annotations, names: Sequence[str]) -> dict[str, Any]:
    """Return annotations as the content of a COCO JSON, with numbers as ids of images, and areas.

    Args:
        table: the annotations.
        names: of the images, written as `file_name`.
    """
    areas = np.where(np.isnan(table.areas), mask_and_box_areas(table), table.areas)
    document = to_coco(replace(table, areas=areas))
    if not all(isinstance(number, int) for number in table.image_ids):
        numbers = {number: i for i, number in enumerate(table.image_ids, 1)}
        for entry in document["annotations"]:
            entry["image_id"] = numbers[entry["image_id"]]
        for image in document["images"]:
            image["id"] = numbers[image["id"]]
    for image, name in zip(document["images"], names, strict=True):
        image["file_name"] = name
    return document


def file_names(splits: Sequence[Split]) -> dict[str, list[str]]:
    """Choose names without folders for the images of all splits, which differ also without their suffix.

    They are the images' own where these differ, else the folders, and where needed the split, are put before them.

    Raises:
        ValueError: one image is in a split twice.
    """
    paths = [(split.name, *os.path.splitext(name)) for split in splits for name in split.annotations.files]
    flat = [stem.lstrip("./").replace("/", "_") for _, stem, _ in paths]
    schemes = (
        [os.path.basename(stem) for _, stem, _ in paths],
        flat,
        [f"{split}_{stem}" for (split, _, _), stem in zip(paths, flat, strict=True)],
        [f"{split}_{stem}_{end[1:]}" for (split, _, end), stem in zip(paths, flat, strict=True)],
    )
    stems = next((stems for stems in schemes if len(set(stems)) == len(stems)), None)
    if stems is None:
        raise ValueError("an image is listed twice in one split; its copies cannot be told apart")
    names = iter([stem + end for stem, (_, _, end) in zip(stems, paths, strict=True)])
    return {split.name: [next(names) for _ in range(len(split.annotations))] for split in splits}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `folder` at the end of the block, complete; after an error it is removed.

    Raises:
        FileExistsError: there are files in the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: there are files already, and nothing is overwritten; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield place
        place.chmod(0o777 & ~_umask())
        place.rename(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _umask() -> int:
    """Return the process's mask of permissions, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def place_images(split: Split, folder: Path, names: Sequence[str], placing: Placing) -> None:
    """Copy or link the images of a split into a folder, under the given names."""
    if placing == "none":
        return
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in zip(split.annotations.files, names, strict=True):
        if placing == "copy":
            shutil.copyfile(split.images / source, folder / name)
        else:
            (folder / name).symlink_to(os.path.abspath(split.images / source))
