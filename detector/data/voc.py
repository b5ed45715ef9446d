"""Read datasets in VOC's format: an XML per image, lists of image names, and optionally PNGs of object masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.annotations import AnnotatedDataset, Annotations, Floats
from detector.data.faults import collecting, refusing
from detector.data.image import WHOLE, ImageReader
from detector.data.packed import Strings
from detector.data.segmentations import Segmentations
from detector.data.voc_annotations import read_voc
from detector.data.voc_files import LAYOUT, VocList
from detector.data.voc_masks import check_masks, cut_masks, read_indices
from detector.run_lengths import encode
from detector.types import Masks

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's classes, in alphabetical order"""


class AnnotatedVoc(AnnotatedDataset):
    """A dataset of images beside the annotations that `read_voc` has read; masks are read from `SegmentationObject`.

    Args:
        annotations: of all images.
        root: the folder that their paths are relative to.
        masks: read masks, from `SegmentationObject` beside the folder of the XML files.
        keep_empty: keep images without objects; false for training.
        limit: use only the first `limit` of these images; None: all.
        reader: reads the images; None: one for RGB of 8 bits.

    Raises:
        FileNotFoundError: an image has no file of masks.
        ValueError: as of `AnnotatedDataset`; masks do not lie in their boxes (see `check_masks`; in sets of more than
            5,000 images only those of the first 5,000 are compared, unless faults are collected).
    """

    def __init__(
        self,
        annotations: Annotations,
        root: Path,
        *,
        masks: bool = False,
        keep_empty: bool = True,
        limit: int | None = None,
        reader: ImageReader | None = None,
    ) -> None:
        self._instances = masks
        super().__init__(annotations, root, keep_empty=keep_empty, masks=False, limit=limit, reader=reader)
        if masks:
            self._check_masks()

    @property
    def has_masks(self) -> bool:
        """Whether samples carry masks."""
        return self._instances

    def masks(self, index: int) -> Masks:
        """Read the masks of an image's objects from its PNG of object numbers."""
        table = self.annotations
        objects = slice(int(table.starts[index]), int(table.starts[index + 1]))
        instances = table.extra["instance"][objects].tolist()
        if not instances:  # tools write no PNG for these
            return Masks.from_windows([], [], table.size(index))
        masks = cut_masks(read_indices(self._mask_file(index), table.size(index)), instances)
        return replace(masks, known=(masks.windows[:, 2:] > masks.windows[:, :2]).all(1))

    def _check_masks(self) -> None:
        images = list(range(len(self) if collecting() else min(len(self), WHOLE)))
        if collecting():
            readable = []
            for image in images:
                with refusing("masks that cannot be read"):
                    self.masks(image)
                    readable.append(image)
            images = readable
        with refusing("masks outside of their boxes"):
            check_masks(
                len(images),
                lambda i: (self.masks(images[i]), self._boxes(images[i])),
                lambda i: self._mask_file(images[i]),
            )

    def _boxes(self, index: int) -> Floats:
        return self._corners[slice(*self.annotations.starts[index : index + 2])].astype(np.float64)

    def _mask_file(self, index: int) -> Path:
        source = self.stated_in(index)
        # The XML lies as deep below the folder of XML files as its path, the image's id, has folders.
        below = str(self.annotations.image_ids[index]).count("/")
        folder = source.parents[below]
        return folder.parent / "SegmentationObject" / source.relative_to(folder).with_suffix(".png")

    def complete(self) -> Annotations:
        """Return the annotations with the masks as run-length codes and their areas; they are read once."""
        return self._complete

    @cached_property
    def _complete(self) -> Annotations:
        if not self._instances:
            return self.annotations
        codes: list[str] = []
        areas: list[float] = []
        for index in range(len(self)):
            masks = self.masks(index)
            counts = [code["counts"] for code in encode(masks)]
            boxes = self.annotations.areas[slice(*self.annotations.starts[index : index + 2])].tolist()
            for i, known in enumerate(masks.known.tolist()):
                codes.append(counts[i] if known else "")
                areas.append(float(masks.window(i).sum()) if known else boxes[i])
        none = np.zeros(len(codes) + 1, np.int64)
        shapes = Segmentations(np.zeros(0), np.zeros(1, np.int64), none, Strings.pack(codes))
        return replace(self.annotations, segmentations=shapes, areas=np.array(areas, np.float64))

    def ground_truth(self) -> dict[str, Any]:
        """Return the ground truth in COCO's format; difficult objects have `difficult: 1` and `ignore: 1`, others 0.

        `area` is that of the mask if masks are read, else that of the box. Masks are read at the first call, once.
        """
        return self._ground_truth

    @cached_property
    def _ground_truth(self) -> dict[str, Any]:
        truth = self.complete().to_coco()
        for image in truth["images"]:
            image["file_name"] = Path(image["file_name"]).name
        return truth


class VocDataset(AnnotatedVoc):
    """Read one or several image sets of VOC folders; see `read_voc`.

    Args:
        root: the folder that holds the VOC folders.
        sets: pairs of a folder, or a year for `VOC<year>`, and a list in its `ImageSets`: ("2007", "trainval").
        classes: class names by label; None: all that occur in the folders' annotations, sorted.
        keep_empty: keep images without objects; false for training.
        masks: read masks from `SegmentationObject`, and the lists from `ImageSets/Segmentation`.
        limit: use only the first `limit` of these images; None: all.
        reader: reads the images; None: one for RGB of 8 bits.

    Raises:
        FileNotFoundError: a folder, list, image or annotation does not exist.
        ValueError: an annotation is malformed, an image cannot be read, or its size is not the one in its annotation
            (see `ImageReader`). The message names the file.
    """

    def __init__(
        self,
        root: str | Path,
        sets: Sequence[Sequence[str | int]],
        *,
        classes: Sequence[str] | None = CLASSES,
        keep_empty: bool = True,
        masks: bool = False,
        limit: int | None = None,
        reader: ImageReader | None = None,
    ) -> None:
        kind = "Segmentation" if masks else "Main"
        folders = [(_folder(Path(root), name), split) for name, split in _pairs(sets)]
        lists = [
            VocList(f / "Annotations", f / "JPEGImages", f / "ImageSets" / kind / f"{split}.txt")
            for f, split in folders
        ]
        table = read_voc(lists, Path(root), classes=classes)
        super().__init__(table, Path(root), masks=masks, keep_empty=keep_empty, limit=limit, reader=reader)


def _pairs(sets: Sequence[Sequence[str | int]]) -> list[tuple[str, str]]:
    if isinstance(sets, str) or not sets or any(isinstance(s, str) or len(s) != 2 for s in sets):
        raise ValueError(f'sets must be pairs of a folder or year and a list, as [["2007", "trainval"]], not {sets!r}')
    return [(str(folder), str(split)) for folder, split in sets]


def _folder(root: Path, name: str) -> Path:
    folder = root / (f"VOC{name}" if name.isdigit() else name)
    for part in (folder, folder / "JPEGImages", folder / "Annotations", folder / "ImageSets"):
        if not part.is_dir():
            raise FileNotFoundError(f"{part}: no such folder. {LAYOUT}. Set data_dir, or the path itself")
    return folder
