"""Polygons and run-length codes of objects, packed; and the checks that they need before pycocotools reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from detector.data.packed import BLOCK, Integers, Strings, starts_of, take
from detector.run_lengths import filled_pixels, from_segmentation
from detector.types import Size

Floats = NDArray[np.float64]

MARGIN = 4
"""How far polygons may reach out of their image, in sides of it."""

CODES = 20_000
"""Run-length codes that are unpacked at a time."""


@dataclass(frozen=True)
class Segmentations:
    """The segmentations of M objects: polygons, a run-length code, or none."""

    coordinates: Floats
    """x, y, x, y, ... of all polygons, in pixels"""
    polygons: Integers
    """[Q + 1]: where the coordinates of each polygon begin"""
    parts: Integers
    """[M + 1]: where the polygons of each object begin"""
    codes: Strings
    """[M]: the run-length code as pycocotools packs it; empty where there is none"""

    @classmethod
    def none(cls, count: int) -> Segmentations:
        """Make those of objects that have none."""
        return cls(np.zeros(0), np.zeros(1, np.int64), np.zeros(count + 1, np.int64), Strings.pack([""] * count))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which objects have one, [M]."""
        known: NDArray[np.bool_] = (np.diff(self.parts) > 0) | (np.diff(self.codes.starts) > 0)
        return known

    def get(self, index: int, size: Size) -> Any:
        """Return an object's segmentation as in COCO's JSON: a list of polygons, or a code; None if there is none."""
        if self.parts[index] < self.parts[index + 1]:
            edges = self.polygons[self.parts[index] : self.parts[index + 1] + 1]
            return [self.coordinates[a:b].tolist() for a, b in pairwise(edges.tolist())]
        code = self.codes[index]
        return {"size": list(size), "counts": code} if code else None

    def select(self, keep: Integers) -> Segmentations:
        """Select objects by their indices."""
        coordinates, _ = take(self.coordinates, self.polygons[self.parts], keep)
        lengths, parts = take(np.diff(self.polygons), self.parts, keep)
        return Segmentations(coordinates, starts_of(lengths), parts, self.codes.select(keep))

    def without(self, objects: NDArray[np.bool_]) -> Segmentations:
        """Remove the segmentations of some of the objects, bool [M]."""
        left = self.select(np.flatnonzero(~objects))
        return Segmentations(
            left.coordinates,
            left.polygons,
            starts_of(np.where(objects, 0, np.diff(self.parts))),
            Strings(left.codes.data, starts_of(np.where(objects, 0, np.diff(self.codes.starts)))),
        )

    def blocks(self) -> Iterator[tuple[int, Segmentations]]:
        """Yield the number of the first object and the segmentations of each `BLOCK` objects, without a copy.

        What is computed for a block at a time needs no further arrays of the size of all coordinates.
        """
        for begin in range(0, len(self), BLOCK):
            parts = self.parts[begin : begin + BLOCK + 1]
            polygons = self.polygons[parts[0] : parts[-1] + 1]
            codes = self.codes.starts[begin : begin + BLOCK + 1]
            yield (
                begin,
                Segmentations(
                    self.coordinates[polygons[0] : polygons[-1]],
                    polygons - polygons[0],
                    parts - parts[0],
                    Strings(self.codes.data[codes[0] : codes[-1]], codes - codes[0]),
                ),
            )

    def polygon_areas(self) -> Floats:
        """Return the area in px² within each polygon, [Q]."""
        return np.concatenate([np.zeros(0), *(block._polygon_areas() for _, block in self.blocks())])

    def _polygon_areas(self) -> Floats:
        if len(self.polygons) < 2:
            return np.zeros(0)
        x, y = self.coordinates[0::2], self.coordinates[1::2]
        first, end = self.polygons[:-1] // 2, self.polygons[1:] // 2
        following = np.arange(1, len(x) + 1)
        following[end - 1] = first
        return np.abs(np.add.reduceat(x * y[following] - x[following] * y, first)) / 2

    def areas(self, sizes: Integers, name: Callable[[int], str]) -> Floats:
        """Return the area of each object in px², [M]: of polygons their sum, as COCO's `area`; NaN without a mask.

        Args:
            sizes: height and width of each object's image, [M, 2].
            name: of an object, for an error's message.
        """
        owner = np.repeat(np.arange(len(self)), np.diff(self.parts))
        areas = np.bincount(owner, self.polygon_areas(), minlength=len(self))
        coded = self.coded
        areas[coded] = self.code_areas(sizes, name)
        return np.where(self.known, areas, np.nan)

    @property
    def coded(self) -> Integers:
        """The objects that have a run-length code, by index."""
        return np.flatnonzero(np.diff(self.codes.starts) > 0)

    def code_areas(self, sizes: Integers, name: Callable[[int], str]) -> Integers:
        """Count the pixels of each run-length code, in the order of `coded`; arguments as of `areas`."""
        coded, areas = self.coded, [np.zeros(0, np.int64)]
        for begin in range(0, len(coded), CODES):
            some = coded[begin : begin + CODES]
            texts = [self.codes[i] for i in some.tolist()]
            areas.append(filled_pixels(texts, sizes[some], partial(_name, name, some)))
        return np.concatenate(areas)

    def polygon_bounds(self) -> Floats:
        """Return x1, y1, x2, y2 of each polygon, [Q, 4]."""
        if len(self.polygons) < 2:
            return np.zeros((0, 4))
        points = self.coordinates.reshape(-1, 2)
        first = self.polygons[:-1] // 2
        return np.concatenate((np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)), 1)


def _name(name: Callable[[int], str], which: Integers | Sequence[int], index: int) -> str:
    return name(int(which[index]))


def pack_counts(segmentation: dict[str, Any], name: Callable[[], str]) -> tuple[str, list[int]]:
    """Return the code of COCO's `{"counts", "size"}`, whose counts may be a list, as text, and its height and width.

    Raises:
        ValueError: the size is none, or the counts are not text, nor run lengths of an image of that size.
    """
    size, counts = segmentation["size"], segmentation["counts"]
    sides = isinstance(size, list) and len(size) == 2 and all(isinstance(v, int) and 0 < v < 2**31 for v in size)
    if not sides or size[0] * size[1] >= 2**31:
        raise ValueError(f"{name()}: the size of its mask must be height and width in pixels, not {size!r}")
    if isinstance(counts, list):
        if not counts or not all(isinstance(c, int) and 0 <= c < 2**31 for c in counts):
            raise ValueError(f"{name()}: the run lengths must be counts of pixels that sum to {size[0]}*{size[1]}")
        counts = from_segmentation({"size": size, "counts": counts}, (size[0], size[1]))["counts"].decode("ascii")
    if not isinstance(counts, str) or not counts:
        raise ValueError(f"{name()}: the counts of its mask must be a text or run lengths, not {str(counts)[:80]!r}")
    return counts, size


def usable(shapes: Segmentations, sizes: Integers, name: Callable[[int], str]) -> NDArray[np.bool_]:
    """Find the segmentations that have a pixel within their image.

    Args:
        shapes: of M objects.
        sizes: height and width of each object's image, [M, 2].
        name: of an object, for an error's message.

    Returns:
        bool [M]; false also where there is no segmentation.

    Raises:
        ValueError: a code is broken, or a polygon reaches farther out than `MARGIN` sides of the image, all along which
            its outline would be followed.
    """
    found = np.zeros(len(shapes), bool)
    found[shapes.coded] = shapes.code_areas(sizes, name) > 0
    for begin, block in shapes.blocks():
        own = slice(begin, begin + len(block))
        found[own] |= _polygons_usable(block, sizes[own], partial(_name, name, range(begin, begin + len(block))))
    return found


def _polygons_usable(shapes: Segmentations, sizes: Integers, name: Callable[[int], str]) -> NDArray[np.bool_]:
    """Find the objects that have a polygon with a pixel within the image; arguments as of `usable`."""
    found = np.zeros(len(shapes), bool)
    if len(shapes.polygons) < 2:
        return found
    bounds = shapes.polygon_bounds()
    owner = np.repeat(np.arange(len(shapes)), np.diff(shapes.parts))
    limit = sizes[owner][:, ::-1]
    far = ((bounds[:, :2] < -MARGIN * limit) | (bounds[:, 2:] > (1 + MARGIN) * limit)).any(1)
    if far.any():
        i = int(far.argmax())
        raise ValueError(
            f"{name(int(owner[i]))}: a polygon reaches from {bounds[i, :2].tolist()} to {bounds[i, 2:].tolist()}, "
            f"far outside of its image of {limit[i, 0]}x{limit[i, 1]} pixels; correct it"
        )
    inside = np.minimum(bounds[:, 2:], limit) - np.maximum(bounds[:, :2], 0)
    whole = (inside == bounds[:, 2:] - bounds[:, :2]).all(1)
    areas = shapes.polygon_areas()
    sure = whole & (areas > 0) & (areas >= (bounds[:, 2:] - bounds[:, :2]).sum(1))  # neither cut nor thin
    found[owner[sure]] = True
    for i in np.unique(owner[~sure & (inside > 0).all(1)]).tolist():
        if not found[i]:
            size = int(sizes[i, 0]), int(sizes[i, 1])
            found[i] = rle.area(from_segmentation(shapes.get(i, size), size)) > 0
    return found
