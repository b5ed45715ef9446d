"""Paste predicted masks into their image and encode them; crop true masks to the RoIs that a mask head learns on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import ops
from detector import masks as pasting
from detector import types


def detections(objects: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Draw boxes [N, 4] of 16 to 128 px, and grids [N, 28, 28] of probabilities that fill an ellipse in them."""
    generator = torch.Generator().manual_seed(objects)
    side = 16 * 2 ** (3 * torch.rand(objects, 2, generator=generator))
    corner = torch.rand(objects, 2, generator=generator) * (torch.tensor([size[1], size[0]]) - side)
    cell = (torch.arange(28) - 13.5) / 14
    shape = (6 * (1 - cell[:, None] ** 2 - cell**2)).sigmoid()
    noise = 0.2 * torch.rand(objects, 28, 28, generator=generator)
    return torch.cat((corner, corner + side), 1), shape.expand(objects, 28, 28) - noise


def encode(objects: int, size: tuple[int, int], device: torch.device) -> Callable[[], object]:
    """Prepare encoding detections as run lengths in an image of `size`."""
    del device  # it is the CPU's work
    boxes, grids = detections(objects, size)
    if not hasattr(pasting, "MaskOutput"):  # before version 0.2.0
        pairs = [(grid[None], box[None]) for grid, box in zip(grids, boxes, strict=True)]
        return lambda: [pasting.encode(pasting.paste(*pair, size))[0] for pair in pairs]  # type: ignore[attr-defined]
    found = types.Objects(boxes, torch.ones(objects), torch.zeros(objects, dtype=torch.int64), grids)
    return lambda: pasting.MaskOutput()(found, size)


def crop(objects: int, size: tuple[int, int], rois: int, device: torch.device) -> Callable[[], object]:
    """Prepare cropping the masks of objects that fill their boxes to `rois` boxes of theirs, each shifted a little."""
    boxes, _ = detections(objects, size)
    corners = boxes.round().long()
    chosen = torch.arange(rois) % objects
    shifted = boxes[chosen] + 2 * torch.rand(rois, 1, generator=torch.Generator().manual_seed(0))
    chosen, shifted = chosen.to(device), shifted.to(device)
    if not hasattr(types, "Masks"):  # before masks were held over windows
        dense = torch.zeros(objects, *size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(dense, corners.tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        dense = dense.to(device)
        rows = torch.cat((chosen[:, None].float(), shifted), 1)
        return lambda: ops.roi_align(dense[:, None].float(), rows, 28, aligned=True)
    pixels = [torch.ones(y2 - y1, x2 - x1, dtype=torch.bool) for x1, y1, x2, y2 in corners.tolist()]
    masks = types.Masks.from_windows(pixels, [(x1, y1) for x1, y1, _, _ in corners.tolist()], size).to(device)
    return lambda: ops.roi_align_masks(
        masks.pixels, masks.windows, masks.offsets, size, shifted, chosen, 28, aligned=True
    )


CASES = {
    "encode 100 masks, 3000 x 4000 px": {"ours": partial(encode, 100, (3000, 4000))},
    "encode 500 masks, 2048 x 2048 px": {"ours": partial(encode, 500, (2048, 2048))},
    "crop to 128 RoIs of 300 masks, 800 x 800 px": {"ours": partial(crop, 300, (800, 800), 128)},
}
