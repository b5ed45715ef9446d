"""Tell from the coordinates of boxes whether they were counted from 1, as VOC's are, or from 0."""

from __future__ import annotations

import numpy as np

from detector.data.annotations import Floats

ENOUGH = 5
"""Boxes at an edge of their image, below which nothing is concluded from those that are not."""


def origin_doubt(corners: Floats, limits: Floats, origin: int) -> str | None:
    """Say what contradicts an origin.

    Counted from 1, pixels are 1..W, and a box at the left edge begins at 1. Counted from 0, edges are 0..W, and a box
    at the left edge begins at 0. Pixels counted from 0 are 0..W-1, so that no box ends at W.

    Args:
        corners: xmin, ymin, xmax, ymax as in the files, [M, 4].
        limits: width and height of each box's image, [M, 2].
        origin: 1 or 0, by which they are to be read.

    Returns:
        a sentence, or None where nothing contradicts it.
    """
    begin, end = corners[:, :2], corners[:, 2:]
    zeros = int(((begin >= 0) & (begin < 1)).any(1).sum())
    ones = int(((begin == 1).any(1)).sum())
    ends, before = int((end == limits).any(1).sum()), int((end == limits - 1).any(1).sum())
    short = (
        f". None ends at the width or height of its image, but {before} a pixel before: if the tool counts pixels from "
        "0, right and bottom edges are then one pixel short"
        if not ends and before >= ENOUGH
        else ""
    )
    if origin == 1 and zeros:
        return (
            f"{zeros} of {len(corners)} boxes begin at 0 ({ones} at 1), where VOC counts pixels from 1; if your tool "
            f"counts from 0, left and top edges are a pixel out, and dataset.voc_origin=0 reads them right{short}"
        )
    if origin == 0 and not zeros and min(ones, ends) >= ENOUGH:
        return (
            f"no box begins at 0, but {ones} of {len(corners)} at 1, and {ends} end at the width or height of their "
            "image, as if counted from 1; dataset.voc_origin=1 reads them so"
        )
    if origin == 0 and zeros and short:
        return f"{zeros} of {len(corners)} boxes begin at 0{short}"
    return None


def shifted(corners: Floats, origin: int) -> Floats:
    """Convert corners to continuous pixels, x1, y1, x2, y2: of VOC's own, xmax is the last pixel of the box."""
    return corners - np.array([origin, origin, 0, 0], np.float64)
