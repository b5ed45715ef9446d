"""The operators as modules, with torchvision's names, arguments and order."""

from __future__ import annotations

import torch.fx
from torch import Tensor, nn

from ops.functional import Boxes, OutputSize, roi_align, roi_pool

for _name in ("roi_align", "roi_pool"):
    torch.fx.wrap(_name)  # each stays one node when a module is traced


class RoIAlign(nn.Module):
    """See `ops.roi_align`."""

    def __init__(
        self,
        output_size: OutputSize,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
        mode: str = "avg",
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.mode = mode

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:
        """Tensor[K, C, PH, PW] from Tensor[N, C, H, W] and Tensor[K, 5] or a list of Tensor[L, 4]."""
        size, scale = self.output_size, self.spatial_scale
        return roi_align(input, rois, size, scale, self.sampling_ratio, self.aligned, self.mode)

    def extra_repr(self) -> str:
        """The arguments, as torchvision prints them."""
        shown = (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
        return shown if self.mode == "avg" else f"{shown}, mode={self.mode}"


class RoIPool(nn.Module):
    """See `ops.roi_pool`."""

    def __init__(self, output_size: OutputSize, spatial_scale: float, quantization: str = "round") -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.quantization = quantization

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:
        """Tensor[K, C, PH, PW] from Tensor[N, C, H, W] and Tensor[K, 5] or a list of Tensor[L, 4]."""
        return roi_pool(input, rois, self.output_size, self.spatial_scale, self.quantization)

    def extra_repr(self) -> str:
        """The arguments, as torchvision prints them."""
        shown = f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
        return shown if self.quantization == "round" else f"{shown}, quantization={self.quantization}"
