"""Open a dataset of one's own by its path: a COCO JSON or an image list of a VOC folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detector.data.coco import CocoDataset
from detector.data.image import ImageReader
from detector.data.voc import VocDataset


def custom(
    annotations: str | Path,
    images: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    keep_empty: bool = True,
    masks: bool = True,
    limit: int | None = None,
    reader: ImageReader | None = None,
) -> CocoDataset | VocDataset:
    """Open a COCO JSON or a VOC folder, by the name of its annotation file.

    Args:
        annotations: a COCO JSON, `*.json`; or a list of images in VOC's layout, `FOLDER/ImageSets/Main/*.txt`, or
            `FOLDER/ImageSets/Segmentation/*.txt`, which has masks.
        images: the folder of a JSON's images; None: the folder of the JSON. Ignored with a VOC folder, whose images are
            in its `JPEGImages`.
        classes: the class names of a VOC folder by label; None: all that occur in it. Ignored with a JSON.
        keep_empty, masks, limit, reader: as of `CocoDataset` and `VocDataset`.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: `annotations` is neither, or is malformed.
    """
    path = Path(annotations)
    if path.suffix == ".json":
        folder = path.parent if images is None else Path(images)
        return CocoDataset(folder, path, keep_empty=keep_empty, masks=masks, limit=limit, reader=reader)
    absolute = path.absolute()
    if path.suffix == ".txt" and absolute.parent.parent.name == "ImageSets":
        folder = absolute.parent.parent.parent
        with_masks = masks and absolute.parent.name == "Segmentation"
        sets = [(folder.name, path.stem)]
        return VocDataset(
            folder.parent, sets, classes=classes, keep_empty=keep_empty, masks=with_masks, limit=limit, reader=reader
        )
    raise ValueError(
        f"{path}: annotations must be a COCO file, *.json, or a list of a VOC folder, FOLDER/ImageSets/Main/*.txt"
    )
