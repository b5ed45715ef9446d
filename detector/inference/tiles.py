"""Detect objects in large images window by window, and join what several windows have found of one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.json_values import is_number
from detector.data.stored import Region
from detector.inference.joining import Floats, Join, mask_overlap, nested, overlap, united
from detector.types import Objects, Size

JOINS = ("iou", "ios", "mask")

EDGE = 3.0
"""A box that ends so close to an inner edge of its window, in pixels, is of an object that the edge cuts."""
EDGE_SHARE = 0.04
"""So does one that ends closer than this share of its side: what is cut is seldom boxed to the very edge."""


@dataclass(frozen=True)
class Tiling:
    """Windows of an image, and how their detections are joined.

    Attributes:
        side: of a window, in pixels; images of at most this side are one window.
        overlap: of neighbouring windows, at least, as a share of their side: objects of up to this size are whole in
            one of them.
        join: how much two detections of a class, from different windows, overlap: `iou`, intersection over union;
            `ios`, intersection over the smaller box, which also joins a part with the whole; `mask`, intersection over
            the smaller mask.
        join_thresh: two detections that overlap by at least this are one object, 0..1.

    Raises:
        ValueError: a number is out of range, or `join` is none of these.
    """

    side: int
    overlap: float = 0.2
    join: Join = "iou"
    join_thresh: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.side, bool) or not isinstance(self.side, int) or self.side < 32:
            raise ValueError(f"tiles must be the side of a window in whole pixels, at least 32, not {self.side!r}")
        if not is_number(self.overlap) or not 0 <= self.overlap <= 0.75:
            raise ValueError(f"overlap must be a share of a window's side from 0 to 0.75, not {self.overlap!r}")
        if self.join not in JOINS:
            raise ValueError(f"join must be one of {', '.join(JOINS)}, not {self.join!r}")
        if not is_number(self.join_thresh) or not 0 < self.join_thresh <= 1:
            raise ValueError(f"join_thresh must be above 0 and at most 1, not {self.join_thresh!r}")

    def check(self, masks: bool) -> None:
        """Check that detections can be joined, with masks or without.

        Raises:
            ValueError: they are to be joined by masks, and have none.
        """
        if self.join == "mask" and not masks:
            raise ValueError("join=mask: the detector has no masks; use join=iou or join=ios")

    def windows(self, size: Size) -> list[Region]:
        """Return the windows of an image, row by row: (x1, y1, x2, y2), all of one size, evenly spaced.

        Args:
            size: height and width of the image.
        """
        rows, columns = (self._starts(length) for length in size)
        high, wide = (min(length, self.side) for length in size)
        return [(x, y, x + wide, y + high) for y in rows for x in columns]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        common = math.ceil(self.overlap * self.side)
        count = math.ceil((length - common) / (self.side - common))
        return [round(i * (length - self.side) / (count - 1)) for i in range(count)]

    @classmethod
    def parse(cls, tiles: Any, overlap: Any, join: Any, join_thresh: Any) -> Tiling | None:
        """Return the windows of the keys `tiles`, `overlap`, `join` and `join_thresh`; None if `tiles` is.

        Raises:
            ValueError: a value is out of range.
        """
        return None if tiles is None else cls(tiles, overlap, join, join_thresh)


def check_batch(batch: Any) -> None:
    """Check the number of images or windows that are computed at once.

    Raises:
        ValueError: it is not a whole number of at least 1.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch must be a whole number of at least 1, not {batch!r}")


def regions_of(image: Tensor) -> Callable[[Region], Tensor]:
    """Return what reads the regions of an image [D, H, W] that is in memory."""
    return lambda at: image[:, at[1] : at[3], at[0] : at[2]]


def detect_tiles(
    read: Callable[[Region], Tensor],
    size: Size,
    tiling: Tiling,
    detect: Callable[[Sequence[Tensor]], Sequence[Objects]],
    batch: int = 1,
) -> Objects:
    """Detect the objects of an image window by window.

    Args:
        read: `(x1, y1, x2, y2) -> Tensor[D, y2 - y1, x2 - x1]`, the pixels of a window.
        size: height and width of the image.
        tiling: the windows, and how their detections are joined.
        detect: detects the objects of several images, in pixels of each.
        batch: windows that are read and detected at once.

    Returns:
        best first, in pixels of the image, each object once; as many as there are, whatever the most of a window.

    Raises:
        ValueError: detections are to be joined by masks, and have none; or `batch` is no number of windows.
    """
    check_batch(batch)
    windows = tiling.windows(size)
    parts: list[Objects] = []
    for begin in range(0, len(windows), batch):
        some = windows[begin : begin + batch]
        for (x, y, _, _), found in zip(some, detect([read(window) for window in some]), strict=True):
            found = found.to("cpu")
            parts.append(replace(found, boxes=found.boxes + found.boxes.new_tensor([x, y, x, y])))
    return join_windows(windows, parts, size, tiling)


def join_windows(windows: Sequence[Region], parts: Sequence[Objects], size: Size, tiling: Tiling) -> Objects:
    """Join the detections of overlapping windows.

    A detection that an inner edge of its window cuts is left out if it lies within another window, which sees more of
    the object. Of the others, best first and whole ones before cut ones, each takes out the detections of its class
    from other windows that overlap with it by `tiling.join_thresh`: whole ones by `tiling.join`, cut ones by the share
    of their box. Cut ones, parts of an object that is in no window as a whole, are compared within what both windows
    see, and become one object: the union of their boxes and masks, with the highest score.

    Args:
        windows: as of `Tiling.windows`.
        parts: the detections of each, in pixels of the image, on the CPU.
        size: height and width of the image.
        tiling: how they are joined.

    Raises:
        ValueError: detections are to be joined by masks, and have none.
    """
    found = Objects.join(parts)
    if len(windows) == 1:
        return parts[0]
    tiling.check(found.masks is not None)
    regions = np.array(windows, np.float64)
    owner = np.repeat(np.arange(len(windows)), [len(part) for part in parts])
    cut, redundant = _cut(found.boxes.double().numpy(), regions, owner, size)
    kept = np.flatnonzero(~redundant)
    found, owner, cut = found.select(torch.from_numpy(kept)), owner[kept], cut[kept]
    neighbours = _same(found, regions, owner, cut, tiling)
    order = np.lexsort((-found.scores.double().numpy(), cut)).tolist()
    gone = np.zeros(len(found), bool)
    taken: list[list[int]] = []
    for i in order:
        if gone[i]:
            continue
        members, waiting = [i], [i]
        gone[i] = True
        while waiting:
            one = waiting.pop()
            for other in neighbours.get(one, ()):
                if gone[other]:
                    continue
                gone[other] = True
                if cut[i] and cut[other]:  # another part of the object, which may have further ones
                    members.append(other)
                    waiting.append(other)
        taken.append(members)
    joined = united(found, taken)
    return joined.select(joined.scores.argsort(descending=True, stable=True))


def _cut(
    boxes: Floats, regions: Floats, owner: NDArray[np.int64], size: Size
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the boxes that an inner edge of their window cuts, and those of them that another window sees more of.

    Args:
        boxes: [N, 4].
        regions: the windows, [W, 4].
        owner: the window of each box, [N].
        size: height and width of the image.
    """
    cut, within = np.zeros(len(boxes), bool), np.ones(len(boxes), bool)
    for axis, limit in enumerate((size[1], size[0])):
        begin, end = boxes[:, axis], boxes[:, axis + 2]
        margin = np.maximum(EDGE, EDGE_SHARE * (end - begin))
        fits = np.zeros(len(boxes), bool)
        for low, high in np.unique(regions[:, [axis, axis + 2]], axis=0):
            whole = (begin >= low + margin) if low > 0 else np.ones(len(boxes), bool)
            if high < limit:
                whole &= end <= high - margin
            fits |= whole
            cut |= ~whole & (regions[owner, axis] == low)
        within &= fits
    return cut, cut & within  # the windows are all combinations of these rows and columns


def _same(
    found: Objects, regions: Floats, owner: NDArray[np.int64], cut: NDArray[np.bool_], tiling: Tiling
) -> dict[int, list[int]]:
    """List for each detection the others that are the same object, or another part of it."""
    boxes, labels = found.boxes.double().numpy(), found.labels.numpy()
    ends = np.searchsorted(owner, np.arange(len(regions) + 1))
    places = [np.arange(begin, end) for begin, end in pairwise(ends)]
    pairs: dict[int, list[int]] = {}
    for a, b in _neighbours(regions):
        first, second = places[a], places[b]
        if not len(first) or not len(second):
            continue
        i, j = (index.ravel() for index in np.meshgrid(first, second, indexing="ij"))
        common = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
        near = (labels[i] == labels[j]) & (common > 0).all(1)
        if a == b:
            near &= i < j
        i, j = i[near], j[near]
        same = nested(boxes, i, j, tiling.join_thresh) & ~cut[i] & ~cut[j]
        shared = np.concatenate(
            (np.maximum(regions[a, :2], regions[b, :2]), np.minimum(regions[a, 2:], regions[b, 2:]))
        )
        if a != b:
            same |= overlap(boxes, i, j, cut, shared, tiling.join) >= tiling.join_thresh
        if tiling.join == "mask":
            for place in np.flatnonzero(same if a == b else cut[i] == cut[j]).tolist():
                within = shared if cut[i[place]] else None
                same[place] = mask_overlap(found, int(i[place]), int(j[place]), within) >= tiling.join_thresh
        for one, other in zip(i[same].tolist(), j[same].tolist(), strict=True):
            pairs.setdefault(one, []).append(other)
            pairs.setdefault(other, []).append(one)
    return pairs


def _neighbours(regions: Floats) -> Iterator[tuple[int, int]]:
    """Yield the pairs of windows that overlap, each with itself, too: indices, the first not above the second.

    Args:
        regions: [W, 4], row by row.
    """
    columns = len(np.unique(regions[:, 0]))
    across, down = regions[:columns, [0, 2]], regions[::columns, [1, 3]]
    right, below = (np.searchsorted(axis[:, 0], axis[:, 1]).tolist() for axis in (across, down))  # the first beyond
    left = np.searchsorted(across[:, 1], across[:, 0], "right").tolist()  # the first that reaches it
    for row, column in product(range(len(down)), range(columns)):
        for other in range(row, below[row]):
            for beside in range(column if other == row else left[column], right[column]):
                yield row * columns + column, other * columns + beside
