"""Pool RoIs of any size into features of one size, from one level or a pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def with_batch_index(boxes: Sequence[Tensor]) -> Tensor:
    """Concatenate the boxes [R, 4] of B images into RoIs [K, 5], whose first column is the index of the image."""
    index = torch.cat([box.new_full((box.shape[0], 1), i) for i, box in enumerate(boxes)])
    return torch.cat((index, torch.cat(list(boxes))), 1)


class Pooler(nn.Module):
    """Pool each RoI from the level of its area (FPN, equation 1).

    Args:
        operator: `(features, rois [K, 5], output_size, scales, levels=...) -> [K, D, P, P]`, such as
            `ops.multiscale_roi_align`.
        assign: `(rois, scales) -> int64 [K]`, the index of each RoI's level, such as `ops.assign_levels`.
        output_size: P.
        strides: image pixels between the cells of the levels that are pooled from, ascending.
        of: the strides of all levels that `forward` is given; None: `strides` are those of the first ones.

    Raises:
        ValueError: `strides` are not ascending, or not among those of the levels.
    """

    def __init__(
        self,
        operator: Callable[..., Tensor],
        assign: Callable[[Tensor, Sequence[float]], Tensor],
        output_size: int,
        strides: Sequence[int],
        of: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.operator, self.assign, self.output_size = operator, assign, output_size
        known = list(strides if of is None else of)
        if not strides or sorted({*strides} & {*known}) != list(strides):
            raise ValueError(
                f"RoIs are pooled from levels of strides {list(strides)}, which must rise and be among {known}; set "
                "backbone.roi_strides so"
            )
        self.places = [known.index(stride) for stride in strides]
        self.scales = [1.0 / stride for stride in strides]
        self.register_buffer("counts", torch.zeros(len(strides), dtype=torch.int64), persistent=False)
        self.counts: Tensor  # RoIs pooled from each level in training

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool boxes [R, 4] by image from features by level [B, D, H, W]: [K, D, P, P] in the order of the boxes."""
        rois = with_batch_index(boxes)
        levels = self.assign(rois, self.scales)
        if self.training:
            # Not bincount, which waits for the device.
            self.counts += (levels[:, None] == torch.arange(len(self.scales), device=levels.device)).sum(0)
        maps = [features[place] for place in self.places]
        return self.operator(maps, rois, self.output_size, self.scales, levels=levels)
