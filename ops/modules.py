"""The RoI operators as modules, with torchvision's names, arguments and order."""

from __future__ import annotations

import torch.fx
from torch import Tensor, nn

from ops.functional import ps_roi_align, ps_roi_pool, roi_align, roi_pool
from ops.pooling import Boxes, OutputSize

for _name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"):
    torch.fx.wrap(_name)  # keep each operator one node when torch.fx traces a module


class RoIAlign(nn.Module):
    """Pool RoIs with RoIAlign; arguments as of `ops.roi_align`."""

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
        """Pool `rois` (Tensor[K, 5] or list of Tensor[L, 4]) of Tensor[N, C, H, W]: Tensor[K, C, PH, PW]."""
        size, scale = self.output_size, self.spatial_scale
        return roi_align(input, rois, size, scale, self.sampling_ratio, self.aligned, self.mode)

    def extra_repr(self) -> str:
        """Format the arguments as torchvision does."""
        shown = (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
        return shown if self.mode == "avg" else f"{shown}, mode={self.mode}"


class RoIPool(nn.Module):
    """Pool RoIs with RoIPool; arguments as of `ops.roi_pool`."""

    def __init__(self, output_size: OutputSize, spatial_scale: float, quantization: str = "round") -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.quantization = quantization

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:
        """Pool `rois` (Tensor[K, 5] or list of Tensor[L, 4]) of Tensor[N, C, H, W]: Tensor[K, C, PH, PW]."""
        return roi_pool(input, rois, self.output_size, self.spatial_scale, self.quantization)

    def extra_repr(self) -> str:
        """Format the arguments as torchvision does."""
        shown = f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
        return shown if self.quantization == "round" else f"{shown}, quantization={self.quantization}"


class PSRoIAlign(nn.Module):
    """Pool RoIs with position-sensitive RoIAlign; arguments as of `ops.ps_roi_align`."""

    def __init__(self, output_size: OutputSize, spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:
        """Pool `rois` (Tensor[K, 5] or list of Tensor[L, 4]) of Tensor[N, C * PH * PW, H, W]: Tensor[K, C, PH, PW]."""
        return ps_roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        """Format the arguments as torchvision does."""
        size, scale = self.output_size, self.spatial_scale
        return f"output_size={size}, spatial_scale={scale}, sampling_ratio={self.sampling_ratio}"


class PSRoIPool(nn.Module):
    """Pool RoIs with position-sensitive RoIPool; arguments as of `ops.ps_roi_pool`."""

    def __init__(self, output_size: OutputSize, spatial_scale: float, quantization: str = "round") -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.quantization = quantization

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:
        """Pool `rois` (Tensor[K, 5] or list of Tensor[L, 4]) of Tensor[N, C * PH * PW, H, W]: Tensor[K, C, PH, PW]."""
        return ps_roi_pool(input, rois, self.output_size, self.spatial_scale, self.quantization)

    def extra_repr(self) -> str:
        """Format the arguments as torchvision does."""
        shown = f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
        return shown if self.quantization == "round" else f"{shown}, quantization={self.quantization}"
