"""The annotations of a dataset as arrays, and the dataset that reads its images beside them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.faults import collecting
from detector.data.image import ImageReader
from detector.data.packed import Ids, Integers, Strings, rows, starts_of
from detector.data.segmentations import Segmentations
from detector.run_lengths import decode, from_segmentation
from detector.types import Masks, Sample, Size, Target

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Annotations:
    """The annotations of N images and their M objects, which are in the order of the images.

    They are arrays, so that a million objects take some hundred MiB, which loader processes share.
    """

    source: Path
    """the file or folder that they were read from, for messages"""
    classes: list[str]
    """names, by label"""
    category_ids: list[int]
    """the dataset's own category ids, by label"""
    image_ids: Ids
    files: Strings
    """paths of the images, relative to their folder"""
    sizes: NDArray[np.int32]
    """height and width of each image, [N, 2]"""
    starts: Integers
    """where the objects of each image begin, [N + 1]"""
    ids: Integers
    """of the objects, [M]"""
    labels: NDArray[np.int32]
    """-1: of another class, whose objects are ignored; such objects are crowds, too"""
    boxes: Floats
    """x, y, width, height of each object, in pixels, as in the file, [M, 4]"""
    areas: Floats
    """in px², as in the file; NaN: not given"""
    crowd: Flags
    difficult: Flags
    """VOC's flag: ignored at evaluation"""
    segmentations: Segmentations | None = None
    """None: the file has none, or they were not asked for"""
    categories: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """the file's entries of the categories, by label, with at least `id` and `name`"""
    sources: Strings | None = None
    """the file that describes each image, [N]; None: all are in `source`"""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """further columns of the objects, by name, [M, ...]"""
    gathered: bool = False
    """whether the classes are those of the objects, since the files have no list of them"""

    def __len__(self) -> int:
        return len(self.image_ids)

    def size(self, image: int) -> Size:
        """Return height and width of an image."""
        height, width = self.sizes[image].tolist()
        return height, width

    def objects(self, image: int) -> range:
        """Return the numbers of an image's objects."""
        return range(int(self.starts[image]), int(self.starts[image + 1]))

    def images(self) -> Integers:
        """Return the image of each object, by number, [M]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def counts(self, objects: Flags) -> Integers:
        """Count the selected objects, bool [M], of each image, [N]."""
        return np.bincount(self.images()[objects], minlength=len(self))

    def select(self, images: Integers) -> Annotations:
        """Select images by their numbers, with their objects."""
        objects, starts = rows(self.starts, images)
        chosen = self._objects(objects)
        return replace(
            chosen,
            image_ids=self.image_ids.select(images),
            files=self.files.select(images),
            sizes=self.sizes[images],
            starts=starts,
            sources=None if self.sources is None else self.sources.select(images),
        )

    def select_objects(self, keep: Flags) -> Annotations:
        """Select objects, bool [M]; all images stay."""
        return replace(self._objects(np.flatnonzero(keep)), starts=starts_of(self.counts(keep)))

    def order_objects(self, order: Integers, starts: Integers) -> Annotations:
        """Put the objects in another order, [M], in which those of each image begin at `starts`, [N + 1]."""
        return replace(self._objects(order), starts=starts)

    def _objects(self, keep: Integers) -> Annotations:
        return replace(
            self,
            ids=self.ids[keep],
            labels=self.labels[keep],
            boxes=self.boxes[keep],
            areas=self.areas[keep],
            crowd=self.crowd[keep],
            difficult=self.difficult[keep],
            segmentations=None if self.segmentations is None else self.segmentations.select(keep),
            extra={name: column[keep] for name, column in self.extra.items()},
        )

    def corners(self) -> Floats:
        """Return x1, y1, x2, y2 of each object, clipped to its image, [M, 4]."""
        height, width = self.sizes[self.images()].T.astype(np.float64)
        x, y, w, h = self.boxes.T
        return np.stack(
            (np.maximum(x, 0.0), np.maximum(y, 0.0), np.minimum(x + w, width), np.minimum(y + h, height)), 1
        )

    def name(self, index: int) -> str:
        """Name an object for messages, one of several JSONs with its image, too."""
        if self.sources is None:
            return f"{self.source}: annotation {int(self.ids[index])}"
        image = self.image_of(index)
        if "annotation" in self.extra:
            return f"{self.sources[image]}: annotation {int(self.extra['annotation'][index])} of {self.files[image]}"
        if "line" in self.extra:
            return f"{self.sources[image]}:{int(self.extra['line'][index])}"
        known = self.extra.get("instance")  # counts the file's objects that are left out, too
        number = index - int(self.starts[image]) + 1 if known is None else int(known[index])
        return f"{self.sources[image]}: object {number}"

    def image_of(self, index: int) -> int:
        """Return the image of an object, by number."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def describe(self, index: int) -> str:
        """Name an object for messages, with its class, image and box."""
        box = [round(float(v), 2) for v in self.boxes[index]]
        image = "" if "annotation" in self.extra else f" in {self.files[self.image_of(index)]}"
        name = "other" if self.labels[index] < 0 else self.classes[self.labels[index]]
        return f"{self.name(index)}, {name} {box}{image}"

    def to_coco(self) -> dict[str, Any]:
        """Write them as COCO's `images`, `annotations` and `categories`.

        Difficult objects have `ignore: 1`, too, and those of VOC all its flags. Objects of other classes, which are
        ignored, are a crowd of each class; all but the first of these have new ids.
        """
        images = [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, name, (height, width) in zip(self.image_ids, self.files, self.sizes.tolist(), strict=True)
        ]
        annotations: list[dict[str, Any]] = []
        copies = itertools.count(int(self.ids.max(initial=0)) + 1)
        for image in range(len(self)):
            number, size = images[image]["id"], self.size(image)
            for i in self.objects(image):
                annotation: dict[str, Any] = {
                    "id": int(self.ids[i]),
                    "image_id": number,
                    "category_id": self.category_ids[max(self.labels[i], 0)],
                    "bbox": self.boxes[i].tolist(),
                    "iscrowd": int(self.crowd[i]),
                }
                if not np.isnan(self.areas[i]):
                    annotation["area"] = float(self.areas[i])
                if "truncated" in self.extra:  # VOC's flags
                    flags = int(self.difficult[i]), int(self.extra["truncated"][i])
                    annotation |= {"difficult": flags[0], "truncated": flags[1], "ignore": flags[0]}
                elif self.difficult[i]:
                    annotation |= {"difficult": 1, "ignore": 1}
                shape = None if self.segmentations is None else self.segmentations.get(i, size)
                if shape is not None:
                    annotation["segmentation"] = shape
                others = self.category_ids[1:] if self.labels[i] < 0 else []
                annotations.append(annotation)
                annotations += [{**annotation, "id": next(copies), "category_id": c} for c in others]
        return {"images": images, "annotations": annotations, "categories": list(self.categories)}


class AnnotatedDataset:
    """A dataset of images beside their `Annotations`.

    Args:
        annotations: of all images.
        images: the folder that their paths are relative to.
        keep_empty: keep images without objects, or with crowds only; false for training.
        masks: decode the masks, if any object has one; those of others are unknown (`Masks.known`), and the number of
            these is logged.
        limit: use only the first `limit` of these images; None: all.
        reader: reads the images; None: one for RGB of 8 bits.

    Raises:
        ValueError: no image is left; one cannot be read, or has another size than its annotations state (see
            `ImageReader`). The message names the file.
    """

    def __init__(
        self,
        annotations: Annotations,
        images: Path,
        *,
        keep_empty: bool = True,
        masks: bool = True,
        limit: int | None = None,
        reader: ImageReader | None = None,
    ) -> None:
        self.reader = ImageReader() if reader is None else reader
        trainable = annotations.counts(~annotations.crowd) > 0
        if limit is not None and limit < 1:
            raise ValueError(f"{annotations.source}: limit={limit}: give at least 1, or null for all images")
        kept = np.flatnonzero(trainable | keep_empty)[:limit]
        if not len(kept):
            kind = "image" if keep_empty else "image with an object to train on"
            raise ValueError(
                f"{annotations.source}: holds no {kind}; check that it is the annotation file of the right split"
            )
        whole = len(kept) == len(annotations)
        self.annotations = annotations if whole else annotations.select(kept)
        self.images = images
        self.left_out = len(annotations) - len(kept)
        """Images without objects or beyond the limit."""
        known = None if self.annotations.segmentations is None else self.annotations.segmentations.known
        self._masks = masks and known is not None and bool(known.any())
        if self._masks and known is not None and not known.all():
            log.warning(
                "%s: %d of %d objects have no segmentation: they count as boxes, not in the mask loss and in mask AP",
                self.annotations.source,
                int((~known).sum()),
                len(known),
            )
        self._corners = self.annotations.corners().astype(np.float32)
        if not collecting():  # else whoever collects reads each image
            self.reader.check([(self.file(i), self.annotations.size(i), self.stated_in(i)) for i in range(len(self))])

    def __len__(self) -> int:
        return len(self.annotations)

    def file(self, index: int) -> Path:
        """Return the path of an image."""
        return self.images / self.annotations.files[index]

    def stated_in(self, index: int) -> Path:
        """Return the file that states an image's size."""
        sources = self.annotations.sources
        return self.annotations.source if sources is None else Path(sources[index])

    def __getitem__(self, index: int) -> Sample:
        table = self.annotations
        image, size = self.image(index), table.size(index)
        objects = slice(int(table.starts[index]), int(table.starts[index + 1]))
        target = Target(
            boxes=torch.from_numpy(self._corners[objects].copy()),
            labels=torch.from_numpy(table.labels[objects].astype(np.int64)),
            crowd=torch.from_numpy(table.crowd[objects].copy()),
            difficult=torch.from_numpy(table.difficult[objects].copy()),
            masks=self.masks(index) if self.has_masks else None,
        )
        return Sample(image, target, table.image_ids[index], size)

    def image(self, index: int) -> Tensor:
        """Read an image, [D, H, W]; see `ImageReader`.

        Raises:
            FileNotFoundError, ValueError: as of `ImageReader.read`.
        """
        return self.reader.read(self.file(index), self.annotations.size(index), self.stated_in(index))

    def masks(self, index: int) -> Masks:
        """Decode the masks of an image's objects."""
        table, size = self.annotations, self.annotations.size(index)
        assert table.segmentations is not None
        objects = table.objects(index)
        shapes = [table.segmentations.get(i, size) for i in objects]
        empty = {"size": list(size), "counts": [size[0] * size[1]]}  # takes the place of an unknown mask
        codes = [from_segmentation(empty if shape is None else shape, size) for shape in shapes]
        masks = decode(codes, size, [table.name(i) for i in objects])
        return replace(masks, known=torch.tensor([shape is not None for shape in shapes], dtype=torch.bool))

    def complete(self) -> Annotations:
        """Return the annotations with all segmentations, wherever masks are read from."""
        return self.annotations

    @property
    def classes(self) -> list[str]:
        """Names, by label."""
        return self.annotations.classes

    @property
    def category_ids(self) -> list[int]:
        """The dataset's own category ids, by label."""
        return self.annotations.category_ids

    @property
    def gathers_classes(self) -> bool:
        """Whether `classes` are those of the objects, since the files have no list of them."""
        return self.annotations.gathered

    @property
    def has_masks(self) -> bool:
        """Whether samples carry masks."""
        return self._masks

    def ground_truth(self) -> dict[str, Any]:
        """Return `Annotations.to_coco`: what the file says about these images, without the skipped objects."""
        return self.annotations.to_coco()
