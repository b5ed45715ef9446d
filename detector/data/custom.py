"""Open a dataset of one's own by its path: a COCO JSON or an image list of a VOC folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detector.data.coco import CocoDataset
from detector.data.image_folder import image_folder
from detector.data.voc import VocDataset


def custom(
    annotations: str | Path,
    images: str | Path | None = None,
    *,
    shared_images: str | Path | None = None,
    shared_annotations: str | Path | None = None,
    classes: Sequence[str] | None = None,
    keep_empty: bool = True,
    masks: bool = True,
    limit: int | None = None,
) -> CocoDataset | VocDataset:
    """Open a COCO JSON or a VOC folder, by the name of its annotation file.

    Args:
        annotations: a COCO JSON, `*.json`; or a list of images in VOC's layout, `FOLDER/ImageSets/Main/*.txt`, or
            `FOLDER/ImageSets/Segmentation/*.txt`, which has masks.
        images: the folder of a JSON's images; None: the folder of the JSON, or `shared_images` (see `image_folder`).
            Ignored with a VOC folder, whose images are in its `JPEGImages`.
        shared_images: a folder of other images that may hold these, too, such as the training images; None: none.
        shared_annotations: the JSON of those other images; None: it is not known.
        classes: the class names of a VOC folder by label; None: all that occur in it. Ignored with a JSON.
        keep_empty, masks, limit: as of `CocoDataset` and `VocDataset`.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: `annotations` is neither, or is malformed, or its images could be others of the same names.
    """
    path = Path(annotations)
    if path.suffix == ".json":
        shared, others = (None if p is None else Path(p) for p in (shared_images, shared_annotations))
        folder = image_folder(path, shared, others) if images is None else Path(images)
        return CocoDataset(folder, path, keep_empty=keep_empty, masks=masks, limit=limit)
    absolute = path.absolute()
    if path.suffix == ".txt" and absolute.parent.parent.name == "ImageSets":
        folder = absolute.parent.parent.parent
        with_masks = masks and absolute.parent.name == "Segmentation"
        sets = [(folder.name, path.stem)]
        return VocDataset(folder.parent, sets, classes=classes, keep_empty=keep_empty, masks=with_masks, limit=limit)
    raise ValueError(
        f"{path}: annotations must be a COCO file, *.json, or a list of a VOC folder, FOLDER/ImageSets/Main/*.txt"
    )
