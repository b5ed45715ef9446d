"""From RoIs to a feature of fixed size, over one level or a pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def with_batch_index(boxes: Sequence[Tensor]) -> Tensor:
    """The boxes of B images, [R, 4] each, as one Tensor [K, 5] whose first column is the image's index."""
    index = torch.cat([box.new_full((len(box), 1), i) for i, box in enumerate(boxes)])
    return torch.cat((index, torch.cat(list(boxes))), 1)


class Pooler(nn.Module):
    """Pools each RoI from the level that its area chooses (FPN, equation 1).

    Args:
        operator: `(features, rois [K, 5], output_size, scales, levels=...) -> [K, D, P, P]`, such as
            `ops.multiscale_roi_align`.
        assign: `(rois, scales) -> int64 [K]`, the index of each RoI's level.
        output_size: P.
        strides: image pixels between cells, of the levels that are pooled from.
        stage: what the pooled features go through, such as a ResNet's fifth stage (C4); None for nothing.
        of: the strides of all levels that `forward` is given; None: `strides` are those of the first ones.

    Raises:
        ValueError: a stride is none of those of the levels, or they do not rise.
    """

    def __init__(
        self,
        operator: Callable[..., Tensor],
        assign: Callable[[Tensor, Sequence[float]], Tensor],
        output_size: int,
        strides: Sequence[int],
        stage: nn.Module | None = None,
        of: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.stage = stage
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
        """Features by level [B, D, H, W] and boxes by image [R, 4] give [K, D, P, P] in the order of the boxes.

        With a `stage`, D and P are what it makes of them.
        """
        rois = with_batch_index(boxes)
        levels = self.assign(rois, self.scales)
        if self.training:
            # Not bincount, which waits for the device.
            self.counts += (levels[:, None] == torch.arange(len(self.scales), device=levels.device)).sum(0)
        maps = [features[place] for place in self.places]
        pooled = self.operator(maps, rois, self.output_size, self.scales, levels=levels)
        return pooled if self.stage is None else self.stage(pooled)
