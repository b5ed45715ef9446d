"""The distances of Gaussians written out pair by pair in Python, which the operator must equal."""

import math

import torch
from torch import Tensor

import ops


def wasserstein(box: list[float], other: list[float]) -> float:
    """Compute the squared 2-Wasserstein distance of two boxes by the formula of two Gaussians, with matrices.

    |m1 - m2|² + trace(S1 + S2 - 2 (S1^½ S2 S1^½)^½); covariances are diagonal, so that roots are those of the entries.
    """
    (mean1, var1), (mean2, var2) = gaussian(box), gaussian(other)
    centre = sum((a - b) ** 2 for a, b in zip(mean1, mean2, strict=True))
    return centre + sum(a + b - 2 * math.sqrt(math.sqrt(a) * b * math.sqrt(a)) for a, b in zip(var1, var2, strict=True))


def divergence(box: list[float], other: list[float]) -> float:
    """Compute the Kullback-Leibler divergence of a box from another: the sum of those along the two axes."""
    (mean1, var1), (mean2, var2) = gaussian(box), gaussian(other)
    return sum(
        0.5 * (v1 / v2 + (m1 - m2) ** 2 / v2 - 1 - math.log(v1 / v2))
        for m1, v1, m2, v2 in zip(mean1, var1, mean2, var2, strict=True)
    )


def gaussian(box: list[float]) -> tuple[list[float], list[float]]:
    """Return the mean and the variances of a box."""
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2, (y1 + y2) / 2], [((x2 - x1) / 2) ** 2, ((y2 - y1) / 2) ** 2]


MEASURES = {"wasserstein": wasserstein, "divergence": divergence}


def matrix(boxes: Tensor, objects: Tensor, crowd: Tensor, distance: str) -> list[list[float]]:
    """Return the distances [G][N], infinite for crowd regions and boxes without a positive side."""

    def between(box: list[float], other: list[float], is_crowd: bool) -> float:
        good = all(b[2] > b[0] and b[3] > b[1] for b in (box, other))
        return MEASURES[distance](box, other) if good and not is_crowd else math.inf

    flags = crowd.tolist()
    return [[between(b, o, c) for b in boxes.tolist()] for o, c in zip(objects.tolist(), flags, strict=True)]


def reference(distances: Tensor, topk: int, crowd: Tensor) -> ops.BoxRanks:
    """Rank by the matrix of all distances [G, N]."""
    count = distances.shape[1]
    if len(distances) == 0:
        places = torch.zeros(count, dtype=torch.int64)
        return ops.BoxRanks(distances.new_full((count,), torch.inf), places, places - 1)
    limits = [sorted(row)[min(topk, count) - 1] if count else 0.0 for row in distances.tolist()]
    within = torch.where(distances <= distances.new_tensor(limits)[:, None], distances, torch.inf)
    least, matched = distances.min(0) if count else (distances.new_zeros(0), torch.zeros(0, dtype=torch.int64))
    near, ranked = within.min(0) if count else (least, matched)
    first = next((i for i, flag in enumerate(crowd.tolist()) if not flag), 0)
    return ops.BoxRanks(least, torch.where(least.isfinite(), matched, first), torch.where(near.isfinite(), ranked, -1))


def random_case(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Draw boxes [N, 4], objects [G, 4] and crowd [G] of tiny objects; some have no side, some are equal."""
    generator = torch.Generator().manual_seed(seed)

    def number(most: int) -> int:
        return int(torch.randint(most + 1, (), generator=generator))

    def draw(count: int) -> Tensor:
        side = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 4).exp()
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60 - side / 2
        return torch.cat((corner, corner + side), 1)

    objects, boxes = draw((0, 1, 2, 5, 12)[number(4)]), draw((0, 1, 3, 60, 255, 300)[number(5)])
    if number(1):
        boxes, objects = (boxes * 4).round() / 4, (objects * 4).round() / 4  # many equal distances
    if number(1) and len(objects):
        boxes = torch.cat((boxes, objects, objects[:1]))
    if len(boxes) > 3 and number(1):
        boxes[0, 2] = boxes[0, 0]
        boxes[1] = boxes[1][[2, 3, 0, 1]]
        boxes[2, 1] = torch.nan
    crowd = torch.rand(len(objects), generator=generator) < (0.0, 0.0, 0.3, 1.0)[number(3)]
    return boxes.to(dtype), objects.to(dtype), crowd


def assert_same(actual: ops.BoxRanks, expected: ops.BoxRanks) -> None:
    """Assert that all results are equal, to the last bit, in dtype too."""
    for name, mine, theirs in zip(ops.BoxRanks._fields, actual, expected, strict=True):
        assert mine.dtype == theirs.dtype, name
        assert torch.equal(mine, theirs), name
