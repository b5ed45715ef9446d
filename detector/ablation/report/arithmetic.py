"""Two claims that need no training, computed with the reference operators."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ops import reference

IMAGE, STRIDE, SIDE, BINS = 800, 32, 665, 7
"""C1's example: a box of 665 px in the corner of an image of 800 px, at stride 32."""


@dataclass(frozen=True)
class Reach:
    """How far the pooled region ends beyond (+) or short of (-) the box's edge, in pixels."""

    textbook: float
    """of RoIPool with floor"""
    in_use: float
    """of RoIPool as in use: rounded, with both end cells included"""
    align: float
    """of RoIAlign"""


def reach() -> Reach:
    """Compute C1 on a map whose cells hold their own index, so that a pooled value tells its position."""
    cells = IMAGE // STRIDE
    ramp = torch.arange(cells, dtype=torch.float64).expand(1, 1, cells, cells)
    box = torch.tensor([[0, 0, 0, SIDE, SIDE]], dtype=torch.float64)

    def last_edge(quantization: str) -> float:
        pooled = reference.roi_pool(ramp, box, (BINS, BINS), 1 / STRIDE, quantization)
        return (float(pooled[0, 0, 0, -1]) + 1) * STRIDE  # the maximum is the last cell of the bin

    centres = reference.roi_align(ramp, box, (BINS, BINS), 1 / STRIDE, 1, aligned=True)[0, 0, 0] + 0.5
    half = (centres[-1] - centres[-2]) / 2
    align = float(centres[-1] + half) * STRIDE
    return Reach(last_edge("floor") - SIDE, last_edge("round") - SIDE, align - SIDE)


@dataclass(frozen=True)
class Support:
    """The cells that receive gradient from one output."""

    pool: int
    """number of cells with RoIPool"""
    align: int
    """number of cells with RoIAlign"""
    error: float
    """the largest difference between RoIAlign's gradient and (1-Δh)(1-Δw), averaged over the samples"""


def support() -> Support:
    """Compute C11: the gradient of a single bin on a random map of 9 × 9 cells, and the paper's formula."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 9, 9, generator=generator, dtype=torch.float64)
    x1, y1, x2, y2, samples = 1.3, 2.1, 6.2, 5.8, 2
    box = torch.tensor([[0, x1, y1, x2, y2]], dtype=torch.float64)
    pool, align = image.clone().requires_grad_(), image.clone().requires_grad_()
    reference.roi_pool(pool, box, (1, 1)).sum().backward()  # type: ignore[no-untyped-call]
    reference.roi_align(align, box, (1, 1), 1.0, samples, aligned=True).sum().backward()  # type: ignore[no-untyped-call]
    assert pool.grad is not None
    assert align.grad is not None
    rows, columns = (
        reference.sample_points(low - 0.5, high - low, 1, samples)[0] for low, high in ((y1, y2), (x1, x2))
    )
    cells = torch.arange(9, dtype=torch.float64)

    def weights(points: list[float]) -> Tensor:
        return (1 - (cells - torch.tensor(points, dtype=torch.float64)[:, None]).abs()).clamp(min=0).mean(0)

    expected = weights(rows)[:, None] * weights(columns)
    error = float((align.grad[0, 0] - expected).abs().max())
    return Support(int((pool.grad != 0).sum()), int((align.grad != 0).sum()), error)
