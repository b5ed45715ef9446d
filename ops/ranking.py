"""Rank boxes by the distance of their Gaussians from objects', without a matrix of all pairs."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops import fallback, native
from ops.checks import check_choice
from ops.matching import prepared

DISTANCES = ("wasserstein", "divergence")
MAX_TOPK = 16


class BoxRanks(NamedTuple):
    """The distances of N boxes from G objects, some of which are crowd regions."""

    distance: Tensor
    """[N]: the least distance from an object that is no crowd region; infinite where there is none"""
    matched: Tensor
    """int64 [N]: that object, the first of equal distance; 0 where there is none"""
    ranked: Tensor
    """int64 [N]: the object of which the box is one of the `topk` nearest, or as near as these; of several the nearest
    one, of these the first; -1 where there is none"""


def rank_boxes(boxes: Tensor, objects: Tensor, crowd: Tensor, distance: str, topk: int) -> BoxRanks:
    """Rank boxes for each object by the distance of their Gaussians, whose standard deviations are half the sides.

    Every pair is compared, but none is stored. Results are equal on the CPU and on a GPU, to the last bit, but for the
    logarithm of the area. No gradients.

    Args:
        boxes: Tensor[N, 4], x1, y1, x2, y2 in pixels; any floating dtype. Those of 16 bits are converted to float32.
        objects: Tensor[G, 4], alike. Boxes whose sides are not both positive have no Gaussian, and are matched and
            ranked nowhere.
        crowd: bool Tensor[G]: regions of many objects, with which nothing is matched.
        distance: "wasserstein", the squared 2-Wasserstein distance in pixels² (Wang et al. 2021, arXiv:2110.13389,
            equation 6); "divergence", the Kullback-Leibler divergence of a box from an object (Xu et al. 2022,
            arXiv:2208.08738, section 3.2).
        topk: boxes of each object, 1 to 16.

    Returns:
        distance, matched and ranked, as `BoxRanks`; float64 if boxes or objects are, else float32.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to: with the matrix of all distances [G, N], infinite in the rows of crowd regions; distance, matched =
        matrix.min(0); limit = matrix.topk(topk, 1, largest=False).values[:, -1:]; ranked = where(matrix <= limit,
        matrix, inf).min(0).indices, and -1 where that minimum is infinite.
    """
    check_choice(distance, "distance", DISTANCES)
    try:
        count = operator.index(topk)
    except TypeError:
        raise TypeError(f"topk must be an int; got {topk!r}") from None
    if not 1 <= count <= MAX_TOPK:
        raise ValueError(f"topk must be between 1 and {MAX_TOPK}; got {topk!r}")
    corners, others, flags = prepared(boxes, objects, crowd)
    arguments: Any = (gaussians(corners), gaussians(others), flags, distance, count)
    if native.available(boxes.device):
        return BoxRanks(*torch.ops.aligned_rcnn.rank(*arguments))
    return BoxRanks(*fallback.rank(*arguments))


def gaussians(boxes: Tensor) -> Tensor:
    """Convert boxes [N, 4] to Gaussians [5, N]: mean x, y, standard deviations x, y, the logarithm of their product.

    They are NaN where a side is not positive.
    """
    corners = boxes.T.contiguous()
    spread = (corners[2:] - corners[:2]) / 2
    spread = torch.where((spread > 0).all(0), spread, torch.nan)
    return torch.cat(((corners[:2] + corners[2:]) / 2, spread, spread.log().sum(0, keepdim=True)))
