"""Collect detections and ground truth for the metrics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from detector.types import Objects, Output, Size

ImageId = int | str
"""The dataset's own name of an image."""


@dataclass(frozen=True)
class ImageDetections:
    """The N detections of one image, in the model's order."""

    boxes: NDArray[np.float64]
    """[N, 4]: x, y, width, height (COCO's format), in pixels of the original image"""
    scores: NDArray[np.float64]
    """[N], in 0..1"""
    labels: NDArray[np.int64]
    """[N], in 0..C-1"""
    shapes: dict[str, list[Any]] = field(default_factory=dict)
    """by output name, such as `mask`: N encoded predictions of that head, at the original image's size"""


BOX = "box"
"""The name of the boxes among the written predictions, which no output may take."""

State = dict[ImageId, ImageDetections]
"""The detections of one process by image: plain data that can be pickled."""


def _order(image: ImageId) -> tuple[bool, ImageId]:
    """Sort numbers before names, each ascending."""
    return isinstance(image, str), image


class Collector:
    """Collect detections image by image and encode them once, for any number of metrics and for the files.

    What a metric reads (see `detector.evaluation.metric.Metric`): the attributes `classes`, `category_ids`,
    `size_bins`, `outputs` and `limit`, the property `images`, and for each of those images `image()`, `annotations()`
    and `detections()`.

    Only the images given to `update` are measured, those without detections included. An image counts once: where it is
    given again, as padded distributed samplers do, the first detections stay. The order of the images does not matter.

    Args:
        ground_truth: COCO's `images`, `annotations` and `categories`, in pixels of the original images, as
            `DetectionDataset.ground_truth` returns them. An annotation may carry `iscrowd` and `ignore` (VOC's
            difficult): detections matched to it count neither as true nor as false positives.
        category_ids: the dataset's category id of each label 0..C-1.
        size_bins: two ascending sides in pixels; objects of area up to first² are small, from second² on large, and
            medium from first² to second²: one on an edge is in both ranges, as in COCO.
        outputs: of the further heads, such as masks; written and measured beside the boxes.
        limit: the most detections that an image can have.

    Raises:
        ValueError: an annotation belongs to no image, a category id to no category, the bins do not ascend, or two
            outputs share a name.
    """

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        category_ids: Sequence[int],
        size_bins: tuple[float, float] = (32, 96),
        outputs: Sequence[Output] = (),
        limit: int = 100,
    ) -> None:
        small, large = size_bins
        if not 0 < small < large:
            raise ValueError(f"size_bins must be two ascending sides in pixels, such as (32, 96), but are {size_bins}")
        names = {category["id"]: str(category["name"]) for category in ground_truth["categories"]}
        if unknown := [c for c in category_ids if c not in names]:
            raise ValueError(f"category ids {unknown} are not among the ground truth's categories {sorted(names)}")
        taken = [BOX, *(output.name for output in outputs)]
        if repeated := sorted({name for name in taken if taken.count(name) > 1}):
            raise ValueError(f"outputs must have names of their own, but {repeated} are taken twice")
        self.category_ids = list(category_ids)
        self.classes = [names[c] for c in category_ids]
        self.size_bins = (small, large)
        self.outputs = list(outputs)
        self.limit = limit
        self._images: dict[ImageId, Mapping[str, Any]] = {image["id"]: image for image in ground_truth["images"]}
        self._annotations: dict[ImageId, list[Mapping[str, Any]]] = {image: [] for image in self._images}
        for annotation in ground_truth["annotations"]:
            image = annotation["image_id"]
            if image not in self._images:
                raise ValueError(f"annotation {annotation.get('id')} belongs to image {image!r}, which does not exist")
            self._annotations[image].append(annotation)
        self._detections: State = {}

    @property
    def images(self) -> list[ImageId]:
        """The ids of the images collected so far: numbers ascending, then names in alphabetical order."""
        return sorted(self._detections, key=_order)

    def image(self, image: ImageId) -> Mapping[str, Any]:
        """Return an image's entry in the ground truth: `id`, `height`, `width` and the dataset's own keys."""
        return self._images[image]

    def annotations(self, image: ImageId) -> Sequence[Mapping[str, Any]]:
        """Return an image's ground-truth objects: `category_id`, `bbox` and the dataset's own keys."""
        return self._annotations[image]

    def detections(self, image: ImageId) -> ImageDetections:
        """Return the detections of an image that is among `images`."""
        return self._detections[image]

    def counts(self, by_class: bool = True) -> NDArray[np.int64]:
        """Count the objects of each image, or image and class, that has some: neither crowds nor ignored ones, [N]."""
        counted = Counter(
            (image, annotation["category_id"] if by_class else None)
            for image in self._detections
            for annotation in self._annotations[image]
            if not annotation.get("iscrowd") and not annotation.get("ignore")
        )
        return np.array(list(counted.values()), dtype=np.int64)

    def output(self, key: str) -> Output | None:
        """Return the output that is written under `key`, such as `segmentation`; None if there is none."""
        return next((output for output in self.outputs if output.key == key), None)

    def update(self, ids: Sequence[ImageId], detections: Sequence[Objects], sizes: Sequence[Size]) -> None:
        """Add the detections of B images.

        Args:
            ids: the image ids.
            detections: for each image its detections; boxes in pixels of the original image.
            sizes: height and width of each original image.

        Raises:
            ValueError: an image, label or size does not fit the ground truth, a number is not finite, or an output does
                not give one shape per detection.
        """
        for image, objects, size in zip(ids, detections, sizes, strict=True):
            if image not in self._images:
                raise ValueError(f"image {image!r} is not in the ground truth, which has {len(self._images)} images")
            if image not in self._detections:
                self._detections[image] = self._encode(image, objects.to("cpu"), size)

    def _encode(self, image: ImageId, objects: Objects, size: Size) -> ImageDetections:
        boxes = objects.boxes.double().numpy()
        scores = objects.scores.double().numpy()
        labels = objects.labels.numpy()
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(
                f"the detections on image {image!r} hold NaN or infinite numbers: the model has diverged; "
                "lower the learning rate or resume from an earlier checkpoint"
            )
        if len(labels) and (labels.min() < 0 or labels.max() >= len(self.category_ids)):
            raise ValueError(f"labels on image {image!r} must be in 0..{len(self.category_ids) - 1}, but are {labels}")
        shapes = {output.name: self._shapes(output, image, objects, size) for output in self.outputs}
        return ImageDetections(np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1), scores, labels, shapes)

    def _shapes(self, output: Output, image: ImageId, objects: Objects, size: Size) -> list[Any]:
        known = self._images[image]
        if (known["height"], known["width"]) != tuple(size):
            expected = f"{known['height']}x{known['width']}"
            raise ValueError(
                f"image {image!r} is {expected} in the ground truth, but its {output.name} predictions are for {size}"
            )
        if not len(objects):
            return []
        try:
            shapes = output(objects, size)
        except ValueError as error:
            raise ValueError(f"image {image!r}: {error}") from error
        if len(shapes) != len(objects):
            raise ValueError(f"output {output.name!r} gives {len(shapes)} shapes for {len(objects)} detections")
        return shapes

    def state(self) -> State:
        """Return this process's detections, for another's `merge`."""
        return dict(self._detections)

    def merge(self, states: Sequence[State]) -> None:
        """Merge the detections of all processes; this process's own state may be among them.

        If several states have an image, the first one's detections stay, so that all processes end with the same.
        """
        merged: State = {}
        for state in (*states, self._detections):
            merged = {**state, **merged}
        self._detections = merged

    def reset(self) -> None:
        """Drop all detections."""
        self._detections = {}

    def write(self, folder: str | Path) -> None:
        """Write `predictions/box.json`, and `predictions/<name>.json` for each output, under `folder`.

        COCO's results format: the dataset's own ids; x, y, width and height in pixels of the original image, every
        digit kept.
        """
        target = Path(folder) / "predictions"
        target.mkdir(parents=True, exist_ok=True)
        for name, key in self.written():
            with (target / f"{name}.json").open("w", encoding="utf-8") as file:
                write_list(file, self.rows(name, key))

    def written(self) -> list[tuple[str, str]]:
        """List the name of each file of predictions and the key of the shape in its rows."""
        return [(BOX, "bbox"), *((output.name, output.key) for output in self.outputs)]

    def rows(self, name: str, key: str) -> Iterator[dict[str, Any]]:
        """Return the detections in COCO's results format, one by one; the arguments are a pair of `written`."""
        for image in self.images:
            found = self._detections[image]
            shapes = found.boxes.tolist() if name == BOX else found.shapes[name]
            for label, shape, score in zip(found.labels.tolist(), shapes, found.scores.tolist(), strict=True):
                yield {"image_id": image, "category_id": self.category_ids[label], key: shape, "score": score}


def write_list(file: TextIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON list row by row, so that its text is never held as a whole."""
    file.write("[")
    for number, row in enumerate(rows):
        file.write((", " if number else "") + json.dumps(row, allow_nan=False))
    file.write("]")
