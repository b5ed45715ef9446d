"""Seven kinds of boxes on which implementations of RoI operators differ, and a comparison of one with `ops` on them.

    python -m ops.boxes write FOLDER
    python -m ops.boxes compare FOUND.npy roi_align sampling_ratio=2 aligned=true

The first writes FOLDER/map.npy, float32 [1, 98, 24, 32], and FOLDER/boxes.npy, float32 [448, 5]: the image's index, x1,
y1, x2, y2 in pixels, of which a cell of the map has 4 (`spatial_scale` 0.25). Another runtime pools them into 7 x 7
bins and saves what it finds, [448, 98, 7, 7] or, position-sensitive, [448, 2, 7, 7]. The second prints by kind of box
how this differs from an operator of `ops` with the arguments that follow, and ends with 1 where it does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ops

OPERATORS = ("roi_align", "roi_pool", "roi_warp", "ps_roi_align", "ps_roi_pool", "roi_crop", "crop_and_resize")
PER_KIND = 64
OUTPUT = 7
SCALE = 0.25
"""cells per pixel"""
MAP = (1, 2 * OUTPUT**2, 24, 32)
"""shape of the feature map"""
KINDS = {
    "inside": "anywhere inside the image, sides of 8 to 60 px",
    "small": "inside, sides of 0.4 to 3.6 px: less than a cell",
    "on cells": "inside, edges between cells",
    "halves": "inside, edges at the middle of cells, where rounding decides",
    "edge": "across the image's edge by up to 12 px",
    "large": "larger than the image on all sides",
    "empty": "inside, without height or without width",
}
NEAR = 1e-4
"""Outputs that differ by no more are equal; the map is normal noise of standard deviation 1."""


def feature_map() -> Tensor:
    """Return a map of normal noise, float32 `MAP`."""
    return torch.randn(MAP, generator=torch.Generator().manual_seed(0))


def boxes_of(kind: str) -> Tensor:
    """Return the boxes of a kind, float32 [PER_KIND, 5]: image 0, then x1, y1, x2, y2 in pixels."""
    generator = torch.Generator().manual_seed(list(KINDS).index(kind))
    image, cell = torch.tensor([MAP[3], MAP[2]]) / SCALE, 1 / SCALE
    place, extent = (torch.rand(PER_KIND, 2, generator=generator) for _ in range(2))
    choice = torch.rand(PER_KIND, 2, generator=generator) < 0.5
    if kind in ("on cells", "halves"):
        extent = (1 + 9 * extent).floor() * cell
        half = 0.5 * (kind == "halves")
        low = ((place * (image - extent - cell) / cell).floor() + half) * cell
    elif kind == "edge":
        extent = 16 + 24 * extent
        low = torch.where(choice, -12 * place, image - extent + 12 * place)
    elif kind == "large":
        low = -40 * place
        extent = image - low + 40 * extent
    else:
        extent = {"inside": 8 + 52 * extent, "small": 0.4 + 3.2 * extent, "empty": 30 * extent}[kind]
        if kind == "empty":
            flat = torch.stack((choice[:, 0], ~choice[:, 0]), 1)
            extent = torch.where(flat, 0.0, extent)
        low = place * (image - extent)
    return torch.cat((torch.zeros(PER_KIND, 1), low, low + extent), 1)


def all_boxes() -> Tensor:
    """Return the boxes of all kinds, one kind after the other, float32 [K, 5]."""
    return torch.cat([boxes_of(kind) for kind in KINDS])


def compare(found: Tensor, operator: str, **arguments: Any) -> dict[str, tuple[float, float]]:
    """Compare an output of another runtime with that of an operator of `ops`.

    Args:
        found: [K, C, 7, 7] of `all_boxes`.
        operator: its name, of `OPERATORS`.
        arguments: of the operator, after `spatial_scale`.

    Returns:
        by kind of box, the largest difference (infinite for NaN) and the share of outputs that differ by more than
        `NEAR`.

    Raises:
        ValueError, TypeError: the operator or an argument is unknown, or `found` has another shape.
    """
    if operator not in OPERATORS:
        raise ValueError(f"the operator must be one of {', '.join(OPERATORS)}, not {operator!r}")
    expected = getattr(ops, operator)(feature_map(), all_boxes(), OUTPUT, SCALE, **arguments)
    if found.shape != expected.shape:
        raise ValueError(f"{operator} gives {list(expected.shape)} of these boxes; found are {list(found.shape)}")
    difference = (found.double() - expected.double()).abs().nan_to_num(nan=float("inf")).flatten(1)
    parts = zip(KINDS, difference.split(PER_KIND), strict=True)
    return {kind: (float(part.max()), float((part > NEAR).double().mean())) for kind, part in parts}


def _value(text: str) -> bool | int | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.lstrip("-").isdigit() else text


def main(arguments: Sequence[str]) -> int:
    """Write the arrays, or compare an output with an operator; returns 1 where they differ or an argument is wrong."""
    match list(arguments):
        case ["write", folder]:
            path = Path(folder)
            path.mkdir(parents=True, exist_ok=True)
            np.save(path / "map.npy", feature_map().numpy())
            np.save(path / "boxes.npy", all_boxes().numpy())
            print(f"Written: {path / 'map.npy'}, {path / 'boxes.npy'}")
            return 0
        case ["compare", file, operator, *given] if all("=" in argument for argument in given):
            try:
                found = torch.from_numpy(np.load(file))
                pairs = (argument.split("=", 1) for argument in given)
                differences = compare(found, operator, **{key: _value(text) for key, text in pairs})
            except (OSError, ValueError, TypeError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
        case _:
            print(__doc__, file=sys.stderr)
            return 1
    for kind, (largest, share) in differences.items():
        print(f"{kind:9} {'equal' if share == 0 else f'{share:.0%} differ'}, by at most {largest:.1e}: {KINDS[kind]}")
    return 1 if any(share for _, share in differences.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
