"""Open a dataset of one's own by its path: COCO JSONs or an image list of a VOC folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from detector.data.annotations import AnnotatedDataset, Annotations
from detector.data.arrange import ClassChoice, Others, choose_classes, join, split_images
from detector.data.coco import Areas, Crowds, find_images, read_coco
from detector.data.image import ImageReader
from detector.data.image_folder import Folders
from detector.data.packed import Strings
from detector.data.voc import VocDataset

Paths = str | Path | Sequence[str | Path]

KINDS = "annotations must be a COCO file, *.json, or a list of a VOC folder, FOLDER/ImageSets/Main/*.txt"


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
    keep_empty: bool = True,
    masks: bool = True,
    limit: int | None = None,
    reader: ImageReader | None = None,
) -> AnnotatedDataset | VocDataset:
    """Open COCO JSONs or a VOC folder, by the name of the annotation file.

    Args:
        annotations: a COCO JSON, `*.json`, or several, which are joined; or a list of images in VOC's layout,
            `FOLDER/ImageSets/Main/*.txt`, or `FOLDER/ImageSets/Segmentation/*.txt`, which has masks. None: a part of
            `whole`.
        images: the folder of the JSONs' images; None: that of each JSON, or `shared_images` (see `image_folder`).
            Ignored with a VOC folder, whose images are in its `JPEGImages`.
        shared_images: a folder of other images that may hold these, too, such as the training images; None: none.
        shared_annotations: the JSONs of those other images; None: they are not known.
        part: `train` or `val`, the part of `whole`.
        whole: annotations, as above, of images that are split into parts (see `detector.data.arrange.split_images`).
        split: the shares of the parts train, val and perhaps others that are left alone, such as [0.8, 0.2].
        val_share: in place of `split`: the share of the part val.
        split_seed: of the random split.
        classes, others: as of `choose_classes`; None: all classes that occur.
        areas, crowds: as of `read_coco`.
        keep_empty, masks, limit, reader: as of `AnnotatedDataset`.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the annotations are missing, neither of these, or malformed, or their images could be others of the
            same names.
    """
    shares = _shares(split, val_share)
    given = whole if annotations is None else annotations
    if given is None or (annotations is None and shares is None):
        raise ValueError(_missing(part, whole))
    if annotations is not None and shares is not None and whole is None and part == "train":
        raise ValueError(
            "dataset.val_share and dataset.split divide the images of dataset.annotations=FILE; give that key in place "
            "of dataset.train.annotations"
        )
    paths = _paths(given)
    if not paths:
        raise ValueError("annotations is an empty list; give at least one file")
    if len(paths) == 1 and paths[0].suffix == ".txt":
        return _voc(paths[0], classes, masks, keep_empty=keep_empty, limit=limit, reader=reader)
    if images is None and annotations is None:
        images = shared_images  # the parts of one file have one folder
    given_folder, shared_folder = (None if p is None else Path(p) for p in (images, shared_images))
    folders = Folders(given_folder, shared_folder, _paths(shared_annotations or []))
    table, folder = _read(paths, folders, areas, crowds)
    table = table if classes is None else choose_classes(table, classes, others)
    if annotations is None and shares is not None:
        table = table.select(split_images(table, shares, split_seed)[("train", "val").index(part)])
    return AnnotatedDataset(table, folder, keep_empty=keep_empty, masks=masks, limit=limit, reader=reader)


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
        f"dataset.{part}.annotations is not given: a COCO JSON, or a list of a VOC folder "
        "(FOLDER/ImageSets/Main/NAME.txt). If there is one file for all images: dataset.annotations=FILE "
        "dataset.val_share=0.2"
    )


def _paths(annotations: Paths) -> list[Path]:
    return [Path(p) for p in ([annotations] if isinstance(annotations, str | Path) else annotations)]


def _read(paths: Sequence[Path], folders: Folders, areas: Areas, crowds: Crowds) -> tuple[Annotations, Path]:
    """Read JSONs and find their images, whose paths are relative to the folder that is returned."""
    tables = []
    for path in paths:
        if path.suffix != ".json":
            only = "; only COCO files can be joined" if len(paths) > 1 else ""
            raise ValueError(f"{path}: {KINDS}{only}")
        table = read_coco(path, areas=areas, crowds=crowds)
        folder = folders.of(path, list(table.files))
        table = find_images(table, folder)
        if len(paths) > 1:
            table = replace(table, files=Strings.pack(os.path.abspath(folder / name) for name in table.files))
        tables.append(table)
    return join(tables), folder


def _voc(path: Path, classes: ClassChoice | None, masks: bool, **options: Any) -> VocDataset:
    absolute = path.absolute()
    if absolute.parent.parent.name != "ImageSets":
        raise ValueError(f"{path}: {KINDS}")
    names = None if classes is None else [str(name) for name in classes]
    folder = absolute.parent.parent.parent
    with_masks = masks and absolute.parent.name == "Segmentation"
    return VocDataset(folder.parent, [(folder.name, path.stem)], classes=names, masks=with_masks, **options)
