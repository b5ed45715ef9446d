"""Clean annotations of what training would refuse, skip or cut."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from detector.data.annotations import Annotations


def cleaned(table: Annotations, unusable: Collection[int]) -> Annotations:
    """Return annotations as training would use them: without some images, boxes cut, impossible areas left out.

    Args:
        table: as it is read, without the entries that cannot be read and the boxes that are skipped.
        unusable: numbers of images that cannot be used.
    """
    kept = table.select(np.setdiff1d(np.arange(len(table)), list(unusable)))
    x1, y1, x2, y2 = kept.corners().T
    return replace(
        kept,
        boxes=np.stack((x1, y1, x2 - x1, y2 - y1), 1),
        areas=np.where(kept.areas < 0, np.nan, kept.areas),
    )
