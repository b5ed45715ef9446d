"""Find clusters of hashes that differ in a few bits only, without comparing all pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from detector.data.packed import Integers

BYTES = 8
"""of a hash"""

RUN = 64
"""Hashes with the bytes of a choice in common, above which they are compared in blocks."""

CELLS = 1 << 19
"""Pairs of a block."""

Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Alike = Callable[[Integers, Integers], Flags]


class Clusters:
    """Clusters of the numbers below `count`; at first each is one by itself."""

    def __init__(self, count: int) -> None:
        self.of: Integers = np.arange(count)
        """the lowest number in the cluster of each, [count]"""

    def join_alike(self, one: Integers, other: Integers, alike: Alike) -> None:
        """Join those pairs that are not in one cluster already and are alike."""
        apart = self.of[one] != self.of[other]
        one, other = one[apart], other[apart]
        if len(one):
            same = alike(one, other)
            self.join(one[same], other[same])

    def join(self, one: Integers, other: Integers) -> None:
        """Join the clusters of pairs of numbers, [K] each."""
        while True:
            a, b = self.of[one], self.of[other]
            apart = a != b
            if not apart.any():
                return
            one, other, a, b = one[apart], other[apart], a[apart], b[apart]
            np.minimum.at(self.of, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(further := self.of[self.of], self.of):
                self.of = further


def near_clusters(hashes: Hashes, bits: int, alike: Alike) -> Integers:
    """Find clusters of images: those whose hashes differ in at most some of their 64 bits, if they are alike.

    If at most `bits` bits differ, at least 8 - `bits` of the 8 bytes are equal. So for each choice of so many bytes the
    hashes are sorted by these, and only those that have them in common are compared; and of these only those that are
    not in one cluster already. No list of pairs is kept: thousands of alike images have millions.

    Args:
        hashes: of N images, [N].
        bits: from 0 to 7.
        alike: says of pairs of images, by their numbers, [K] each, whether they are alike, [K].

    Returns:
        the lowest number in each image's cluster, [N]: that of all pairs that are near and alike, and what these join.
    """
    clusters = Clusters(len(hashes))
    parts = hashes.view(np.uint8).reshape(-1, BYTES)
    masks = np.diag(np.full(BYTES, 255, np.uint8)).view(np.uint64)[:, 0]
    for chosen in combinations(range(BYTES), BYTES - bits):
        # A pair is found by the first choice of bytes that it has in common, not again by others.
        near = partial(_near, bits=bits, before=[masks[part] for part in range(chosen[-1]) if part not in chosen])
        key = np.zeros(len(hashes), np.uint64)
        for part in chosen:
            key = (key << np.uint64(8)) | parts[:, part]
        order = np.argsort(key, kind="stable")
        key, ordered = key[order], hashes[order]
        starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])) if len(key) else np.zeros(0, np.int64)
        lengths = np.diff(np.append(starts, len(key)))
        first, step = np.flatnonzero(np.repeat(lengths <= RUN, lengths)), 0
        while len(first):
            step += 1
            first = first[: np.searchsorted(first, len(key) - step)]
            first = first[key[first] == key[first + step]]  # sorted: what differs here differs further on, too
            found = first[near(ordered[first] ^ ordered[first + step])]
            clusters.join_alike(order[found], order[found + step], alike)
        for long in np.flatnonzero(lengths > RUN).tolist():
            _compare_all(order[starts[long] : starts[long] + lengths[long]], hashes, near, clusters, alike)
    return clusters.of


def _near(difference: Hashes, bits: int, before: Sequence[np.uint64]) -> Flags:
    """Find pairs whose hashes differ in few bits, and in each of the bytes of some masks."""
    found: Flags = np.bitwise_count(difference) <= bits
    for mask in before:
        found &= (difference & mask) != 0
    return found


def _compare_all(
    waiting: Integers, hashes: Hashes, near: Callable[[Hashes], Flags], clusters: Clusters, alike: Alike
) -> None:
    """Compare many images with each other, block by block, until those that are left are one cluster."""
    rows = 1
    while True:
        own = clusters.of[waiting]
        names, counts = np.unique(own, return_counts=True)
        if len(names) <= 1:
            return
        last = own == names[counts.argmax()]  # the largest cluster; it need not be compared within itself
        waiting = np.concatenate((waiting[~last], waiting[last]))
        row, column = np.nonzero(near(hashes[waiting[:rows], None] ^ hashes[waiting]))
        clusters.join_alike(waiting[row], waiting[column], alike)
        waiting = waiting[rows:]
        # The first ones are few: where all are alike, they join all others.
        rows = min(2 * rows, max(1, CELLS // max(1, len(waiting))))
