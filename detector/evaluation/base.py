"""What the metrics share: the truth as it was annotated, and the detections collected image by image."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.masks import Paste, encode, paste
from detector.types import Objects, Size

ImageId = int | str


@dataclass(frozen=True)
class ImageDetections:
    """The detections of one image as they are written and measured; N objects, as the model ordered them."""

    boxes: NDArray[np.float64]
    """[N, 4], COCO's x, y, width, height"""
    scores: NDArray[np.float64]
    """[N]"""
    labels: NDArray[np.int64]
    """[N]"""
    masks: list[dict[str, Any]] | None
    """N run-length codes at the image's own size, or None where masks are not measured"""


State = dict[ImageId, ImageDetections]
"""What one process has seen: plain data that can be pickled."""


def _order(image: ImageId) -> tuple[bool, ImageId]:
    """Numbers before names, each ascending."""
    return isinstance(image, str), image


class Evaluator(ABC):
    """Collects the detections of a dataset's images and measures them against the truth.

    Only images given to `update` are measured, those without detections too. An image counts once however often it is
    given (the first time counts), so that padded distributed samplers change nothing; nor does the order of the images.

    Args:
        ground_truth: COCO's `images`, `annotations` and `categories`, in original pixels. An annotation may carry
            `iscrowd` and `ignore` (VOC's difficult: a detection on it counts neither for nor against the detector).
        category_ids: the dataset's category id of each label 0..C-1.
        size_bins: the sides in pixels, ascending, whose squares part small from medium and medium from large areas.
        masks: measure masks beside boxes.
        paste: how predicted masks are laid on the image.

    Raises:
        ValueError: an annotation belongs to no image, a label to no category, or the bins do not ascend.
    """

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        category_ids: Sequence[int],
        size_bins: tuple[float, float] = (32, 96),
        masks: bool = False,
        paste: Paste = paste,
    ) -> None:
        small, large = size_bins
        if not 0 < small < large:
            raise ValueError(f"size_bins must be two ascending sides in pixels, such as (32, 96), but are {size_bins}")
        names = {category["id"]: str(category["name"]) for category in ground_truth["categories"]}
        if unknown := [c for c in category_ids if c not in names]:
            raise ValueError(f"category ids {unknown} are not among the ground truth's categories {sorted(names)}")
        self.category_ids = list(category_ids)
        self.classes = [names[c] for c in category_ids]
        self.size_bins = (small, large)
        self.masks, self.paste = masks, paste
        self._images: dict[ImageId, Mapping[str, Any]] = {image["id"]: image for image in ground_truth["images"]}
        self._annotations: dict[ImageId, list[Mapping[str, Any]]] = {image: [] for image in self._images}
        for annotation in ground_truth["annotations"]:
            image = annotation["image_id"]
            if image not in self._images:
                raise ValueError(f"annotation {annotation.get('id')} belongs to image {image!r}, which does not exist")
            self._annotations[image].append(annotation)
        self._detections: State = {}

    def update(self, ids: Sequence[ImageId], detections: Sequence[Objects], sizes: Sequence[Size]) -> None:
        """Add the detections of some images.

        Args:
            ids: the dataset's own name of each image.
            detections: for each image, boxes in its original pixels, and masks over them where masks are measured.
            sizes: the original height and width of each image.

        Raises:
            ValueError: an image, label or size is not the dataset's, masks are missing, or a number is not finite.
        """
        for image, objects, size in zip(ids, detections, sizes, strict=True):
            if image not in self._images:
                raise ValueError(f"image {image!r} is not in the ground truth, which has {len(self._images)} images")
            if image not in self._detections:
                self._detections[image] = self._collect(image, objects.to("cpu"), size)

    def _collect(self, image: ImageId, objects: Objects, size: Size) -> ImageDetections:
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
        rles = self._encode(image, objects, size) if self.masks else None
        return ImageDetections(np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1), scores, labels, rles)

    def _encode(self, image: ImageId, objects: Objects, size: Size) -> list[dict[str, Any]]:
        truth = self._images[image]
        if (truth["height"], truth["width"]) != tuple(size):
            expected = f"{truth['height']}x{truth['width']}"
            raise ValueError(f"image {image!r} is {expected} in the ground truth, but its masks are for {size}")
        if objects.masks is None:
            if len(objects):
                raise ValueError(f"masks are to be measured, but the detections on image {image!r} have none")
            return []
        pairs = zip(objects.masks, objects.boxes, strict=True)
        # one at a time, as N x H x W can be large
        return [encode(self.paste(mask[None], box[None], size))[0] for mask, box in pairs]

    def state(self) -> State:
        """What this process has collected, to be given to another's `merge`."""
        return dict(self._detections)

    def merge(self, states: Sequence[State]) -> None:
        """Add what all processes have collected; this one's own state may be among it.

        Where two have the same image, the first counts, so that every process ends with the same detections.
        """
        merged: State = {}
        for state in (*states, self._detections):
            merged = {**state, **merged}
        self._detections = merged

    def reset(self) -> None:
        """Forget all detections."""
        self._detections = {}

    @property
    def images(self) -> list[ImageId]:
        """The images collected so far, in the order in which they are measured and written."""
        return sorted(self._detections, key=_order)

    @abstractmethod
    def results(self) -> dict[str, float]:
        """The metrics by name: fractions in 0..1; what there is nothing to measure by is absent."""

    def write(self, folder: str | Path) -> None:
        """Write `predictions/box.json`, and `mask.json` where masks are measured, under `folder`.

        COCO's results format: the dataset's own ids, x, y, width and height in original pixels, every digit kept.
        """
        target = Path(folder) / "predictions"
        target.mkdir(parents=True, exist_ok=True)
        for kind, key in (("box", "bbox"), ("mask", "segmentation")) if self.masks else (("box", "bbox"),):
            with (target / f"{kind}.json").open("w", encoding="utf-8") as file:
                json.dump(list(self._rows(key)), file, allow_nan=False)

    def _rows(self, key: str) -> Iterator[dict[str, Any]]:
        for image in self.images:
            found = self._detections[image]
            shapes = found.boxes.tolist() if key == "bbox" else found.masks
            for label, shape, score in zip(found.labels.tolist(), shapes or [], found.scores.tolist(), strict=True):
                yield {"image_id": image, "category_id": self.category_ids[label], key: shape, "score": score}
