"""Compute the gradient of one pooled value with respect to the cells of the feature map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Operator = Callable[[Tensor, Tensor, int], Tensor]
"""(map [1, 1, H, W], rois [1, 5], P) -> [1, 1, P, P], such as `ops.roi_align`"""


def output_gradient(operator: Operator, map: Tensor, box: Sequence[float], pooled: int, bin: Sequence[int]) -> Tensor:
    """Differentiate one pooled value with respect to every cell of the map, by autograd through the operator.

    RoIPool sends the gradient to the cell that holds the maximum; RoIAlign to every cell within a distance of 1 along
    both axes of a sampling point, weighted (1 - dx)(1 - dy) (Mask R-CNN, section 3).

    Args:
        operator: one of `ops`, called with the default `spatial_scale` of 1: boxes are in cells.
        map: [H, W].
        box: x1, y1, x2, y2 in cells, continuous.
        pooled: P, the bins along each side of the output.
        bin: row and column of the bin whose value is differentiated.

    Returns:
        [H, W], of the map's dtype.

    Raises:
        ValueError: there is no such bin.
    """
    if len(bin) != 2 or not all(0 <= i < pooled for i in bin):
        raise ValueError(f"bin must be [row,column], each from 0 to {pooled - 1}, not {list(bin)}")
    leaf = map.detach().clone().requires_grad_()
    roi = torch.tensor([[0.0, *box]], dtype=map.dtype)
    output = operator(leaf[None, None], roi, pooled)[0, 0, bin[0], bin[1]]
    (gradient,) = torch.autograd.grad(output, leaf)
    return gradient


def random_map(cells: int, seed: int) -> Tensor:
    """Draw a map of random values in 0..1, [cells, cells].

    Raises:
        ValueError: `cells` is below 1.
    """
    if not isinstance(cells, int) or cells < 1:
        raise ValueError(f"cells must be a whole number of at least 1, not {cells!r}")
    return torch.rand(cells, cells, generator=torch.Generator().manual_seed(seed))
