"""Anchors: the reference boxes of the RPN (Faster R-CNN, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detector.types import Size


class Anchors(nn.Module):
    """Make the reference boxes of each level, the same in each cell.

    Args:
        sizes: for each level one or several square roots of the anchors' areas, in image pixels.
        ratios: height / width, for every size.
        strides: image pixels between cells, for each level.
        offset: where in its cell an anchor is centred, in strides (Detectron2: 0; 0.5 is the cell's middle).
        rounded: round the corners of a cell's anchors, around the origin, to whole pixels (torchvision).
        measured: compute strides as padded image side // feature side, as torchvision does, instead of `strides`; they
            differ where the last cell extends past the image.

    Raises:
        ValueError: `sizes` and `strides` differ in length, or levels in their number of sizes.
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
                f"anchor sizes must be given for each of the {len(strides)} levels, got {len(sizes)}: {sizes}"
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
        """Make the anchors [H * W * A, 4] of each level [B, D, H, W], in image pixels: by row, column, then shape.

        `size` is the padded image's.
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
