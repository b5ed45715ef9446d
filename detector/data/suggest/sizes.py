"""Choose the size that images are resized to by the sizes of the objects in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.data.annotations import Floats
from detector.data.page.numbers import Numbers
from detector.data.suggest.anchors import Boxes, weighted_quantiles

SMALL, MEDIAN = 16, 64
"""Pixels that the side of a small object (the 10 % quantile) and of the median object should have on a finest level of
stride 4. 4 cells are the anchors of S3FD (Zhang et al. 2017); with 16, two and more fall into each of the 7 bins of an
RoI, as in FPN. A finest level of stride 8 or more asks for twice as much."""

LONGEST = 1333
"""Limit of the longer side, in pixels: Detectron2's."""

SHORTEST = 256
"""The shorter side is not made smaller for the sake of speed, in pixels."""

ENLARGED = 2.0
"""The median image is enlarged up to so much; more adds pixels that show nothing new."""

STEP = 32
"""Shorter sides are multiples of this, in pixels, as images are padded to."""

FEW = 10
"""Objects below which a class counts for less than others."""


@dataclass(frozen=True)
class InputSize:
    """A size of the resized images, as of `detector.data.augment.Augment`."""

    short: int | None
    """the shorter side, in pixels; None: images keep their size"""
    longest: int | None
    """limit of the longer side, in pixels; None: no limit"""

    def scales(self, numbers: Numbers) -> Floats:
        """Return the factor that each image is resized by, [N]."""
        if self.short is None:
            return np.ones(len(numbers.widths))
        scales: Floats = self.short / np.minimum(numbers.widths, numbers.heights)
        if self.longest is not None:
            scales = np.minimum(scales, self.longest / np.maximum(numbers.widths, numbers.heights))
        return scales

    def pixels(self, numbers: Numbers) -> float:
        """Return the mean area of the resized images, in px²."""
        return float((numbers.widths * numbers.heights * self.scales(numbers) ** 2).mean())

    def sides(self, numbers: Numbers) -> Floats:
        """Return the square roots of the boxes' areas in the resized images, in pixels, [M]."""
        sides: Floats = numbers.sides * self.scales(numbers)[numbers.image_of]
        return sides

    def longer_sides(self, numbers: Numbers) -> Floats:
        """Return the longer sides of the boxes in the resized images, in pixels, [M]."""
        sides: Floats = numbers.box_sides.max(1) * self.scales(numbers)[numbers.image_of]
        return sides

    def resize(self, numbers: Numbers, divisibility: int) -> Boxes:
        """Return the boxes in the resized images, which are padded to multiples of `divisibility`."""
        scales = self.scales(numbers)
        sizes = np.floor(np.stack((numbers.heights, numbers.widths), 1) * scales[:, None] + 0.5)
        padded = np.ceil(sizes / divisibility) * divisibility
        corners = numbers.boxes * scales[numbers.image_of, None]
        return Boxes(corners, padded[numbers.image_of], class_weights(numbers))


def class_weights(numbers: Numbers) -> Floats:
    """Weight objects so that each class counts alike, as in AP; those of fewer than `FEW` objects count less, [M]."""
    counts = np.bincount(numbers.labels, minlength=len(numbers.classes))
    each = 1 / np.maximum(counts, FEW)[numbers.labels]
    weights: Floats = each / each.sum()
    return weights


def wanted_sides(stride: int) -> tuple[int, int]:
    """Return the sides that a small and the median object should have on a finest level of a stride, in pixels."""
    factor = min(max(stride // 4, 1), 2)
    return SMALL * factor, MEDIAN * factor


def choose_size(numbers: Numbers, stride: int) -> tuple[InputSize, str]:
    """Choose the least size at which objects are well seen, and say why.

    Args:
        numbers: of the training images.
        stride: of the finest level.
    """
    weights = class_weights(numbers)
    longest, shortest = np.maximum(numbers.widths, numbers.heights), np.minimum(numbers.widths, numbers.heights)
    aspect = float(np.quantile(longest / shortest, 0.95))
    stored = float(np.median(shortest))
    small, median = wanted_sides(stride)
    by_memory, by_detail = int(LONGEST / aspect), int(ENLARGED * stored)
    most = max(STEP, min(by_memory, by_detail) // STEP * STEP)
    least = min(most, SHORTEST, -(-int(stored) // STEP) * STEP)
    for short in range(least, most + 1, STEP):
        size = InputSize(short, max(short, min(LONGEST, round(short * aspect))))
        low, middle = weighted_quantiles(size.sides(numbers), weights, (0.1, 0.5))
        if low >= small and middle >= median:
            break
    found = (
        f"10 % of the objects are below {low:.0f} px, half below {middle:.0f} px; {small} and {median} px are the aim"
    )
    if not (low >= small and middle >= median):
        limit = (
            "that needs too much memory"
            if by_memory < by_detail
            else f"{ENLARGED:g} times the stored size of the median image"
        )
        why = f", but images are enlarged no further: {limit}"
    elif short > least:
        why = ", and this is the least size that reaches it"
    else:
        why = ", which a smaller size than is suggested would reach, too"
    return size, found + why
