"""Read each image of a dataset once, and find those that cannot be used, and those that are there twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detector.data.check.near import near_hashes
from detector.data.faults import FAULTS
from detector.data.value_range import Beyond

ROWS, COLUMNS = 32, 36
"""of a thumbnail"""

BITS = 6
"""Hashes of nearly equal images differ in at most so many of their 64 bits."""

NEAR = 6.0
"""Thumbnails of nearly equal images differ by at most so many grey values, in the root mean square."""

FLAT = 4.0
"""A thumbnail of a smaller standard deviation shows nothing by which images could be told apart."""

CHUNK = 1 << 13
"""Pairs of thumbnails that are compared at a time."""

Thumbnail = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """What is kept of an image that was read."""

    digest: bytes
    """equal for equal pixels"""
    thumbnail: Thumbnail
    """grey, [32, 36]"""
    beyond: Beyond | None = None
    """values outside of a fixed range"""


def read_pictures(
    read: Callable[[int], Tensor],
    count: int,
    advance: Callable[[], object],
    beyond: Callable[[Tensor], Beyond | None] = lambda _: None,
) -> list[Picture | ValueError | OSError]:
    """Read images, several at a time.

    Args:
        read: reads an image by its number, [D, H, W], 0 to 255.
        count: of the images.
        advance: called after each.
        beyond: finds values outside of a fixed range.

    Returns:
        for each image what is kept of it, or why it cannot be read.
    """

    def look(index: int) -> Picture | ValueError | OSError:
        try:
            image = read(index)
            return replace(picture(image), beyond=beyond(image))
        except FAULTS as error:
            return error

    found = []
    with ThreadPoolExecutor(max(os.cpu_count() or 1, 2)) as pool:
        for item in pool.map(look, range(count)):
            found.append(item)
            advance()
    return found


def picture(image: Tensor) -> Picture:
    """Digest an image [D, H, W] of values from 0 to 255."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(pixels.data)
    return Picture(digest.digest(), thumbnail(pixels))


def thumbnail(pixels: NDArray[Any]) -> Thumbnail:
    """Shrink pixels [H, W, D] to a grey image of `ROWS` x `COLUMNS`, each the mean of a rectangle."""
    height, width, depth = pixels.shape
    kind = np.uint32 if pixels.dtype == np.uint8 else np.float64
    (top, bottom), (left, right) = _edges(height, ROWS), _edges(width, COLUMNS)
    # Not reduceat, which takes five times as long along the first axis.
    flat = pixels.reshape(height, width * depth)
    rows = np.stack([flat[a:b].sum(0, kind) for a, b in zip(top.tolist(), bottom.tolist(), strict=True)])
    sums = np.add.reduceat(rows.reshape(ROWS, width, depth), left, 1)
    means: NDArray[np.float64] = sums.mean(2) / ((bottom - top)[:, None] * (right - left))
    return means.clip(0, 255).round().astype(np.uint8)


def _edges(side: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide a side into cells of at least one pixel: where each begins and ends."""
    begin = np.arange(cells) * side // cells
    return begin, np.maximum(np.append(begin[1:], side), begin + 1)


def hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash thumbnails [N, 32, 36] to 64 bits each: whether each of 8 x 9 means is brighter than its right neighbour."""
    cells = thumbnails.reshape(len(thumbnails), 8, 4, 9, 4).mean((2, 4))
    bits = (cells[:, :, :-1] > cells[:, :, 1:]).reshape(len(thumbnails), 64)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def repeats(pictures: Sequence[Picture]) -> Iterator[tuple[int, int]]:
    """Yield each image, by number, whose pixels were there before: (the first one, this one)."""
    first: dict[bytes, int] = {}
    for number, item in enumerate(pictures):
        before = first.setdefault(item.digest, number)
        if before != number:
            yield before, number


def near_pairs(pictures: Sequence[Picture]) -> list[tuple[int, int]]:
    """Find pairs of images that look the same, though their pixels are not equal; the first number is the lower."""
    if len(pictures) < 2:
        return []
    small = np.stack([item.thumbnail for item in pictures])
    telling = np.flatnonzero(small.reshape(len(small), -1).std(1) >= FLAT)
    pairs = telling[near_hashes(hashes(small[telling]), BITS)]
    numbers: dict[bytes, int] = {}
    digests = np.array([numbers.setdefault(item.digest, len(numbers)) for item in pictures])
    pairs = pairs[digests[pairs[:, 0]] != digests[pairs[:, 1]]]
    found: list[tuple[int, int]] = []
    for begin in range(0, len(pairs), CHUNK):
        a, b = pairs[begin : begin + CHUNK].T
        difference = small[a].astype(np.float32) - small[b]
        alike = (difference**2).mean((1, 2)) <= NEAR**2
        found += zip(a[alike].tolist(), b[alike].tolist(), strict=True)
    return found


def similar_groups(pictures: Sequence[Picture]) -> NDArray[np.int64]:
    """Number images [N] so that those that look the same have one number."""
    group = list(range(len(pictures)))

    def root(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    for a, b in [*repeats(pictures), *near_pairs(pictures)]:
        group[root(b)] = root(a)
    return np.array([root(number) for number in range(len(group))], np.int64)
