"""Augment samples with albumentations.

An `Augment` depends on the sample and the seed alone, not on the worker or on the samples before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.extra import bends, check_transform, cuts, leaves, stays, was_applied
from detector.data.remap import AxisMaps, bounds, move_pixels, rectangles
from detector.data.transforms import ROUNDING, Colour, Crop, CropTo, Resize, nearest, padded, resized
from detector.types import Masks, Sample, Size, Target


class Augment:
    """Crop, flip, rotate, jitter the colours of and resize a sample, in this order; without arguments a no-op.

    `Augment([1024], 1024, scale=(0.1, 2.0), fixed_size=(1024, 1024))` is the large-scale jitter of Ghiasi et al. 2021.

    Boxes are transformed as continuous coordinates, without rounding, and clipped to the crop; objects and proposals
    outside the crop are dropped. `original_size` stays the size of the file. What `target.extra` holds is selected with
    its objects, but not transformed: data with positions, such as keypoints, need an augmentation of their own.

    Args:
        short_sizes: the shorter side is resized to one of these, drawn at random, in pixels; None keeps the size.
        max_size: but the longer side to at most this (Detectron2's `ResizeShortestEdge`); None: no limit.
        scale: [low, high], the range of a further random scale factor, which `max_size` does not limit.
        fixed_size: [height, width] of the result, in pixels: the resized image is cropped to it, at a random place, and
            padded with grey at the right and at the bottom. Boxes at the edge become the bounds of the mask that is
            left; objects without a pixel of their mask, and boxes with a side below 1 pixel, are dropped. None: as it
            was resized.
        min_inside: objects of which `crop` and `fixed_size` leave a smaller share of the box become ignored regions, as
            crowds are: windows of large images are trained on the objects that are mostly inside. 0: all that is left
            of an object is one.
        horizontal_flip: probability.
        vertical_flip: probability.
        quarter_turns: rotate by 0, 90, 180 or 270 degrees with equal probability.
        crop: height and width of the crop are fractions of the image's, each drawn from [crop, 1]; None: no crop.
        colour: brightness, contrast and saturation jitter by up to this fraction, the hue by a tenth of it; 0: none.
            Images of other channels than RGB jitter in brightness and contrast only.
        extra: further transforms of albumentations, between colour and resizing. Where one bends or turns edges, boxes
            are the bounds of what has become of the mask, or of the whole box where there are no masks; where one
            crops, boxes at the edge are the bounds of the mask that is left.

    Raises:
        ValueError: an argument out of range, or a transform that boxes and masks cannot follow.
    """

    def __init__(
        self,
        short_sizes: Sequence[int] | None = None,
        max_size: int | None = None,
        *,
        scale: Sequence[float] | None = None,
        fixed_size: Sequence[int] | None = None,
        min_inside: float = 0.0,
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
        if fixed_size is not None and (len(fixed_size) != 2 or min(fixed_size) < 1):
            raise ValueError(f"fixed_size must be [height, width] in pixels, not {list(fixed_size)}")
        if not 0 <= min_inside <= 1:
            raise ValueError(f"min_inside must be a share of a box from 0 to 1, not {min_inside}")
        if min_inside and not all(map(stays, extra)):
            raise ValueError(
                "min_inside needs to know how boxes grow: leave out transforms of `extra` that move pixels"
            )
        if crop is not None and not 0 < crop <= 1:
            raise ValueError(f"crop must be a fraction above 0 and up to 1, not {crop}")
        if not 0 <= colour < 1:
            raise ValueError(f"colour must be a fraction from 0 to below 1, not {colour}")
        for name, chance in (("horizontal_flip", horizontal_flip), ("vertical_flip", vertical_flip)):
            if not 0 <= chance <= 1:
                raise ValueError(f"{name} must be a probability, not {chance}")
        self.transforms: list[A.BasicTransform] = []
        if crop is not None:
            self.transforms.append(Crop(crop))
        if horizontal_flip:
            self.transforms.append(A.HorizontalFlip(p=horizontal_flip))
        if vertical_flip:
            self.transforms.append(A.VerticalFlip(p=vertical_flip))
        if quarter_turns:
            self.transforms.append(A.RandomRotate90(p=1.0))
        if colour:
            limits = (1 - colour, 1 + colour)
            self.transforms.append(
                Colour(brightness=limits, contrast=limits, saturation=limits, hue=(-colour / 10, colour / 10), p=1.0)
            )
        for transform in extra:
            check_transform(transform)
        self.extra, self.min_inside = list(extra), min_inside
        self.transforms += extra
        if self.transforms or short_sizes is not None or scale is not None:
            self.transforms.append(Resize(short_sizes, max_size, scale))
        self.fixed_size: Size | None = None
        if fixed_size is not None:
            self.fixed_size = fixed_size[0], fixed_size[1]
            self.transforms.append(CropTo(self.fixed_size))
        # Boxes without area are dropped without an error; the field "index" says which remain.
        boxes = A.BboxParams("pascal_voc", label_fields=["index"], filter_invalid_bboxes=True, clip=True)
        self.compose = A.Compose(self.transforms, bbox_params=boxes) if self.transforms else None

    def least_size(self, size: Size) -> Size:
        """Return the size of the image of the shortest longer side that this can make of one of a size (height, width).

        The transforms of `extra` count as if they kept the size.
        """
        if self.fixed_size is not None:
            return self.fixed_size
        least = size
        for transform in self.transforms:
            if isinstance(transform, Crop):
                least = max(1, int(size[0] * transform.least + 0.5)), max(1, int(size[1] * transform.least + 0.5))
            elif isinstance(transform, Resize):
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
            "image": _in_unit(sample.image),
            "bboxes": boxes.numpy().astype(np.float64),
            "index": np.arange(len(boxes)),
        }
        follow = not all(_is_followed(t) for t in self.transforms)
        if follow and len(target):
            data["masks"] = _coordinates(sample.size)
        try:
            result = self.compose(**data)
        except Exception as error:  # whatever the transforms of albumentations raise
            reason = str(error) or type(error).__name__
            raise ValueError(f"image {sample.id!r}, {sample.size[1]}x{sample.size[0]} pixels: {reason}") from error
        pixels = result["image"] if sample.image.dtype == torch.uint8 else result["image"] * np.float32(255)
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        height, width = image.shape[1:]
        if self.fixed_size is not None:
            image = padded(image, self.fixed_size)
        kept = torch.as_tensor(np.asarray(result["index"]), dtype=torch.int64)
        boxes = torch.as_tensor(np.asarray(result["bboxes"]), dtype=torch.float32).reshape(-1, 4)
        inside = (boxes[:, 2:] - boxes[:, :2] > (ROUNDING if self.fixed_size is None else 1 - ROUNDING)).all(1)
        boxes, kept = boxes[inside], kept[inside]
        objects = kept < len(target)
        changed = target.select(kept[objects])
        if self.min_inside:
            left, whole = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes[objects], changed.boxes))
            outside = left < self.min_inside * self._growth() * whole - ROUNDING
            changed = replace(changed, crowd=changed.crowd | outside)
        bent = any(was_applied(t) and bends(t) for t in self.extra)
        shapes = changed.masks if changed.masks is not None or not bent else rectangles(changed.boxes, sample.size)
        moved = None
        if shapes is not None:
            moved = _moved(shapes, self.transforms, result.get("masks"), (image.shape[1], image.shape[2]))
        if proposals is not None:
            proposals = boxes[~objects]
        masks = None if target.masks is None else moved
        changed = replace(changed, boxes=boxes[objects], masks=masks)
        cut = self.fixed_size is not None or any(was_applied(t) and cuts(t) for t in self.extra)
        if shapes is not None and moved is not None and cut:
            changed = _bounded(changed, bounds(shapes), bounds(moved), bent, (height, width))
        return replace(sample, image=image, target=changed, proposals=proposals)

    def _growth(self) -> float:
        """Return how many times as large the last call has made areas."""
        return float(math.prod(t.params["growth"] for t in self.transforms if isinstance(t, Resize)))

    def check(self, sample: Sample) -> None:
        """Check that each of the `extra` transforms can be applied to images like this sample's.

        Raises:
            ValueError: one fails, or changes the channels or the type of the pixels; the message names it.
        """
        image = _in_unit(sample.image)
        for transform in (leaf for t in self.extra for leaf in leaves(t)):
            name = f"{type(transform).__name__} cannot be used on images of {image.shape[2]} channels"
            always = deepcopy(transform)
            always.p = 1.0
            always.set_random_seed(0)
            try:
                after = always(image=image, bboxes=np.zeros((0, 4)))["image"]
            except Exception as error:  # whatever it raises
                raise ValueError(f"{name} like image {sample.id!r}: {str(error) or type(error).__name__}") from error
            if after.dtype != image.dtype or after.shape[2:] != image.shape[2:]:
                was, now = (f"{a.dtype} in {a.shape[2] if a.ndim > 2 else 1} channels" for a in (image, after))
                raise ValueError(f"{name}: it makes {now} of {was}")


def _bounded(
    target: Target, before: NDArray[np.int64], after: NDArray[np.int64], bent: bool, size: tuple[int, int]
) -> Target:
    """Take the bounds of the visible pixels as boxes, and drop objects that have lost all of them.

    Args:
        target: the objects, as they were moved.
        before: bounds of their pixels in the image as it was, [G, 4]; empty for an object that never had any, which is
            kept as it is.
        after: likewise as they were moved.
        bent: whether edges are no longer rows and columns. Else only objects at the edge of the image get new boxes,
            since of those a part may have been cut off.
        size: height and width of the image without its padding.
    """
    had, has = (torch.from_numpy(b[:, 2] > b[:, 0]) for b in (before, after))
    limits = torch.tensor([size[1], size[0]]) - ROUNDING
    changed = has & (bent | (target.boxes[:, :2] < ROUNDING).any(1) | (target.boxes[:, 2:] > limits).any(1))
    boxes = torch.where(changed[:, None], torch.from_numpy(after).float(), target.boxes)
    return replace(target, boxes=boxes).select(has | ~had)


def _in_unit(image: Tensor) -> NDArray[Any]:
    """Return an image [D, H, W] as albumentations takes it, [H, W, D]: uint8, or floats in the unit 0..1."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return pixels if pixels.dtype == np.uint8 else pixels / np.float32(255)


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
        coordinates: what they made of `_coordinates`, where a transform is not `_is_followed`.
        size: height and width of the result.
    """
    if not len(masks):
        return replace(masks, size=size)
    if coordinates is not None:
        rows, columns = (np.asarray(moved).astype(np.int64) - 1 for moved in coordinates)
        return replace(move_pixels(masks, rows, columns), size=size)
    maps = AxisMaps.identity(masks.size)
    for transform in transforms:
        if stays(transform) or not was_applied(transform):
            continue
        if isinstance(transform, A.HorizontalFlip):
            maps = maps.take(_ALL, _REVERSED)
        elif isinstance(transform, A.VerticalFlip):
            maps = maps.take(_REVERSED, _ALL)
        elif isinstance(transform, A.RandomRotate90):
            maps = maps.turn(transform.params["factor"])
        elif isinstance(transform, Crop):
            maps = maps.take(*transform.params["window"])
        elif isinstance(transform, Resize):
            before = (len(maps.rows), len(maps.columns))
            maps = maps.take(*(nearest(*lengths) for lengths in zip(before, transform.params["new_size"], strict=True)))
    return replace(maps.move(masks), size=size)  # padding has no objects


_ALL, _REVERSED = slice(None), slice(None, None, -1)


def _is_followed(transform: Any) -> bool:
    """Return whether a transform leaves all pixels where they are, or moves rows and columns as wholes."""
    return stays(transform) or isinstance(
        transform, A.HorizontalFlip | A.VerticalFlip | A.RandomRotate90 | Crop | Resize
    )
