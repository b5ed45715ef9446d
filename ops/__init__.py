"""RoI operators with gradients, on CPU and GPU, deterministic, as drop-in replacements of torchvision's (README.md)."""

from ops.convolution import winograd_conv2d
from ops.crops import crop_and_resize, multiscale_crop_and_resize, multiscale_roi_crop, roi_crop
from ops.functional import ps_roi_align, ps_roi_pool, roi_align, roi_pool, roi_warp
from ops.levels import assign_levels
from ops.masks import roi_align_masks
from ops.matching import BoxMatches, match_boxes
from ops.modules import PSRoIAlign, PSRoIPool, RoIAlign, RoIPool
from ops.multiscale import (
    multiscale_ps_roi_align,
    multiscale_ps_roi_pool,
    multiscale_roi_align,
    multiscale_roi_pool,
    multiscale_roi_warp,
)
from ops.native import backend
from ops.ranking import BoxRanks, rank_boxes
from ops.suppression import batched_nms

__all__ = [
    "BoxMatches",
    "BoxRanks",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
    "assign_levels",
    "backend",
    "batched_nms",
    "crop_and_resize",
    "match_boxes",
    "multiscale_crop_and_resize",
    "multiscale_ps_roi_align",
    "multiscale_ps_roi_pool",
    "multiscale_roi_align",
    "multiscale_roi_crop",
    "multiscale_roi_pool",
    "multiscale_roi_warp",
    "ps_roi_align",
    "ps_roi_pool",
    "rank_boxes",
    "roi_align",
    "roi_align_masks",
    "roi_crop",
    "roi_pool",
    "roi_warp",
    "winograd_conv2d",
]
