"""How tools count the coordinates of boxes in VOC's format, and what the coordinates say about it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from detector.data.annotations import Floats

Origin = Literal[0, 1, "pixels_from_0"]
"""How coordinates are counted. 1: VOC's own, pixels from 1 on, of which xmax is the box's last (supervision). 0: edges,
of which the image's left one is 0 (datumaro, FiftyOne, globox, labelformat, Label Studio, panlabel, pylabel).
"pixels_from_0": pixels from 0 on, of which xmax is the box's last."""

OFFSETS: dict[Origin, tuple[int, int]] = {1: (1, 0), 0: (0, 0), "pixels_from_0": (0, -1)}
"""What is subtracted from xmin and ymin, and from xmax and ymax."""

ENOUGH = 5
"""Boxes at an edge of their image, below which nothing is concluded from those that are not."""


def check_origin(origin: Origin) -> None:
    """Check the key.

    Raises:
        ValueError: it is none.
    """
    if origin not in OFFSETS:
        raise ValueError(f"voc_origin must be 1, as of VOC's own, 0 or pixels_from_0, not {origin!r}")


def continuous(corners: Floats, origin: Origin) -> Floats:
    """Convert xmin, ymin, xmax, ymax to x1, y1, x2, y2 in continuous pixels, [M, 4]."""
    begin, end = OFFSETS[origin]
    return corners - np.array([begin, begin, end, end], np.float64)


def origin_doubt(corners: Floats, limits: Floats, origin: Origin, *, points: bool = False) -> str | None:
    """Say what contradicts an origin: coordinates before the first one, or none at it, or how they are written.

    Args:
        corners: xmin, ymin, xmax, ymax as in the files, [M, 4].
        limits: width and height of each box's image, [M, 2].
        origin: by which they are to be read.
        points: all are written with a decimal point, as 20.0, by which tools that count from 0 can be known, too.

    Returns:
        a sentence, or None where nothing contradicts it.
    """
    begin, end = corners[:, :2], corners[:, 2:]
    zeros = _boxes((begin >= 0) & (begin < 1))
    ones = _boxes(begin == 1)
    ends, before = _boxes(end == limits), _boxes(end == limits - 1)
    total = len(corners)
    likely: Origin
    if zeros:
        likely = "pixels_from_0" if not ends and before >= ENOUGH else 0
        reason = f"{zeros} of {total} boxes begin at 0 ({ones} at 1)"
        if likely != 0:
            reason += f", {before} end a pixel before the width or height of their image, and none at it"
    elif min(ones, ends) >= ENOUGH:
        likely = 1
        reason = f"no box begins at 0, but {ones} of {total} at 1, and {ends} end at the width or height of their image"
    elif points and origin == 1 and bool((corners % 1 == 0).any()) and not (ones and ends):
        likely = 0
        reason = f"the coordinates of all {total} boxes are written with a decimal point, even whole ones"
    else:
        return None
    if likely == origin:
        return None
    return (
        f"{reason}, which is not how voc_origin={origin} counts; if your tool writes them so, edges are a pixel out; "
        f"dataset.voc_origin={likely} reads them right"
    )


def _boxes(hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
    """Count the boxes with a hit in x or y."""
    return int(hits.any(1).sum())
