"""Any dataset by its path: a COCO JSON or an image set of a VOC folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detector.data.coco import CocoDataset
from detector.data.voc import VocDataset


def custom(
    annotations: str | Path,
    images: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    keep_empty: bool = True,
    masks: bool = True,
    limit: int | None = None,
) -> CocoDataset | VocDataset:
    """Open the dataset that `annotations` leads to.

    Args:
        annotations: a COCO JSON, `*.json`; or a list of images in VOC's layout, `FOLDER/ImageSets/Main/*.txt`, or
            `FOLDER/ImageSets/Segmentation/*.txt`, which has masks.
        images: the folder of images for a JSON; None is the JSON's own folder. Not used with a VOC folder, which has
            its `JPEGImages`.
        classes: names by label for a VOC folder; None takes those that occur in it. Not used with a JSON.
        keep_empty: keep images without objects to learn from.
        masks: read the masks, where there are any.
        limit: take only the first so many of the images.

    Raises:
        FileNotFoundError: a file that does not exist.
        ValueError: `annotations` is neither, or is malformed.
    """
    path = Path(annotations)
    if path.suffix == ".json":
        folder = path.parent if images is None else Path(images)
        return CocoDataset(folder, path, keep_empty=keep_empty, masks=masks, limit=limit)
    absolute = path.absolute()
    if path.suffix == ".txt" and absolute.parent.parent.name == "ImageSets":
        folder = absolute.parent.parent.parent
        wanted = masks and absolute.parent.name == "Segmentation"
        sets = [(folder.name, path.stem)]
        return VocDataset(folder.parent, sets, classes=classes, keep_empty=keep_empty, masks=wanted, limit=limit)
    raise ValueError(
        f"{path}: annotations must be a COCO file, *.json, or a list of a VOC folder, FOLDER/ImageSets/Main/*.txt"
    )
