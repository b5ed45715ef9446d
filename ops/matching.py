"""Match boxes with objects by their IoU, without a matrix of all pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops import fallback, native
from ops.checks import check_corners


class BoxMatches(NamedTuple):
    """The match of each of N boxes with G objects, some of which are crowd regions."""

    iou: Tensor
    """[N]: the highest IoU with an object that is no crowd region; -1 where there is none"""
    matched: Tensor
    """int64 [N]: that object, the first of equal IoU; 0 where there is none"""
    nearest: Tensor
    """bool [N]: for some object that is no crowd region, no box has a higher IoU with it, and the IoU is not 0"""
    covered: Tensor
    """[N]: the largest share of the box's area within a crowd region; 0 where there is none"""


def match_boxes(boxes: Tensor, objects: Tensor, crowd: Tensor) -> BoxMatches:
    """Match boxes with objects by their IoU (Faster R-CNN, section 3.1.2), crowd regions apart.

    Time and memory do not grow with N * G: where boxes follow each other in space, as anchors do, only pairs that are
    near each other are compared. Results equal those of tensor operations on all pairs to the last bit, on the CPU and
    on a GPU. No gradients.

    Args:
        boxes: Tensor[N, 4], x1, y1, x2, y2 in pixels; any floating dtype. Those of 16 bits are converted to float32.
        objects: Tensor[G, 4], alike. Boxes without an area (empty, inverted, NaN) overlap nothing.
        crowd: bool Tensor[G]: regions of many objects, with which nothing is matched.

    Returns:
        IoU, matched, nearest and covered, as `BoxMatches`; float64 if boxes or objects are, else float32.

    Raises:
        ValueError, TypeError: malformed arguments; the message names the argument and its value.

    Equivalent to: overlap = torchvision.ops.box_iou(objects, boxes), with -1 in the rows of crowd regions; iou,
        matched = overlap.max(0); best = overlap.max(1, keepdim=True).values; nearest = ((overlap == best) & (best >
        0)).any(0).
    """
    arguments = prepared(boxes, objects, crowd)
    if native.available(boxes.device):
        return BoxMatches(*torch.ops.aligned_rcnn.match(*arguments))
    return BoxMatches(*fallback.match(*arguments))


def prepared(boxes: Any, objects: Any, crowd: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Check boxes [N, 4], objects [G, 4] and crowd [G]; the boxes in the dtype of the comparison, without gradients."""
    check_corners(boxes, "boxes", "N")
    check_corners(objects, "objects", "G")
    if not isinstance(crowd, Tensor) or crowd.dtype != torch.bool:
        found = crowd.dtype if isinstance(crowd, Tensor) else type(crowd).__name__
        raise TypeError(f"crowd must be a bool tensor; got {found}")
    if crowd.dim() != 1 or crowd.shape[0] != objects.shape[0]:
        raise ValueError(f"crowd must be Tensor[{objects.shape[0]}], one per object; got shape {tuple(crowd.shape)}")
    for name, tensor in (("objects", objects), ("crowd", crowd)):
        if tensor.device != boxes.device:
            raise ValueError(f"{name} must be on the boxes' device, {boxes.device}; got {tensor.device}")
    dtype = torch.float64 if torch.float64 in (boxes.dtype, objects.dtype) else torch.float32
    return boxes.detach().to(dtype), objects.detach().to(dtype), crowd
