"""Open a dataset of one's own by its path: COCO's JSON, VOC's XML or YOLO's text files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import AnnotatedDataset
from detector.data.arrange import ClassChoice, Others, choose_classes, split_images
from detector.data.check.pictures import Picture, read_pictures, similar_groups
from detector.data.coco import Areas, Crowds
from detector.data.faults import collecting
from detector.data.image import WHOLE, ImageReader
from detector.data.image_folder import Folders
from detector.data.sources import Options, open_sources
from detector.data.voc import AnnotatedVoc
from detector.data.voc_origin import Origin
from detector.data.yolo_files import is_yolo, names_splits

log = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]


def custom(
    annotations: Paths | None = None,
    images: str | Path | None = None,
    *,
    shared_images: str | Path | None = None,
    shared_annotations: Paths | None = None,
    part: Literal["train", "val"] = "train",
    whole: Paths | None = None,
    split: Sequence[float] | None = None,
    val_share: float | None = None,
    split_seed: int = 0,
    classes: ClassChoice | None = None,
    others: Others = "background",
    areas: Areas = "stated",
    crowds: Crowds = "regions",
    voc_origin: Origin = 1,
    unannotated: Literal["error", "empty"] = "error",
    keep_empty: bool = True,
    masks: bool = True,
    limit: int | None = None,
    reader: ImageReader | None = None,
) -> AnnotatedDataset:
    """Open annotations by the name of their file, and split, choose and join what they hold.

    Args:
        annotations: a COCO JSON, `*.json`; a list of images of a VOC folder, `FOLDER/ImageSets/Main/*.txt`, or
            `FOLDER/ImageSets/Segmentation/*.txt`, which has masks; a folder of XML files, beside or below which the
            images lie; or YOLO's `data.yaml`, of whose splits `part` is read. Several files of one of the first three
            kinds are joined. None: a part of `whole`.
        images: the folder of the images; None: that of each JSON, or `shared_images` (see `Folders`); beside the XML
            files. Not with YOLO's `data.yaml`, unless a part of its training images is held out.
        shared_images: a folder of other images that may hold these, too, such as the training images; None: none.
        shared_annotations: the JSONs of those other images; None: `whole`.
        part: `train` or `val`, the part of `whole`.
        whole: annotations, as above, of images that are split into parts (see `detector.data.arrange.split_images`).
        split: the shares of the parts train, val and perhaps others that are left alone, such as [0.8, 0.2]. Images
            that look the same stay together, in sets of up to `WHOLE` images.
        val_share: in place of `split`: the share of the part val.
        split_seed: of the random split.
        classes, others: as of `choose_classes`; None: all classes that occur.
        areas, crowds: of a JSON, as of `read_coco`.
        voc_origin, unannotated: of XML files, as of `read_voc`.
        keep_empty, masks, limit, reader: as of `AnnotatedDataset`.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the annotations are missing, neither of these, or malformed, or their images could be others of the
            same names.
    """
    shares = _shares(split, val_share)
    given = whole if annotations is None else annotations
    paths = [] if given is None else _paths(given)
    own_splits = len(paths) == 1 and is_yolo(paths[0]) and names_splits(paths[0])
    if annotations is None and shares is None and not own_splits:
        raise ValueError(_missing(part, whole))
    if annotations is not None and shares is not None and whole is None and part == "train":
        raise ValueError(
            "dataset.val_share and dataset.split divide the images of dataset.annotations=FILE; give that key in place "
            "of dataset.train.annotations"
        )
    if annotations is not None and shares is not None and part == "val":
        log.info("%s is read whole; val_share and split hold out images of dataset.annotations only", paths[0])
    own_splits = own_splits and shares is None
    if own_splits and (images is not None or shared_images is not None):
        raise ValueError(
            f"{paths[0]} names the images of both splits; leave out dataset.images and dataset.train.images, or hold "
            "out a part of its training images, dataset.val_share=0.2"
        )
    if annotations is None and images is None:
        images = shared_images  # the parts of one file have one folder
    given_folder, shared_folder = (None if p is None else Path(p) for p in (images, shared_images))
    folders = Folders(given_folder, shared_folder, _paths(shared_annotations or whole or []))
    own = part if annotations is not None or shares is None else "train"
    options = Options(areas, crowds, voc_origin, unannotated, own, reader)
    table, folder, instances = open_sources(paths, folders, options)
    absent = instances is not None
    table = table if classes is None else choose_classes(table, classes, others, absent=absent)
    if annotations is None and shares is not None:
        groups = _similar(tuple(str(folder / name) for name in table.files), reader or ImageReader())
        table = table.select(split_images(table, shares, split_seed, groups)[("train", "val").index(part)])
    if instances is None:
        return AnnotatedDataset(table, folder, keep_empty=keep_empty, masks=masks, limit=limit, reader=reader)
    masks = masks and instances
    return AnnotatedVoc(table, folder, keep_empty=keep_empty, masks=masks, limit=limit, reader=reader)


@cache
def _similar(files: tuple[str, ...], reader: ImageReader) -> NDArray[np.int64] | None:
    """Group images that look the same; None in a set that is too large to read it for this. The result is kept."""
    if len(files) > WHOLE:
        log.warning(
            "%d images are more than %d, and are split without looking for equal ones, which may then be in both "
            "parts: scripts/data.py check finds them",
            len(files),
            WHOLE,
        )
        return None
    found = read_pictures(lambda i: reader.read(Path(files[i])), len(files), lambda: None)
    pictures = [picture for picture in found if isinstance(picture, Picture)]
    if len(pictures) == len(found):
        return similar_groups(pictures)
    if not collecting():
        raise next(error for error in found if not isinstance(error, Picture))
    return None  # whoever collects the faults is told of each image later


def _shares(split: Sequence[float] | None, val_share: float | None) -> list[float] | None:
    if val_share is None:
        return None if split is None else list(split)
    if split is not None:
        raise ValueError(f"dataset.val_share={val_share} and dataset.split={list(split)}: give one of them")
    if not isinstance(val_share, int | float) or not 0 < val_share < 1:
        raise ValueError(f"dataset.val_share must be a share above 0 and below 1, such as 0.2, not {val_share!r}")
    return [1 - val_share, val_share]


def _missing(part: str, whole: Paths | None) -> str:
    if whole is not None:
        return (
            f"dataset.annotations={whole}: say which share of its images is held out for validation, "
            "dataset.val_share=0.2; or give two files, dataset.train.annotations and dataset.val.annotations"
        )
    return (
        f"give dataset.{part}.annotations=..., a COCO JSON, a list of a VOC folder (FOLDER/ImageSets/Main/NAME.txt) or "
        "a folder of XML files; or, if there is one file for all images, dataset.annotations=FILE dataset.val_share=0.2"
    )


def _paths(annotations: Paths) -> list[Path]:
    return [Path(p) for p in ([annotations] if isinstance(annotations, str | Path) else annotations)]
