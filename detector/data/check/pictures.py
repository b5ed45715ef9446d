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

from detector.data.check.near import near_clusters
from detector.data.faults import FAULTS
from detector.data.packed import Integers
from detector.data.value_range import Beyond

ROWS, COLUMNS = 32, 36
"""of a thumbnail"""

BITS = 6
"""Hashes of nearly equal images differ in at most so many of their 64 bits."""

EDGE = 2.0
"""Grey values by which a part of an image is brighter than another for the hash; less is noise."""

NEAR = 6.0
"""Thumbnails of nearly equal images differ by at most so many grey values, in the root mean square."""

CONTRAST = 16.0
"""Thumbnails of a smaller standard deviation, as of dark images, are stretched to it before they are compared."""

FLAT = 1e-5
"""Images whose thumbnail varies by less of its largest value are of one colour, and alike only if they are equal."""

CHUNK = 1 << 11
"""Pairs of thumbnails that are compared at a time."""

Thumbnail = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """What is kept of an image that was read."""

    digest: bytes
    """equal for equal pixels"""
    thumbnail: Thumbnail
    """grey, its darkest part 0 and its brightest 255, [32, 36]"""
    scale: float
    """grey values of a step of the thumbnail, for comparing it with others; 0 for an image of one colour"""
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
    return Picture(digest.digest(), *stretch(thumbnail(pixels)))


def thumbnail(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Shrink pixels [H, W, D] to a grey image of `ROWS` x `COLUMNS`, each the mean of a rectangle."""
    height, width, depth = pixels.shape
    kind = np.uint32 if pixels.dtype == np.uint8 else np.float64
    (top, bottom), (left, right) = _edges(height, ROWS), _edges(width, COLUMNS)
    # Not reduceat, which takes five times as long along the first axis.
    flat = pixels.reshape(height, width * depth)
    rows = np.stack([flat[a:b].sum(0, kind) for a, b in zip(top.tolist(), bottom.tolist(), strict=True)])
    sums = np.add.reduceat(rows.reshape(ROWS, width, depth), left, 1)
    means: NDArray[np.float64] = sums.mean(2) / ((bottom - top)[:, None] * (right - left))
    return means.clip(0, 255)


def stretch(means: NDArray[np.float64]) -> tuple[Thumbnail, float]:
    """Stretch a thumbnail to 0..255, and return it with the grey values of a step (see `Picture`)."""
    low, high, contrast = float(means.min()), float(means.max()), float(means.std())
    if not contrast > FLAT * high:
        return np.zeros(means.shape, np.uint8), 0.0
    steps = ((means - low) * (255 / (high - low))).round().astype(np.uint8)
    return steps, (high - low) / 255 * max(1.0, CONTRAST / contrast)


def _edges(side: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide a side into cells of at least one pixel: where each begins and ends."""
    begin = np.arange(cells) * side // cells
    return begin, np.maximum(np.append(begin[1:], side), begin + 1)


class Looks:
    """The thumbnails of N images of more than one colour, in grey values around their mean, for comparing them."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._steps = np.stack([item.thumbnail.ravel() for item in pictures])
        self._means = self._steps.mean(1, dtype=np.float64).astype(np.float32)[:, None]
        self._scales = np.array([item.scale for item in pictures], np.float32)[:, None]
        parts = self._steps.reshape(-1, 8, 4, 9, 4).mean((2, 4), dtype=np.float32).reshape(-1, 72)
        self._parts = (parts - self._means) * self._scales

    def hashes(self) -> NDArray[np.uint64]:
        """Hash each to 64 bits: whether each of 8 x 9 means is brighter than its right neighbour, [N]."""
        parts = self._parts.reshape(-1, 8, 9)
        bits = (parts[:, :, :-1] > parts[:, :, 1:] + EDGE).reshape(len(parts), 64)
        return np.packbits(bits, axis=1).view(np.uint64)[:, 0]

    def alike(self, one: Integers, other: Integers) -> NDArray[np.bool_]:
        """Say of pairs of images, by their numbers, whether they look the same, [K]."""
        perhaps = np.flatnonzero(self._perhaps(one, other))
        same = np.zeros(len(one), bool)
        for begin in range(0, len(perhaps), CHUNK):
            some = perhaps[begin : begin + CHUNK]
            same[some] = self.differences(one[some], other[some]) <= NEAR
        return same

    def _perhaps(self, one: Integers, other: Integers) -> NDArray[np.bool_]:
        """Leave out most of the pairs that do not look the same, at less cost than by `differences`."""
        found = np.empty(len(one), bool)
        rows, columns = np.unique(one), np.unique(other)
        if len(rows) * len(columns) > 8 * len(one):  # means of parts differ by no more than the parts
            for begin in range(0, len(one), CHUNK):
                a, b = one[begin : begin + CHUNK], other[begin : begin + CHUNK]
                found[begin : begin + CHUNK] = ((self._parts[a] - self._parts[b]) ** 2).mean(1) <= NEAR**2 * 1.001
            return found
        ours, place = self._grey(rows), np.searchsorted(columns, other)
        squares = (ours**2).sum(1)[:, None]
        for begin in range(0, len(columns), CHUNK):
            some = np.flatnonzero((place >= begin) & (place < begin + CHUNK))
            theirs = self._grey(columns[begin : begin + CHUNK])
            distances = squares + (theirs**2).sum(1) - 2 * ours @ theirs.T
            of_pairs = distances[np.searchsorted(rows, one[some]), place[some] - begin]
            # These sums are of three large ones, which float32 rounds.
            found[some] = of_pairs <= NEAR**2 * 1.01 * ours.shape[1] + 1e-5 * squares.max()
        return found

    def differences(self, one: Integers, other: Integers) -> NDArray[np.float32]:
        """Compute the root mean squares of the differences of pairs, in grey values, [K]."""
        result: NDArray[np.float32] = np.sqrt(((self._grey(one) - self._grey(other)) ** 2).mean(1))
        return result

    def nearest(self, some: Integers, others: Integers) -> Integers:
        """Find of `others` the one that differs least from each of `some`, by their numbers, [K]."""
        found = np.empty(len(some), np.int64)
        for begin in range(0, len(some), CHUNK // 8):
            ours = self._grey(some[begin : begin + CHUNK // 8])
            best = np.full(len(ours), np.inf, np.float32)
            for start in range(0, len(others), CHUNK):
                theirs = self._grey(others[start : start + CHUNK])
                distance = (theirs**2).sum(1) - 2 * ours @ theirs.T  # up to the sum of the squares of ours
                place = distance.argmin(1)
                least = distance[np.arange(len(ours)), place]
                nearer = np.flatnonzero(least < best)
                best[nearer], found[begin + nearer] = least[nearer], others[start + place[nearer]]
        return found

    def _grey(self, numbers: Integers) -> NDArray[np.float32]:
        grey: NDArray[np.float32] = (self._steps[numbers] - self._means[numbers]) * self._scales[numbers]
        return grey


def repeats(pictures: Sequence[Picture]) -> Iterator[tuple[int, int]]:
    """Yield each image, by number, whose pixels were there before: (the first one, this one)."""
    first: dict[bytes, int] = {}
    for number, item in enumerate(pictures):
        before = first.setdefault(item.digest, number)
        if before != number:
            yield before, number


def similar_groups(pictures: Sequence[Picture]) -> Integers:
    """Number images [N] so that those that look the same, directly or by others between, have one number.

    The number of a group is its first image.
    """
    first = np.arange(len(pictures))
    for before, number in repeats(pictures):
        first[number] = before
    told = [i for i in np.flatnonzero(first == np.arange(len(first))).tolist() if pictures[i].scale > 0]
    if len(told) > 1:
        looks, numbers = Looks([pictures[i] for i in told]), np.array(told)
        group = np.arange(len(pictures))
        group[numbers] = numbers[near_clusters(looks.hashes(), BITS, looks.alike)]
        first = group[first]
    return first


def near_repeats(pictures: Sequence[Picture], groups: Integers) -> list[tuple[int, int, int]]:
    """List each image that looks the same as one before, without equal pixels, by number.

    Args:
        pictures: N images.
        groups: of `similar_groups`, [N].

    Returns:
        the first image of its group, this one, and how many the group has, equal ones counted once. The first of each
        group come first, those of the largest before others.
    """
    found = []
    for members in _distinct(pictures, groups):
        found += [(rank, -len(members), members[0], number) for rank, number in enumerate(members[1:])]
    return [(before, number, -size) for _, size, before, number in sorted(found)]


def near_across(
    ours: Sequence[Picture], theirs: Sequence[Picture], groups: Integers
) -> list[tuple[int, int, int, float]]:
    """List images of one split that look the same as some of another, without equal pixels.

    Args:
        ours, theirs: the images of the two splits.
        groups: of `similar_groups`, of ours and then theirs.

    Returns:
        by their numbers the most similar of ours, the image of theirs, how many of ours look the same, and the
        difference in grey values; in its order, the least first.
    """
    pictures, known = [*ours, *theirs], {item.digest for item in ours}
    found = []
    for members in _distinct(pictures, groups):
        some = np.array([i for i in members if i < len(ours)], np.int64)
        others = np.array([i for i in members if i >= len(ours) and pictures[i].digest not in known], np.int64)
        if not (len(some) and len(others)):
            continue
        looks = Looks([pictures[i] for i in (*some, *others)])
        own = np.arange(len(some), len(some) + len(others))
        best = looks.nearest(own, np.arange(len(some)))
        for number, place, difference in zip(others, best, looks.differences(own, best), strict=True):
            if difference <= NEAR:
                found.append((float(difference), int(number) - len(ours), int(some[place]), len(some)))
    return [(mine, number, count, difference) for difference, number, mine, count in sorted(found)]


def _distinct(pictures: Sequence[Picture], groups: Integers) -> Iterator[list[int]]:
    """Yield the images of each group of several, ascending, equal ones once."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    for members in np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1):
        first = list({pictures[i].digest: i for i in members[::-1].tolist()}.values())
        if len(first) > 1:
            yield sorted(first)
