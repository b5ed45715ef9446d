"""Detect objects in large images window by window, and join what several windows have found of one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.json_values import is_number
from detector.data.stored import Region
from detector.masks import paste_probabilities
from detector.types import Objects, Size

Floats = NDArray[np.float64]

Join = Literal["iou", "ios", "mask"]
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
        ValueError: detections are to be joined by masks, and have none.
    """
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
    if tiling.join == "mask" and found.masks is None:
        raise ValueError("join=mask: the detector has no masks; use join=iou or join=ios")
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
    joined = _united(found, taken)
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
    limits = np.array([size[1], size[0]], np.float64)
    margin = np.maximum(EDGE, EDGE_SHARE * (boxes[:, 2:] - boxes[:, :2]))
    low, high = regions[:, :2], regions[:, 2:]
    inner_low, inner_high = low > 0, high < limits
    cut: NDArray[np.bool_] = np.any(inner_low[owner] & (boxes[:, :2] < low[owner] + margin), axis=1)
    cut |= np.any(inner_high[owner] & (boxes[:, 2:] > high[owner] - margin), axis=1)
    redundant = np.zeros(len(boxes), bool)
    some = np.flatnonzero(cut)
    for window in range(len(regions)):
        least = np.where(inner_low[window], low[window] + margin[some], -np.inf)
        most = np.where(inner_high[window], high[window] - margin[some], np.inf)
        within = (boxes[some, :2] >= least).all(1) & (boxes[some, 2:] <= most).all(1)
        redundant[some[within & (owner[some] != window)]] = True
    return cut, redundant


def _same(
    found: Objects, regions: Floats, owner: NDArray[np.int64], cut: NDArray[np.bool_], tiling: Tiling
) -> dict[int, list[int]]:
    """List for each detection those of other windows that are the same object, or another part of it."""
    boxes, labels = found.boxes.double().numpy(), found.labels.numpy()
    low = np.maximum(regions[:, None, :2], regions[None, :, :2])
    high = np.minimum(regions[:, None, 2:], regions[None, :, 2:])
    places = [np.flatnonzero(owner == window) for window in range(len(regions))]
    pairs: dict[int, list[int]] = {}
    for a, b in np.argwhere(np.triu((low < high).all(2), 1)).tolist():
        first, second = places[a], places[b]
        if not len(first) or not len(second):
            continue
        i, j = (index.ravel() for index in np.meshgrid(first, second, indexing="ij"))
        common = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
        near = (labels[i] == labels[j]) & (common > 0).all(1)
        i, j = i[near], j[near]
        shared = np.concatenate((low[a, b], high[a, b]))
        overlap = _overlap(boxes, i, j, cut, shared, tiling.join)
        if tiling.join == "mask":
            both = cut[i] == cut[j]
            for place in np.flatnonzero(both).tolist():
                within = shared if cut[i[place]] else None
                overlap[place] = _mask_overlap(found, int(i[place]), int(j[place]), within)
        for one, other in zip(i[overlap >= tiling.join_thresh].tolist(), j[overlap >= tiling.join_thresh], strict=True):
            pairs.setdefault(one, []).append(int(other))
            pairs.setdefault(int(other), []).append(one)
    return pairs


def _overlap(
    boxes: Floats,
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    cut: NDArray[np.bool_],
    shared: Floats,
    join: Join,
) -> Floats:
    """Compute how much pairs of boxes overlap, [P].

    Args:
        boxes: [N, 4].
        i, j: indices of the pairs, [P].
        cut: which boxes are cut, [N]. Two of these are compared within `shared`; of one, the share of its box counts
            that lies in the other.
        shared: the region that both windows see, [4].
        join: the measure of others.
    """
    both, one = cut[i] & cut[j], cut[i] != cut[j]

    def clipped(box: Floats) -> Floats:
        within = np.concatenate((np.maximum(box[:, :2], shared[:2]), np.minimum(box[:, 2:], shared[2:])), 1)
        return np.where(both[:, None], within, box)

    a, b = clipped(boxes[i]), clipped(boxes[j])

    def area(box: Floats) -> Floats:
        sides: Floats = (box[:, 2:] - box[:, :2]).clip(0)
        product: Floats = sides.prod(1)
        return product

    common = area(np.concatenate((np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])), 1))
    of_a, of_b = area(a), area(b)
    whole = of_a + of_b - common if join == "iou" else np.minimum(of_a, of_b)
    divisor = np.where(one, np.where(cut[i], of_a, of_b), whole)
    result: Floats = np.divide(common, divisor, out=np.zeros_like(common), where=divisor > 0)
    return result


def _mask_overlap(found: Objects, i: int, j: int, shared: Floats | None) -> float:
    """Compute the intersection of two masks over the smaller one, both within a region if one is given."""
    assert found.masks is not None
    boxes = found.boxes[[i, j]].double()
    x1, y1 = (int(v) for v in boxes[:, :2].min(0).values.floor().tolist())
    x2, y2 = (math.ceil(v) for v in boxes[:, 2:].max(0).values.tolist())
    if shared is not None:
        x1, y1 = max(x1, int(shared[0])), max(y1, int(shared[1]))
        x2, y2 = min(x2, int(shared[2])), min(y2, int(shared[3]))
    if x2 <= x1 or y2 <= y1:
        return 0.0
    moved = boxes - boxes.new_tensor([x1, y1, x1, y1])
    pasted = []
    for soft, (left, top) in paste_probabilities(found.masks[[i, j]], moved, (y2 - y1, x2 - x1)):
        mask = torch.zeros(y2 - y1, x2 - x1, dtype=torch.bool)
        mask[top : top + soft.shape[0], left : left + soft.shape[1]] = soft >= 0.5
        pasted.append(mask)
    smaller = min(int(pasted[0].sum()), int(pasted[1].sum()))
    return float((pasted[0] & pasted[1]).sum()) / smaller if smaller else 0.0


def _united(found: Objects, groups: Sequence[Sequence[int]]) -> Objects:
    """Return one object for each group of detections, the first of each being its best."""
    first = torch.tensor([group[0] for group in groups], dtype=torch.int64)
    objects = found.select(first)
    boxes, masks = objects.boxes.clone(), None if objects.masks is None else objects.masks.clone()
    for place, group in enumerate(groups):
        if len(group) == 1:
            continue
        parts = found.boxes[list(group)]
        box = torch.cat((parts[:, :2].min(0).values, parts[:, 2:].max(0).values))
        boxes[place] = box
        if masks is not None:
            assert found.masks is not None
            masks[place] = _united_grid(found.masks[list(group)], parts, box)
    return replace(objects, boxes=boxes, masks=masks)


def _united_grid(grids: Tensor, boxes: Tensor, box: Tensor) -> Tensor:
    """Sample the grids of the parts of an object at the cells of one grid that spans the whole, [M, M]."""
    rows, columns = grids.shape[1:]
    cells = torch.tensor([columns, rows, columns, rows]) / (box[2:] - box[:2]).repeat(2)
    united = torch.zeros(rows, columns, dtype=torch.float64)
    for soft, (left, top) in paste_probabilities(grids, (boxes - box[:2].repeat(2)) * cells, (rows, columns)):
        window = united[top : top + soft.shape[0], left : left + soft.shape[1]]
        torch.maximum(window, soft, out=window)
    return united.to(grids.dtype)
