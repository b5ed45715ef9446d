"""Choose the size that images are resized to by the sizes of the objects in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.data.annotations import Floats
from detector.data.page.numbers import Numbers
from detector.data.suggest.anchors import Boxes, weighted_quantiles

SMALL_CELLS = 4
"""Cells of the finest level that a small object, the 10 % quantile, should span (S3FD's ratio of anchor to stride)."""

MEDIAN_CELLS = 16
"""Likewise the median object: two cells and more for each of the 7 bins of an RoI, as in FPN."""

LONGEST = 1333
"""Limit of the longer side, in pixels: Detectron2's."""

SHORTEST = 256
"""The shorter side is not made smaller for the sake of speed, in pixels."""

ENLARGED = 2.0
"""Images are enlarged up to so much; more adds pixels that show nothing new."""

FEW = 10
"""Objects below which a class counts for less than others."""


@dataclass(frozen=True)
class InputSize:
    """A size of the resized images."""

    short: int
    """the shorter side, in pixels"""
    longest: int
    """limit of the longer side, in pixels"""

    def scales(self, numbers: Numbers) -> Floats:
        """Return the factor that each image is resized by, [N]."""
        short = np.minimum(numbers.widths, numbers.heights)
        scales: Floats = np.minimum(self.short / short, self.longest / np.maximum(numbers.widths, numbers.heights))
        return scales

    def pixels(self, numbers: Numbers) -> float:
        """Return the mean area of the resized images, in px²."""
        return float((numbers.widths * numbers.heights * self.scales(numbers) ** 2).mean())

    def resize(self, numbers: Numbers, divisibility: int) -> Boxes:
        """Return the boxes in the resized images, padded to multiples of `divisibility`."""
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


def sides(numbers: Numbers, size: InputSize) -> Floats:
    """Return the square roots of the boxes' areas in the resized images, in pixels, [M]."""
    scaled: Floats = numbers.sides * size.scales(numbers)[numbers.image_of]
    return scaled


def choose_size(numbers: Numbers, stride: int, step: int) -> tuple[InputSize, str]:
    """Choose the least size at which objects are well seen, and say why.

    Args:
        numbers: of the training images.
        stride: of the finest level.
        step: sizes are multiples of this, in pixels.
    """
    weights = class_weights(numbers)
    longest, shortest = np.maximum(numbers.widths, numbers.heights), np.minimum(numbers.widths, numbers.heights)
    aspect = float(np.quantile(longest / shortest, 0.95))
    stored = float(np.median(shortest))
    small, median = SMALL_CELLS * stride, MEDIAN_CELLS * stride

    def size_of(short: int) -> InputSize:
        return InputSize(short, max(short, min(LONGEST, round(short * aspect))))

    limit = max(step, min(int(ENLARGED * stored), int(LONGEST / aspect)) // step * step)
    least = min(limit, SHORTEST, -(-int(stored) // step) * step)
    for short in range(least, limit + 1, step):
        size = size_of(short)
        low, middle = weighted_quantiles(sides(numbers, size), weights, (0.1, 0.5))
        if low >= small and middle >= median:
            break
    words = f"10 % of the objects are below {low:.0f} px in it, half below {middle:.0f} px"
    wanted = f"{small} and {median} px are wanted, {SMALL_CELLS} and {MEDIAN_CELLS} cells of stride {stride}"
    if low >= small and middle >= median:
        why = (
            f"the least size at which objects are well seen ({wanted})"
            if short > least
            else f"the least size that is suggested ({wanted})"
        )
    else:
        cause = f"{ENLARGED:g} times the stored size" if limit < int(LONGEST / aspect) // step * step else "memory"
        why = f"{wanted}, but this is the limit by {cause}"
    return size, f"{words}; {why}. Classes count alike"
