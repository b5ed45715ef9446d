"""Encode masks as COCO's compressed run-length codes, and decode them, over each object's window alone.

A code counts the pixels of the image column by column, in turns outside and inside of the object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor

from detector.types import Masks, Size

Integers = NDArray[np.int64]

UNREADABLE = "not a text that pycocotools writes"


def encode(masks: Masks) -> list[dict[str, Any]]:
    """Encode masks as `{"size": [H, W], "counts": str}` each."""
    corners = [(x1, y1) for x1, y1, _, _ in masks.windows.tolist()]
    return [encode_window(masks.window(i), corner, masks.size) for i, corner in enumerate(corners)]


def encode_window(pixels: Tensor, corner: tuple[int, int], size: Size) -> dict[str, Any]:
    """Encode one mask as `{"size": [H, W], "counts": str}`.

    Args:
        pixels: bool [h, w], the mask within its window.
        corner: x1 and y1 of the window, which lies within the image.
        size: height and width of the image.
    """
    height, width = size
    columns = np.pad(pixels.cpu().numpy().T.view(np.int8), ((0, 0), (1, 1)))
    column, row = np.nonzero(np.diff(columns, axis=1))  # in each column, where a run begins and where it ends
    edges = (corner[0] + column) * height + corner[1] + row
    touching = np.flatnonzero(edges[2::2] == edges[1:-1:2])  # from a column's last row to the next one's first
    edges = np.delete(edges, np.concatenate((2 * touching + 1, 2 * touching + 2)))
    counts = np.diff(edges, prepend=0, append=height * width)
    counts = counts if counts[-1] else counts[:-1]
    packed = rle.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def from_segmentation(segmentation: Any, size: Size) -> dict[str, Any]:
    """Convert a valid segmentation of COCO's annotations, polygons or run lengths, to a compressed run-length code."""
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, *size))  # type: ignore[no-any-return]
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, *size)  # type: ignore[no-any-return]
    return segmentation  # type: ignore[no-any-return]


def decode(codes: Sequence[Mapping[str, Any]], size: Size, names: Sequence[str] | None = None) -> Masks:
    """Decode masks, all at once.

    Args:
        codes: each with `counts`, str or bytes.
        size: height and width of the image.
        names: of the codes, for an error's message.

    Raises:
        ValueError: `counts` is no run-length code of an image of this size.
    """
    if not codes:
        return Masks.from_windows([], [], size)
    sizes = np.broadcast_to(np.array(size), (len(codes), 2))
    runs, ends, count = _checked([c["counts"] for c in codes], sizes, lambda i: names[i] if names else f"mask {i}")
    filled = (_places(count.cumsum() - count, count) % 2 == 1) & (runs > 0)
    code = np.repeat(np.arange(len(codes)), count)[filled]
    return _fill(ends[filled] - runs[filled], ends[filled], code, len(codes), size)


def filled_pixels(counts: Sequence[str], sizes: Integers, name: Callable[[int], str]) -> Integers:
    """Count the pixels of masks by their codes.

    Args:
        counts: N run-length codes.
        sizes: height and width of their images, [N, 2].
        name: of a code, by its number, for an error's message.

    Returns:
        int64 [N].

    Raises:
        ValueError: one of them is no run-length code of an image of its size.
    """
    if not counts:
        return np.zeros(0, np.int64)
    runs, _, count = _checked(counts, sizes, name)
    first = count.cumsum() - count
    return np.add.reduceat(np.where(_places(first, count) % 2 == 1, runs, 0), first)


def _checked(
    counts: Sequence[str | bytes], sizes: Integers, name: Callable[[int], str]
) -> tuple[Integers, Integers, Integers]:
    """Unpack and check codes, at least one: all runs, where each ends in its image, and how many each code has."""

    def refuse(broken: NDArray[np.bool_], reason: Callable[[int], str]) -> None:
        if broken.any():
            i = int(broken.argmax())
            raise ValueError(f"{name(i)}: the run lengths are broken ({reason(i)})")

    runs, count = _unpack(counts, refuse)
    first = count.cumsum() - count  # where the runs of each code begin
    total = runs.cumsum()
    ends = total - np.repeat(total[first] - runs[first], count)  # in pixels of the code's image
    wrong = (np.minimum.reduceat(runs, first) < 0) | (ends[first + count - 1] != sizes.prod(1))
    refuse(wrong, lambda i: f"they do not sum to {sizes[i, 0]}*{sizes[i, 1]} pixels")
    return runs, ends, count


def _places(first: Integers, count: Integers) -> Integers:
    """Number the items of consecutive groups, from 0 on in each."""
    return np.arange(count.sum()) - np.repeat(first, count)


def _unpack(
    counts: Sequence[str | bytes], refuse: Callable[[NDArray[np.bool_], Callable[[int], str]], None]
) -> tuple[Integers, Integers]:
    """Unpack the numbers of codes, one code after the other; and how many each has.

    A number is written in groups of five bits, lowest first, each as a character from `0` on whose sixth bit says that
    another follows; the last group's highest bit is the sign. From the fourth number on it is the difference to the
    number before the last.

    Args:
        counts: the codes.
        refuse: `(broken, reason)`, raises if any of the codes is broken; `reason` is given its number.
    """
    texts = [
        text.encode(errors="surrogatepass") if isinstance(text, str) else text if isinstance(text, bytes) else b""
        for text in counts
    ]
    length = np.array([len(text) for text in texts])
    refuse(length == 0, lambda _: UNREADABLE)
    start = length.cumsum() - length
    groups = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    more = (groups & 32) != 0
    refuse(np.logical_or.reduceat((groups < 0) | (groups > 63), start) | more[start + length - 1], lambda _: UNREADABLE)
    last = np.flatnonzero(~more)
    first = np.append(0, last[:-1] + 1)
    width = last - first + 1
    count = np.add.reduceat(~more, start, dtype=np.int64)
    begin = count.cumsum() - count
    refuse(np.maximum.reduceat(width, begin) > 7, lambda _: "a number is too large")
    numbers = np.add.reduceat((groups & 31) << (5 * _places(first, width)), first)
    numbers -= np.where(groups[last] & 16, 1 << (5 * width), 0)
    place = _places(begin, count)
    for head in (1, 2):  # the chains of differences
        chain = np.flatnonzero((place >= head) & ((place - head) % 2 == 0))
        steps = numbers[chain]
        total = steps.cumsum()
        heads = np.maximum.accumulate(np.where(place[chain] == head, np.arange(len(chain)), 0))
        numbers[chain] = total - (total - steps)[heads]
    return numbers, count


def _fill(begins: Integers, ends: Integers, code: Integers, codes: int, size: Size) -> Masks:
    """Fill the smallest window of each code from where its runs inside of the object begin and end."""
    height = size[0]
    windows = np.zeros((codes, 4), np.int64)
    runs = np.bincount(code, minlength=codes)
    present = np.flatnonzero(runs)
    if len(present):
        first = runs[present].cumsum() - runs[present]
        left, right = begins // height, (ends - 1) // height
        top, bottom = begins - left * height, ends - right * height
        several = np.logical_or.reduceat(left != right, first)  # such a run reaches the last row and the first
        windows[present] = np.stack(
            (
                left[first],
                np.where(several, 0, np.minimum.reduceat(top, first)),
                np.maximum.reduceat(right, first) + 1,
                np.where(several, height, np.maximum.reduceat(bottom, first)),
            ),
            1,
        )
    sides = windows[:, 2:] - windows[:, :2]
    area = sides.prod(1)
    offsets = area.cumsum() - area
    steps = np.zeros(area.sum() + 1, np.int8)  # column by column, window after window
    origin = offsets - windows[:, 0] * sides[:, 1] - windows[:, 1]
    if len(present):
        steps[origin[code] + left * sides[code, 1] + top] = 1
        steps[origin[code] + right * sides[code, 1] + bottom] -= 1
    columns = np.add.accumulate(steps[:-1], dtype=np.int8).view(bool)
    pixels = np.empty_like(columns)
    for begin, (w, h) in zip(offsets.tolist(), sides.tolist(), strict=True):
        window = slice(begin, begin + w * h)
        pixels[window].reshape(h, w)[:] = columns[window].reshape(w, h).T
    return Masks(torch.from_numpy(pixels), torch.from_numpy(windows), torch.from_numpy(offsets), size)
