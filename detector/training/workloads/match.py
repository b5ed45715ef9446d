"""Match the RPN's anchors on an image of 800 x 1344 px (P2..P6, three ratios: 268,569) with objects of 8 to 256 px."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from detector.matching import Matcher
from detector.models.anchors import Anchors
from detector.types import Target

SIZE = (800, 1344)
STRIDES = (4, 8, 16, 32, 64)
HIGH, LOW = 0.7, 0.3


def inputs(objects: int, device: torch.device) -> tuple[Tensor, Target]:
    """Make the anchors [N, 4], and objects with log-uniform sides anywhere on the image."""
    make = Anchors([8 * stride for stride in STRIDES], [0.5, 1.0, 2.0], STRIDES)
    levels = [torch.empty(1, 0, *(-(-side // stride) for side in SIZE)) for stride in STRIDES]
    generator = torch.Generator().manual_seed(objects)
    side = 8 * 2 ** (5 * torch.rand(objects, 2, generator=generator))
    corner = torch.rand(objects, 2, generator=generator) * (torch.tensor([SIZE[1], SIZE[0]]) - side)
    flags = torch.zeros(objects, dtype=torch.bool)
    labels = torch.zeros(objects, dtype=torch.int64)
    target = Target(torch.cat((corner, corner + side), 1), labels, flags, flags.clone())
    return torch.cat(make(levels, SIZE)).to(device), target.to(device)


def ours(objects: int, device: torch.device) -> Callable[[], object]:
    """Prepare this project's matcher, as the RPN calls it."""
    matcher = Matcher(HIGH, LOW, allow_low_quality_matches=True)
    return partial(matcher, *inputs(objects, device))


def torchvision(objects: int, device: torch.device) -> Callable[[], object]:
    """Prepare torchvision's matcher, as its RPN calls it."""
    from torchvision.models.detection import _utils
    from torchvision.ops import box_iou

    matcher = _utils.Matcher(HIGH, LOW, allow_low_quality_matches=True)
    anchors, target = inputs(objects, device)
    return lambda: matcher(box_iou(target.boxes, anchors))


def detectron2(objects: int, device: torch.device) -> Callable[[], object]:
    """Prepare Detectron2's matcher, as its RPN calls it."""
    from detectron2.modeling.matcher import Matcher as Theirs
    from detectron2.structures import Boxes, pairwise_iou

    matcher = Theirs([LOW, HIGH], [0, -1, 1], allow_low_quality_matches=True)
    anchors, target = inputs(objects, device)
    return lambda: matcher(pairwise_iou(Boxes(target.boxes), Boxes(anchors)))


CASES = {
    f"{count} objects": {
        "ours": partial(ours, count),
        "torchvision": partial(torchvision, count),
        "Detectron2": partial(detectron2, count),
    }
    for count in (10, 100, 600)
}
