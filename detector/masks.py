"""Masks between the M×M grid of the mask head, the image, and COCO's run-length encoding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detector.types import Objects, Size

Paste = Callable[[Tensor, Tensor, Size], Tensor]
"""`paste`, or another way to do it."""


def _axis(low: float, high: float, cells: int, length: int) -> tuple[int, int]:
    """The pixels [first, last) of an axis of `length` where `cells` cells spread over [low, high] may be non-zero."""
    margin = (high - low) / (2 * cells)  # beyond its edge the outermost cell fades to zero within half a cell
    first = min(max(math.floor(low - margin), 0), length)
    last = min(max(math.ceil(high + margin), first), length)
    return first, last


def _weights(low: float, high: float, cells: int, first: int, last: int, device: torch.device) -> Tensor:
    """Bilinear weights [last - first, cells] of the cells at the centres of the pixels [first, last)."""
    centres = torch.arange(first, last, dtype=torch.float64, device=device) + 0.5
    position = (centres - low) / (high - low) * cells - 0.5
    distance = position[:, None] - torch.arange(cells, dtype=torch.float64, device=device)
    return (1 - distance.abs()).clamp(min=0)


def paste(masks: Tensor, boxes: Tensor, size: Size, threshold: float | None = 0.5) -> Tensor:
    """Lay each object's grid of probabilities over its box in the image.

    The grid spans the box in continuous coordinates and is read bilinearly at the centres j + 0.5 of the pixels; it is
    zero outside of itself. This is Detectron2's `paste_masks_in_image` (`grid_sample`, `align_corners=False`); being
    separable, it is computed as two small products of matrices (in float64, so that no GPU's reduced precision enters)
    over each object's own window alone.

    Args:
        masks: floating [N, M, M], probabilities in 0..1; rows and columns may differ in number.
        boxes: [N, 4], xyxy in the image's pixels. A box may cross the image's edge; one without area, or that is not
            finite, gives an empty mask.
        size: height and width of the image.
        threshold: a pixel belongs to the object from this probability (above 0) on; None gives the probabilities.

    Returns:
        bool [N, H, W], or float32 [N, H, W] where `threshold` is None.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if masks.ndim != 3 or boxes.shape != (len(masks), 4):
        raise ValueError(
            f"masks must be [N, M, M] and boxes [N, 4], but they are {tuple(masks.shape)} and {tuple(boxes.shape)}"
        )
    height, width = size
    rows, columns = masks.shape[1:]
    pasted = torch.zeros(
        (len(masks), height, width), dtype=torch.float32 if threshold is None else torch.bool, device=masks.device
    )
    for out, mask, (x1, y1, x2, y2) in zip(pasted, masks.double(), boxes.double().tolist(), strict=True):
        if not (0 < x2 - x1 < math.inf and 0 < y2 - y1 < math.inf):
            continue
        top, bottom = _axis(y1, y2, rows, height)
        left, right = _axis(x1, x2, columns, width)
        down = _weights(y1, y2, rows, top, bottom, mask.device)
        across = _weights(x1, x2, columns, left, right, mask.device)
        soft = down @ mask @ across.T
        out[top:bottom, left:right] = soft if threshold is None else soft >= threshold
    return pasted


def paste_on_whole_pixels(masks: Tensor, boxes: Tensor, size: Size, threshold: float = 0.5) -> Tensor:
    """torchvision's way, for its published models: the box is widened by a cell and cut to whole pixels.

    Arguments and result as of `paste`; a pixel belongs to the object above `threshold`.
    """
    soft: Tensor = paste_masks_in_image(masks[:, None].float(), boxes.float(), size)
    return soft[:, 0] > threshold


def encode(masks: Tensor) -> list[dict[str, Any]]:
    """COCO's compressed run-length codes, `{"size": [H, W], "counts": str}`, of bool masks [N, H, W]; plain JSON."""
    if not len(masks):
        return []
    pixels = np.asfortranarray(masks.cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in coco_mask.encode(pixels)]


class MaskOutput:
    """Encode predicted masks as run-length codes; a `detector.types.Output`.

    Args:
        paste: how masks are laid on the image.
    """

    name = "mask"
    key = "segmentation"
    needs = "masks"

    def __init__(self, paste: Paste = paste) -> None:
        self.paste = paste

    def __call__(self, objects: Objects, size: Size) -> list[dict[str, Any]]:
        """COCO's run-length code of each object; one at a time, as N×H×W can be large."""
        if objects.masks is None:
            raise ValueError("masks are to be written, but the detections have none")
        pairs = zip(objects.masks, objects.boxes, strict=True)
        return [encode(self.paste(mask[None], box[None], size))[0] for mask, box in pairs]
