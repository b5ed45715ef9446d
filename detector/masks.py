"""Paste the mask head's M×M grids into the image, and encode masks as COCO's run-length codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detector.types import Objects, Size

Paste = Callable[[Tensor, Tensor, Size], Tensor]
"""`(masks [N, M, M], boxes [N, 4], size) -> bool [N, H, W]`, such as `paste`."""


def _axis(low: float, high: float, cells: int, length: int) -> tuple[int, int]:
    """Find the pixels [first, last) of an axis of `length` that `cells` cells spread over [low, high] can reach."""
    margin = (high - low) / (2 * cells)  # beyond its edge the outermost cell fades to zero within half a cell
    first = min(max(math.floor(low - margin), 0), length)
    last = min(max(math.ceil(high + margin), first), length)
    return first, last


def _weights(low: float, high: float, cells: int, first: int, last: int, device: torch.device) -> Tensor:
    """Compute the bilinear weights [last - first, cells] of the cells at the centres of pixels [first, last)."""
    centres = torch.arange(first, last, dtype=torch.float64, device=device) + 0.5
    position = (centres - low) / (high - low) * cells - 0.5
    distance = position[:, None] - torch.arange(cells, dtype=torch.float64, device=device)
    return (1 - distance.abs()).clamp(min=0)


def paste(masks: Tensor, boxes: Tensor, size: Size, threshold: float | None = 0.5) -> Tensor:
    """Paste each object's grid of probabilities over its box in the image.

    The grid spans the box in continuous coordinates and is sampled bilinearly at the centres j + 0.5 of the pixels,
    zero beyond its edge, as in Detectron2's `paste_masks_in_image` (`grid_sample`, `align_corners=False`). Bilinear
    sampling is separable: it is computed as two small matrix products over each object's window alone, in float64, so
    that a GPU's reduced precision (TF32) does not enter.

    Args:
        masks: floating [N, M, M], probabilities in 0..1; rows and columns may differ in number.
        boxes: [N, 4], xyxy in the image's pixels. A box may cross the image's edge; one without area, or that is not
            finite, gives an empty mask.
        size: height and width of the image.
        threshold: a pixel is the object's from this probability (above 0) on; None: the probabilities are returned.

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
    """Paste as torchvision does, for its published models: the box is padded by a cell and rounded to whole pixels.

    Arguments and result as of `paste`; a pixel is the object's above `threshold`.
    """
    soft: Tensor = paste_masks_in_image(masks[:, None].float(), boxes.float(), size)
    return soft[:, 0] > threshold


def encode(masks: Tensor) -> list[dict[str, Any]]:
    """Encode bool masks [N, H, W] as COCO's compressed run-length codes: `{"size": [H, W], "counts": str}` each."""
    if not len(masks):
        return []
    pixels = np.asfortranarray(masks.cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in coco_mask.encode(pixels)]


@dataclass
class MaskOutput:
    """Encode the masks of detections as run-length codes; an `Output`.

    Attributes:
        paste: pastes the mask head's grids into the image, `paste` or `paste_on_whole_pixels`.
    """

    paste: Paste = paste
    name = "mask"
    key = "segmentation"
    needs: str | None = "masks"

    def __call__(self, objects: Objects, size: Size) -> list[dict[str, Any]]:
        """Encode the mask of each object in an image of `size` (height, width).

        Raises:
            ValueError: the objects have no masks.
        """
        if objects.masks is None:
            if len(objects):
                raise ValueError("masks are to be written, but the detections have none")
            return []
        # One at a time, as N x H x W can be large.
        pairs = zip(objects.masks, objects.boxes, strict=True)
        return [encode(self.paste(mask[None], box[None], size))[0] for mask, box in pairs]
