"""Encode masks as COCO's compressed run-length codes, and decode them, over each object's window alone.

A code counts the pixels of the image column by column, in turns outside and inside of the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle

from detector.types import Masks, Size


def encode(masks: Masks) -> list[dict[str, Any]]:
    """Encode masks as `{"size": [H, W], "counts": str}` each."""
    height, width = masks.size
    codes = []
    for i, (x1, y1, _, _) in enumerate(masks.windows.tolist()):
        columns = np.pad(masks.window(i).cpu().numpy().T.view(np.int8), ((0, 0), (1, 1)))
        column, row = np.nonzero(np.diff(columns, axis=1))  # in each column, where a run begins and where it ends
        edges = (x1 + column) * height + y1 + row
        touching = np.flatnonzero(edges[2::2] == edges[1:-1:2])  # from a column's last row to the next one's first
        edges = np.delete(edges, np.concatenate((2 * touching + 1, 2 * touching + 2)))
        counts = np.diff(edges, prepend=0, append=height * width)
        counts = counts if counts[-1] else counts[:-1]
        packed = rle.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
        codes.append({"size": [height, width], "counts": packed["counts"].decode("ascii")})
    return codes


def decode(codes: Sequence[Mapping[str, Any]], size: Size, names: Sequence[str] | None = None) -> Masks:
    """Decode masks.

    Args:
        codes: each with `counts`, str or bytes.
        size: height and width of the image.
        names: of the codes, for an error's message.

    Raises:
        ValueError: `counts` is no run-length code of an image of this size.
    """
    pixels, corners = [], []
    for i, code in enumerate(codes):
        try:
            runs = _unpack(code["counts"])
            if runs.min() < 0 or runs.sum() != size[0] * size[1]:
                raise ValueError(f"they do not sum to {size[0]}*{size[1]} pixels")
        except ValueError as error:
            raise ValueError(f"{names[i] if names else f'mask {i}'}: the run lengths are broken ({error})") from error
        window, corner = _window(runs.cumsum(), size[0])
        pixels.append(torch.from_numpy(window))
        corners.append(corner)
    return Masks.from_windows(pixels, corners, size)


def _unpack(counts: str | bytes) -> NDArray[np.int64]:
    """Unpack the counts of a code.

    A number is written in groups of five bits, lowest first, each as a character from `0` on whose sixth bit says that
    another follows; the last group's highest bit is the sign. From the fourth number on it is the difference to the
    number before the last.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    groups = np.frombuffer(text if isinstance(text, bytes) else b"", np.uint8).astype(np.int64) - 48
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("not a text that pycocotools writes")
    last = np.flatnonzero((groups & 32) == 0)
    first = np.append(0, last[:-1] + 1)
    length = last - first + 1
    if length.max() > 7:
        raise ValueError("a number is too large")
    place = np.arange(len(groups)) - np.repeat(first, length)
    numbers = np.add.reduceat((groups & 31) << (5 * place), first)
    numbers -= np.where(groups[last] & 16, 1 << (5 * length), 0)
    for start in (1, 2):
        numbers[start::2] = numbers[start::2].cumsum()
    return numbers


def _window(ends: NDArray[np.int64], height: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Fill the smallest window, bool [h, w], from the position where each run ends; and its corner (x1, y1)."""
    begins, ends = ends[:-1:2], ends[1::2]  # of the runs inside of the object
    filled = begins < ends
    if not filled.all():
        begins, ends = begins[filled], ends[filled]
    if not len(begins):
        return np.zeros((0, 0), bool), (0, 0)
    left, right = begins // height, (ends - 1) // height
    top, bottom = begins - left * height, ends - right * height
    x1, x2, y1, y2 = int(left[0]), int(right[-1]) + 1, int(top.min()), int(bottom.max())
    if (left != right).any():  # a run over several columns reaches the last row and the first
        y1, y2 = 0, height
    w, h = x2 - x1, y2 - y1
    steps = np.zeros(w * h + 1, np.int8)  # column by column
    steps[(left - x1) * h + top - y1] = 1
    steps[(right - x1) * h + bottom - y1] -= 1
    pixels = np.add.accumulate(steps[:-1], dtype=np.int8).view(bool)
    return np.ascontiguousarray(pixels.reshape(w, h).T), (x1, y1)
