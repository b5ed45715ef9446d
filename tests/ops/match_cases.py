"""Boxes, objects and crowd regions to match, and the matrix of all pairs that the operator must equal to the bit."""

import torch
from torch import Tensor

import ops


def reference(boxes: Tensor, objects: Tensor, crowd: Tensor) -> ops.BoxMatches:
    """Match by the matrix of all pairs, each step a tensor operation of its own, as the matcher did before."""

    def area(boxes: Tensor) -> Tensor:
        return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])

    def intersection(a: Tensor, b: Tensor) -> Tensor:
        low = torch.maximum(a[:, None, :2], b[None, :, :2])
        high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
        side = (high - low).clamp(min=0)
        return side[..., 0] * side[..., 1]

    if len(objects) == 0:
        zeros = boxes.new_zeros(len(boxes))
        return ops.BoxMatches(zeros - 1, zeros.long(), zeros.bool(), zeros)
    common = intersection(objects, boxes)
    union = area(objects)[:, None] + area(boxes)[None] - common
    overlap = torch.where(union > 0, common / union, 0.0).masked_fill(crowd[:, None], -1.0)
    best, index = overlap.max(0)
    nearest = overlap.max(1, keepdim=True).values if len(boxes) else overlap.new_zeros(len(objects), 1)
    forced = ((overlap == nearest) & (nearest > 0)).any(0)
    own = area(boxes)[:, None]
    share = torch.where(own > 0, intersection(boxes, objects) / own, 0.0)
    covered = share.masked_fill(~crowd, 0.0).max(1).values
    return ops.BoxMatches(best, index, forced, covered)


def anchors(height: int, width: int, stride: int, side: float) -> Tensor:
    """Place boxes of three ratios on each cell of a map, in the order of the map; float32 [N, 4]."""
    ratio = torch.tensor([0.5, 1.0, 2.0]).sqrt()
    half = torch.stack((side / ratio, side * ratio), 1) / 2
    y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij")
    centre = torch.stack((x, y), -1)[:, :, None]
    return torch.cat((centre - half, centre + half), -1).reshape(-1, 4)


def pyramid_case() -> tuple[Tensor, Tensor, Tensor]:
    """Return 4,662 anchors of four levels on an image of 64 x 128, and 70 objects, every seventh a crowd region."""
    boxes = torch.cat([anchors(64 // s, 128 // s, s, 4.0 * s) for s in (3, 4, 8, 16)])
    generator = torch.Generator().manual_seed(0)
    side = 2 + 30 * torch.rand(70, 2, generator=generator)
    corner = torch.rand(70, 2, generator=generator) * (torch.tensor([128.0, 64.0]) - side)
    objects = torch.cat((corner, corner + side), 1)
    return boxes, objects, torch.arange(70) % 7 == 3


def random_case(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Draw boxes [N, 4], objects [G, 4] and crowd [G].

    One in two has anchors in the order of a map, others have boxes anywhere; coordinates may be whole numbers, so that
    many IoUs are equal; some boxes are empty, inverted, far away or equal to an object.
    """
    generator = torch.Generator().manual_seed(seed)

    def number(most: int) -> int:
        return int(torch.randint(most + 1, (), generator=generator))

    def draw(count: int, extent: float, rounding: float) -> Tensor:
        side = torch.rand(count, 2, generator=generator) * extent * (0.02 + torch.rand(count, 1, generator=generator))
        corner = torch.rand(count, 2, generator=generator) * extent - side / 2
        boxes = torch.cat((corner, corner + side), 1)
        return (boxes / rounding).round() * rounding if rounding else boxes

    rounding = (0.0, 1.0, 8.0, 0.25)[number(3)]
    extent = (40.0, 200.0, 1000.0)[number(2)]
    objects = draw((0, 1, 3, 12, 30, 70, 70, 300)[number(7)], extent, rounding)
    if number(1):
        stride = (4, 8, 16)[number(2)]
        levels = [anchors(1 + number(40), 1 + number(40), stride << i, 2.0 * (stride << i)) for i in range(2)]
        boxes = torch.cat(levels)
    else:
        boxes = draw((0, 1, 64, 255, 600, 600, 2000, 5000)[number(7)], extent, rounding)
    crowd = torch.rand(len(objects), generator=generator) < (0.0, 0.0, 0.1, 0.3, 0.9, 1.0)[number(5)]
    for some in (boxes, objects):
        if len(some) > 3 and number(1):
            picked = torch.randint(len(some), (4, 1 + len(some) // 20), generator=generator)
            some[picked[0], 2] = some[picked[0], 0]  # without an area
            some[picked[1]] = some[picked[1]][:, [2, 3, 0, 1]]  # inverted
            some[picked[2], 1] -= 1e6  # far away, and as large
            some[picked[3]] = objects[number(len(objects) - 1)].clone() if len(objects) else 0.0
    return boxes.to(dtype), objects.to(dtype), crowd


def assert_same(actual: ops.BoxMatches, expected: ops.BoxMatches) -> None:
    """Assert that all results are equal, to the last bit, in dtype too."""
    for name, mine, theirs in zip(ops.BoxMatches._fields, actual, expected, strict=True):
        assert mine.dtype == theirs.dtype, name
        assert torch.equal(mine, theirs), name
