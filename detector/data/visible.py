"""Cut objects to what is seen of them, where images are put over or beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.boxes import clip
from detector.data.remap import rectangles
from detector.data.transforms import GREY, ROUNDING
from detector.types import Masks, Size, Target


def canvas(image: Tensor, size: Size) -> Tensor:
    """Make a grey image like another, stored channels last."""
    return torch.full((*size, image.shape[0]), GREY, dtype=image.dtype).permute(2, 0, 1)


def _overlap(offset: int, length: int, limit: int) -> tuple[slice, slice]:
    """Return which of `limit` pixels are covered by `length` pixels from `offset` on, and which of those cover them."""
    begin, end = max(offset, 0), max(min(offset + length, limit), max(offset, 0))
    return slice(begin, end), slice(begin - offset, end - offset)


def together(images: Sequence[Tensor]) -> Tensor:
    """Return the first of some images in a type that holds the values of all."""
    dtype = images[0].dtype
    for image in images[1:]:
        dtype = torch.promote_types(dtype, image.dtype)
    return images[0].to(dtype)


def paste(image: Tensor, source: Tensor, offset: tuple[int, int], region: NDArray[np.bool_]) -> None:
    """Copy the pixels of `source` that lie in `region` [H, W] of `image`, in place."""
    (y, v), (x, u) = (_overlap(o, s, m) for o, s, m in zip(offset, source.shape[1:], image.shape[1:], strict=True))
    inside = torch.from_numpy(region[y, x])
    image[:, y, x] = torch.where(inside, source[:, v, u], image[:, y, x])


def _shapes(target: Target, size: Size) -> list[tuple[NDArray[np.bool_], int, int]]:
    """Return the pixels of each object within a window, and the window's y and x; those of its box without a mask."""
    boxes = rectangles(target.boxes, size)
    found = []
    for i in range(len(target)):
        masks = boxes if target.masks is None or not bool(target.masks.window(i).any()) else target.masks
        x, y = masks.windows[i, :2].tolist()
        found.append((masks.window(i).numpy(), y, x))
    return found


def union(target: Target, size: Size, canvas: Size, offset: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels [H, W] of a canvas that objects of an image at `offset` cover."""
    region = np.zeros(canvas, bool)
    for pixels, y, x in _shapes(target, size):
        (rows, v), (columns, u) = (
            _overlap(o, s, m) for o, s, m in zip((y + offset[0], x + offset[1]), pixels.shape, canvas, strict=True)
        )
        region[rows, columns] |= pixels[v, u]
    return region


def seen(
    target: Target,
    size: Size,
    region: NDArray[np.bool_],
    offset: tuple[int, int],
    min_visible: float | NDArray[np.float64],
) -> Target:
    """Cut objects to what is seen of them through a region.

    An edge of a box moves only where the visible pixels no longer reach as far as all pixels of the object do; it then
    lies at the last visible pixel.

    Args:
        target: objects of an image.
        size: height and width of that image.
        region: the pixels of a canvas that show the image, bool [H, W].
        offset: y and x of the image's corner on the canvas.
        min_visible: objects are dropped of which a smaller share of the pixels is seen, and those of which none is;
            crowds only if none is. One share for all, or one for each, [G].

    Returns:
        The objects left, in pixels of the canvas.
    """
    least = np.broadcast_to(min_visible, (len(target),))
    kept, boxes, pixels, corners = [], [], [], []
    for i, (shape, top, left) in enumerate(_shapes(target, size)):
        y, x = top + offset[0], left + offset[1]
        (rows, v), (columns, u) = (_overlap(o, s, m) for o, s, m in zip((y, x), shape.shape, region.shape, strict=True))
        part = shape[v, u] & region[rows, columns]
        total, count = int(shape.sum()), int(part.sum())
        if count == 0 or (count < least[i] * total and not bool(target.crowd[i])):
            continue
        box = target.boxes[i] + torch.tensor([offset[1], offset[0]] * 2)
        if count < total:
            box = _cut(box, _edges(shape, y, x), _edges(part, rows.start, columns.start))
        kept.append(i)
        boxes.append(box)
        empty = target.masks is not None and not bool(target.masks.window(i).any())
        pixels.append(torch.from_numpy(np.zeros((0, 0), bool) if empty else part))
        corners.append((columns.start, rows.start))
    whole = region.shape[0], region.shape[1]
    left_over = target.select(torch.tensor(kept, dtype=torch.int64))
    moved = clip(torch.stack(boxes), whole) if boxes else left_over.boxes
    known = None if left_over.masks is None else left_over.masks.known
    masks = None if known is None else Masks.from_windows(pixels, corners, whole, known)
    return replace(left_over, boxes=moved, masks=masks)


def _edges(pixels: NDArray[np.bool_], y: int, x: int) -> Tensor:
    columns, rows = (np.flatnonzero(pixels.any(axis)) for axis in (0, 1))
    return torch.tensor([x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1], dtype=torch.float32)


def _cut(box: Tensor, whole: Tensor, part: Tensor) -> Tensor:
    """Move the edges of a box at which pixels are missing, [4] each: the box, bounds of all and of visible pixels."""
    moved = torch.where(whole == part, box, part)
    proper = (moved[2:] - moved[:2] > ROUNDING).repeat(2)  # a box may lie beside its mask
    return torch.where(proper, moved, part)


def join(targets: Sequence[Target], size: Size) -> Target:
    """Concatenate the objects of targets on one image of `size`; all have masks, or none has."""
    masks = [t.masks for t in targets if t.masks is not None]
    lengths = [len(m.pixels) for m in masks]
    starts = np.cumsum([0, *lengths]).tolist()
    joined = Target(
        torch.cat([t.boxes for t in targets]),
        torch.cat([t.labels for t in targets]),
        torch.cat([t.crowd for t in targets]),
        torch.cat([t.difficult for t in targets]),
    )
    if masks:
        joined.masks = Masks(
            torch.cat([m.pixels for m in masks]),
            torch.cat([m.windows for m in masks]),
            torch.cat([m.offsets + start for m, start in zip(masks, starts[:-1], strict=True)]),
            size,
            torch.cat([m.known for m in masks]),
        )
    return joined
