"""Anchors: the reference boxes of the RPN (Faster R-CNN, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detector.types import Size


class Anchors(nn.Module):
    """A grid of reference boxes over each level.

    Args:
        sizes: for each level the sides (of the square of the same area) in image pixels; a number or several.
        ratios: height / width, for every size.
        strides: pixels between cells, for each level.
        offset: where in its cell an anchor is centred, in strides (Detectron2: 0; 0.5 is the cell's middle).
        rounded: the corners of a cell's anchors are whole pixels (torchvision).
        measured: the distance between cells is the padded image's side over the level's cells, floored (torchvision):
            less than the stride where the last cell of a level reaches beyond the image.
    """

    def __init__(
        self,
        sizes: Sequence[float | Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        offset: float = 0.0,
        rounded: bool = False,
        measured: bool = False,
    ) -> None:
        super().__init__()
        if len(sizes) != len(strides):
            raise ValueError(
                f"anchor sizes are wanted for each of the {len(strides)} levels, got {len(sizes)}: {sizes}"
            )
        by_level = [list(s) if isinstance(s, Sequence) else [s] for s in sizes]
        counts = {len(s) for s in by_level}
        if len(counts) != 1:
            raise ValueError(f"every level must have the same number of anchor sizes, got {sizes}")
        self.strides, self.offset, self.measured = list(strides), offset, measured
        self.per_cell = counts.pop() * len(ratios)
        shape = torch.tensor([[[s * r**-0.5, s * r**0.5] for s in level for r in ratios] for level in by_level])
        cells = torch.cat((-shape / 2, shape / 2), -1)
        self.register_buffer("cells", cells.round() if rounded else cells, persistent=False)
        self.cells: Tensor  # [levels, A of a cell, 4], centred on the origin

    def forward(self, features: Sequence[Tensor], size: Size) -> list[Tensor]:
        """For each level [B, D, H, W] its anchors [H * W * A, 4] in image pixels: by row, column, then shape.

        `size` is that of the padded image.
        """
        anchors = []
        for cell, stride, level in zip(self.cells, self.strides, features, strict=True):
            height, width = level.shape[-2:]
            down, across = (size[0] // height, size[1] // width) if self.measured else (stride, stride)
            y = (torch.arange(height, device=cell.device) + self.offset) * down
            x = (torch.arange(width, device=cell.device) + self.offset) * across
            y, x = torch.meshgrid(y, x, indexing="ij")
            centre = torch.stack((x, y, x, y), -1).reshape(-1, 1, 4)
            anchors.append((centre + cell).reshape(-1, 4))
        return anchors
