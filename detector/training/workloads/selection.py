"""Select detections among many scored boxes, as a head does for images with hundreds of objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from detector.models.selection import Select

SIZE = (1024, 1024)
CLASSES = 4


def candidates(count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Draw boxes [N, 4], four about each of N / 4 objects of 16 to 64 px, with scores [N] and classes [N]."""
    generator = torch.Generator().manual_seed(count)
    objects = count // 4
    side = 16 * 2 ** (2 * torch.rand(objects, 2, generator=generator))
    corner = torch.rand(objects, 2, generator=generator) * (torch.tensor(SIZE) - side)
    boxes = torch.cat((corner, corner + side), 1).repeat(4, 1)
    boxes = boxes + 3 * torch.randn(len(boxes), 4, generator=generator)
    scores = 0.1 + 0.9 * torch.rand(len(boxes), generator=generator)
    labels = (torch.arange(objects) % CLASSES).repeat(4)
    return boxes.to(device), scores.to(device), labels.to(device)


def ours(count: int, kept: int, device: torch.device) -> Callable[[], object]:
    """Prepare this project's selection of `kept` detections, from class probabilities on."""
    boxes, scores, labels = candidates(count, device)
    probabilities = torch.zeros(len(boxes), CLASSES, device=device)
    probabilities[torch.arange(len(boxes), device=device), labels] = scores
    select = Select(topk_per_image=kept)
    return lambda: select(probabilities, lambda roi, _: boxes[roi], [len(boxes)], [SIZE])


def torchvision(count: int, kept: int, device: torch.device) -> Callable[[], object]:
    """Prepare torchvision's NMS alone, without thresholds and clipping."""
    from torchvision.ops import batched_nms

    boxes, scores, labels = candidates(count, device)
    return lambda: batched_nms(boxes, scores, labels, 0.5)[:kept]


CASES = {
    f"{kept} detections of {count} boxes": {
        "ours": partial(ours, count, kept),
        "torchvision's NMS": partial(torchvision, count, kept),
    }
    for count, kept in ((1000, 100), (2000, 1000), (8000, 1000))
}
