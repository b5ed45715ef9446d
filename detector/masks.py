"""Paste the mask head's M×M grids into the image, and write them as COCO's run-length codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks

from detector.run_lengths import encode
from detector.types import Masks, Objects, Size

Paste = Callable[[Tensor, Tensor, Size], Masks]
"""`(masks [N, M, M], boxes [N, 4], size) -> Masks`, such as `paste`."""


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


def paste(masks: Tensor, boxes: Tensor, size: Size, threshold: float = 0.5) -> Masks:
    """Paste each object's grid of probabilities over its box in the image; see `paste_probabilities`.

    Args:
        masks: floating [N, M, M], probabilities in 0..1; rows and columns may differ in number.
        boxes: [N, 4], xyxy in the image's pixels.
        size: height and width of the image.
        threshold: above 0; a pixel is the object's where its probability is at least this.

    Raises:
        ValueError: the shapes do not fit together.
    """
    pasted = [(soft >= threshold, corner) for soft, corner in paste_probabilities(masks, boxes, size)]
    return Masks.from_windows([pixels for pixels, _ in pasted], [corner for _, corner in pasted], size)


def paste_probabilities(masks: Tensor, boxes: Tensor, size: Size) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Sample each object's grid at the centres of the image's pixels, within a window.

    The grid spans the box in continuous coordinates and is sampled bilinearly at the centres j + 0.5 of the pixels,
    zero beyond its edge, as in Detectron2's `paste_masks_in_image` (`grid_sample`, `align_corners=False`). Bilinear
    sampling is separable: it is computed as two small matrix products over each object's window alone, in float64, so
    that a GPU's reduced precision (TF32) does not enter.

    Args:
        masks, boxes, size: as of `paste`. A box may cross the image's edge; one without area, or that is not finite,
            gives an empty window.

    Yields:
        for each object the probabilities in its window, float64 [h, w], and the window's corner (x1, y1); outside of it
        they are 0.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if masks.ndim != 3 or boxes.shape != (len(masks), 4):
        raise ValueError(
            f"masks must be [N, M, M] and boxes [N, 4], but they are {tuple(masks.shape)} and {tuple(boxes.shape)}"
        )
    height, width = size
    rows, columns = masks.shape[1:]
    for mask, (x1, y1, x2, y2) in zip(masks.double(), boxes.double().tolist(), strict=True):
        if not (0 < x2 - x1 < math.inf and 0 < y2 - y1 < math.inf):
            yield mask[:0, :0], (0, 0)
            continue
        top, bottom = _axis(y1, y2, rows, height)
        left, right = _axis(x1, x2, columns, width)
        down = _weights(y1, y2, rows, top, bottom, mask.device)
        across = _weights(x1, x2, columns, left, right, mask.device)
        yield down @ mask @ across.T, (left, top)


def paste_on_whole_pixels(masks: Tensor, boxes: Tensor, size: Size, threshold: float = 0.5) -> Masks:
    """Paste as torchvision does, for its published models: the box is padded by a cell and rounded to whole pixels.

    Arguments and result as of `paste`; a pixel is the object's above `threshold`.
    """
    height, width = size
    padded, scale = expand_masks(masks[:, None].float(), padding=1)
    pixels, corners = [], []
    for mask, (x1, y1, x2, y2) in zip(padded, expand_boxes(boxes.float(), scale).long().tolist(), strict=True):
        w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        left, right = (min(max(x, 0), width) for x in (x1, x1 + w))
        top, bottom = (min(max(y, 0), height) for y in (y1, y1 + h))
        soft = F.interpolate(mask[None], size=(h, w), mode="bilinear", align_corners=False)[0, 0]
        pixels.append(soft[top - y1 : bottom - y1, left - x1 : right - x1] > threshold)
        corners.append((left, top))
    return Masks.from_windows(pixels, corners, size)


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
        pairs = zip(torch.split(objects.masks, 1), torch.split(objects.boxes, 1), strict=True)
        # One by one, since the windows of all objects together can be many times the image.
        return [code for mask, box in pairs for code in encode(self.paste(mask, box, size))]
