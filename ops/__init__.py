"""RoI operators: exact, deterministic and fast, with gradients; drop-in for torchvision's."""

from ops.functional import multiscale_roi_align, multiscale_roi_pool, roi_align, roi_pool
from ops.levels import assign_levels
from ops.modules import RoIAlign, RoIPool
from ops.native import backend

__all__ = [
    "RoIAlign",
    "RoIPool",
    "assign_levels",
    "backend",
    "multiscale_roi_align",
    "multiscale_roi_pool",
    "roi_align",
    "roi_pool",
]
