"""Find hashes that differ in a few bits only, without comparing all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

BYTES = 8
"""of a hash"""


def near_hashes(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """Find all pairs of hashes that differ in at most some of their 64 bits.

    If at most `bits` bits differ, at least 8 - `bits` of the 8 bytes are equal. So for each choice of so many bytes the
    hashes are sorted by these, and only those that have them in common are compared.

    Args:
        hashes: of N images, [N].
        bits: from 0 to 7.

    Returns:
        the pairs by their numbers, the lower first, [K, 2], in rising order.
    """
    parts = hashes.view(np.uint8).reshape(-1, BYTES)
    found = [np.zeros((0, 2), np.int64)]
    for chosen in combinations(range(BYTES), BYTES - bits):
        key = np.zeros(len(hashes), np.uint64)
        for part in chosen:
            key = (key << np.uint64(8)) | parts[:, part]
        order = np.argsort(key, kind="stable")
        key, ordered = key[order], hashes[order]
        # A pair is found by the first choice of bytes that it has in common, not again by others.
        before = [part for part in range(chosen[-1]) if part not in chosen]
        first, step = np.arange(len(key)), 0
        while len(first):
            step += 1
            first = first[: np.searchsorted(first, len(key) - step)]
            first = first[key[first] == key[first + step]]  # sorted: what differs here differs further on, too
            difference = ordered[first] ^ ordered[first + step]
            near = np.flatnonzero(np.bitwise_count(difference) <= bits)
            others = difference[near].view(np.uint8).reshape(-1, BYTES)[:, before]
            near = first[near[(others != 0).all(1)]]
            found.append(np.stack((order[near], order[near + step]), 1))
    pairs = np.sort(np.concatenate(found), 1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
