"""Augment samples with albumentations, which no other file imports.

An `Augment` depends on the sample and the seed alone, not on the worker or on the samples before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.data.remap import AxisMaps, move_pixels
from detector.types import Masks, Sample, Size

# Otherwise the import looks for a newer version over the network, and warns without one.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2

ROUNDING = 1e-3
"""A box side up to this, in pixels, is a rounding error: the box ends where the crop begins."""


class Augment:
    """Crop, flip, rotate, jitter the colours of and resize a sample, in this order; without arguments a no-op.

    Boxes are transformed as continuous coordinates, without rounding, and clipped to the crop; objects and proposals
    outside the crop are dropped. `original_size` stays the size of the file. What `target.extra` holds is selected with
    its objects, but not transformed: data with positions, such as keypoints, need an augmentation of their own.

    Args:
        short_sizes: the shorter side is resized to one of these, drawn at random, in pixels; None keeps the size.
        max_size: but the longer side to at most this (Detectron2's `ResizeShortestEdge`); None: no limit.
        scale: [low, high], the range of a further random scale factor, which `max_size` does not limit.
        horizontal_flip: probability.
        vertical_flip: probability.
        quarter_turns: rotate by 0, 90, 180 or 270 degrees with equal probability.
        crop: height and width of the crop are fractions of the image's, each drawn from [crop, 1]; None: no crop.
        colour: brightness, contrast and saturation jitter by up to this fraction, the hue by a tenth of it; 0: none.
        extra: further transforms of albumentations, which support bounding boxes, between colour and resizing.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        short_sizes: Sequence[int] | None = None,
        max_size: int | None = None,
        *,
        scale: Sequence[float] | None = None,
        horizontal_flip: float = 0.0,
        vertical_flip: float = 0.0,
        quarter_turns: bool = False,
        crop: float | None = None,
        colour: float = 0.0,
        extra: Sequence[A.BasicTransform] = (),
    ) -> None:
        if short_sizes is not None and (not short_sizes or min(short_sizes) < 1):
            raise ValueError(f"short_sizes must be positive sides in pixels, not {list(short_sizes)}")
        if max_size is not None and max_size < max(short_sizes or (1,)):
            raise ValueError(f"max_size {max_size} must not be less than short_sizes {list(short_sizes or ())}")
        if scale is not None and (len(scale) != 2 or not 0 < scale[0] <= scale[1]):
            raise ValueError(f"scale must be a range of positive numbers [low, high], not {list(scale)}")
        if crop is not None and not 0 < crop <= 1:
            raise ValueError(f"crop must be a fraction above 0 and up to 1, not {crop}")
        if not 0 <= colour < 1:
            raise ValueError(f"colour must be a fraction from 0 to below 1, not {colour}")
        for name, chance in (("horizontal_flip", horizontal_flip), ("vertical_flip", vertical_flip)):
            if not 0 <= chance <= 1:
                raise ValueError(f"{name} must be a probability, not {chance}")
        self.transforms: list[A.BasicTransform] = []
        if crop is not None:
            self.transforms.append(_Crop(crop))
        if horizontal_flip:
            self.transforms.append(A.HorizontalFlip(p=horizontal_flip))
        if vertical_flip:
            self.transforms.append(A.VerticalFlip(p=vertical_flip))
        if quarter_turns:
            self.transforms.append(A.RandomRotate90(p=1.0))
        if colour:
            limits = (1 - colour, 1 + colour)
            self.transforms.append(
                A.ColorJitter(
                    brightness=limits, contrast=limits, saturation=limits, hue=(-colour / 10, colour / 10), p=1.0
                )
            )
        self.transforms += extra
        if self.transforms or short_sizes is not None or scale is not None:
            self.transforms.append(_Resize(short_sizes, max_size, scale))
        # Boxes without area are dropped without an error; the field "index" says which remain.
        boxes = A.BboxParams("pascal_voc", label_fields=["index"], filter_invalid_bboxes=True, clip=True)
        self.compose = A.Compose(self.transforms, bbox_params=boxes) if self.transforms else None

    def least_size(self, size: Size) -> Size:
        """Return the size of the image of the shortest longer side that this can make of one of a size (height, width).

        The transforms of `extra` count as if they kept the size.
        """
        least = size
        for transform in self.transforms:
            if isinstance(transform, _Crop):
                least = max(1, int(size[0] * transform.least + 0.5)), max(1, int(size[1] * transform.least + 0.5))
            elif isinstance(transform, _Resize):
                if transform.short_sizes is not None:  # the squarer, the shorter the longer side
                    ratio = min(max(1.0, least[1] / size[0]), size[1] / least[0])
                    least = resized((1, ratio), min(transform.short_sizes), transform.max_size)
                factor = 1.0 if transform.scale is None else transform.scale[0]
                least = max(1, int(least[0] * factor + 0.5)), max(1, int(least[1] * factor + 0.5))
        return least

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """Transform a sample; all random choices follow from `seed`."""
        if self.compose is None:
            return sample
        # A seed for each: Compose.set_random_seed gives all the same one, and both flips would always coincide.
        seeds = np.random.SeedSequence(seed).generate_state(len(self.transforms))
        for transform, own in zip(self.transforms, seeds, strict=True):
            transform.set_random_seed(int(own))
        target, proposals = sample.target, sample.proposals
        boxes = target.boxes if proposals is None else torch.cat((target.boxes, proposals))
        data: dict[str, Any] = {
            "image": np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()),
            "bboxes": boxes.numpy().astype(np.float64),
            "index": np.arange(len(boxes)),
        }
        masked = target.masks is not None and len(target) > 0
        follow = masked and not all(isinstance(t, _FOLLOWED) for t in self.transforms)
        if follow:
            data["masks"] = _coordinates(sample.size)
        result = self.compose(**data)
        image = torch.from_numpy(np.ascontiguousarray(result["image"])).permute(2, 0, 1)
        kept = torch.as_tensor(np.asarray(result["index"]), dtype=torch.int64)
        boxes = torch.as_tensor(np.asarray(result["bboxes"]), dtype=torch.float32).reshape(-1, 4)
        inside = (boxes[:, 2:] - boxes[:, :2] > ROUNDING).all(1)
        boxes, kept = boxes[inside], kept[inside]
        objects = kept < len(target)
        changed = target.select(kept[objects])
        if changed.masks is not None:
            maps = result["masks"] if follow else None
            changed.masks = _moved(changed.masks, self.transforms, maps, (image.shape[1], image.shape[2]))
        if proposals is not None:
            proposals = boxes[~objects]
        return replace(sample, image=image, target=replace(changed, boxes=boxes[objects]), proposals=proposals)


def _coordinates(size: Size) -> NDArray[np.float32]:
    """Make two masks [2, H, W] of each pixel's row and column, from 1 on: what transforms fill with 0 is outside.

    Two masks and not one of two channels, for which OpenCV 5.0's `warpAffine` rounds to other nearest pixels.
    """
    return np.stack(np.meshgrid(*(np.arange(1, n + 1, dtype=np.float32) for n in size), indexing="ij"))


def _moved(
    masks: Masks, transforms: Sequence[A.BasicTransform], coordinates: NDArray[np.float32] | None, size: Size
) -> Masks:
    """Move masks as the transforms have just moved the image, now of `size`.

    Args:
        masks: of the objects that are left.
        transforms: as they were applied last.
        coordinates: what they made of `_coordinates`, for transforms that are not among `_FOLLOWED`.
        size: height and width of the result.
    """
    if not len(masks):
        return replace(masks, size=size)
    if coordinates is not None:
        rows, columns = (np.asarray(moved).astype(np.int64) - 1 for moved in coordinates)
        return move_pixels(masks, rows, columns)
    maps = AxisMaps.identity(masks.size)
    for transform in transforms:
        if not transform.params:  # it was not applied
            continue
        if isinstance(transform, A.HorizontalFlip):
            maps = maps.take(_ALL, _REVERSED)
        elif isinstance(transform, A.VerticalFlip):
            maps = maps.take(_REVERSED, _ALL)
        elif isinstance(transform, A.RandomRotate90):
            maps = maps.turn(transform.params["factor"])
        elif isinstance(transform, _Crop):
            maps = maps.take(*transform.params["window"])
        elif isinstance(transform, _Resize):
            before = (len(maps.rows), len(maps.columns))
            maps = maps.take(
                *(_nearest(*lengths) for lengths in zip(before, transform.params["new_size"], strict=True))
            )
    return maps.move(masks)


_ALL, _REVERSED = slice(None), slice(None, None, -1)


def _nearest(length: int, new_length: int) -> NDArray[np.int64]:
    """Return the pixels that `cv2.resize` takes of a row of `length` to make one of `new_length` of it."""
    row = np.arange(length, dtype=np.float32)[None]
    taken: NDArray[np.float32] = cv2.resize(row, (new_length, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]
    return taken.astype(np.int64)


def resized(size: tuple[float, float], short: int, longest: int | None) -> tuple[int, int]:
    """Compute the resized height and width by Detectron2's rule: shorter side `short`, longer at most `longest`."""
    scale = short / min(size)
    if longest is not None and max(size) * scale > longest:
        scale = longest / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


class _Resize(A.DualTransform):  # type: ignore[misc]
    """Resize image and masks; boxes do not change, as albumentations holds them as fractions of the image."""

    _targets = (
        A.core.type_definitions.Targets.IMAGE,
        A.core.type_definitions.Targets.MASK,
        A.core.type_definitions.Targets.BBOXES,
    )

    def __init__(self, short_sizes: Sequence[int] | None, max_size: int | None, scale: Sequence[float] | None) -> None:
        super().__init__(p=1.0)
        self.short_sizes = None if short_sizes is None else tuple(short_sizes)
        self.max_size = max_size
        self.scale = None if scale is None else tuple(scale)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        del data
        height, width = params["shape"][:2]
        if self.short_sizes is not None:
            short = self.py_random.choice(self.short_sizes)
            height, width = resized((height, width), short, self.max_size)
        if self.scale is not None:
            factor = self.py_random.uniform(*self.scale)
            height, width = int(height * factor + 0.5), int(width * factor + 0.5)
        return {"new_size": (max(height, 1), max(width, 1))}

    def apply(self, img: np.ndarray[Any, Any], new_size: tuple[int, int], **params: Any) -> np.ndarray[Any, Any]:
        del params
        if img.shape[:2] == new_size:
            return img
        # Averaging avoids aliasing where the image shrinks.
        mode = cv2.INTER_AREA if new_size[0] < img.shape[0] else cv2.INTER_LINEAR
        return cv2.resize(img, new_size[::-1], interpolation=mode)

    def apply_to_mask(
        self, mask: np.ndarray[Any, Any], new_size: tuple[int, int], **params: Any
    ) -> np.ndarray[Any, Any]:
        del params
        if mask.shape[:2] == new_size:
            return mask
        return cv2.resize(mask, new_size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    def apply_to_bboxes(self, bboxes: np.ndarray[Any, Any], **params: Any) -> np.ndarray[Any, Any]:
        del params
        return bboxes


class _Crop(A.DualTransform):  # type: ignore[misc]
    """Crop a window whose height and width are random fractions of the image's, each at least `least`."""

    _targets = (
        A.core.type_definitions.Targets.IMAGE,
        A.core.type_definitions.Targets.MASK,
        A.core.type_definitions.Targets.BBOXES,
    )

    def __init__(self, least: float) -> None:
        super().__init__(p=1.0)
        self.least = least

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        del data
        window = []
        for side in params["shape"][:2]:
            length = max(1, int(side * self.py_random.uniform(self.least, 1) + 0.5))
            start = self.py_random.randint(0, side - length)
            window.append(slice(start, start + length))
        return {"window": tuple(window)}

    def apply(self, img: np.ndarray[Any, Any], window: tuple[slice, slice], **params: Any) -> np.ndarray[Any, Any]:
        del params
        return img[window]

    def apply_to_bboxes(
        self, bboxes: np.ndarray[Any, Any], window: tuple[slice, slice], **params: Any
    ) -> np.ndarray[Any, Any]:
        height, width = params["shape"][:2]
        rows, columns = window
        moved = bboxes.copy()
        moved[:, [0, 2]] = (bboxes[:, [0, 2]] * width - columns.start) / (columns.stop - columns.start)
        moved[:, [1, 3]] = (bboxes[:, [1, 3]] * height - rows.start) / (rows.stop - rows.start)
        return moved


_FOLLOWED = (A.ImageOnlyTransform, A.HorizontalFlip, A.VerticalFlip, A.RandomRotate90, _Crop, _Resize)
"""Transforms that leave all pixels where they are, or move rows and columns as wholes."""
