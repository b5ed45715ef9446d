"""Box regression losses, of predicted deltas, the boxes they refer to and the ground-truth boxes."""

from __future__ import annotations

from typing import Protocol

import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detector import boxes as box_ops
from detector.boxes import BoxRegWeights


class BoxLoss(Protocol):
    """Compute a box regression loss."""

    def __call__(self, deltas: Tensor, references: Tensor, gt_boxes: Tensor, bbox_reg_weights: BoxRegWeights) -> Tensor:
        """Compute the loss [K] from [K, 4] each; it is 0 where `deltas` applied to `references` give `gt_boxes`."""


def mean_count(count: Tensor | int, like: Tensor, training: bool) -> Tensor | int:
    """Return by what to divide a sum over the RoIs of a batch: their number, at least 1; in training, of all processes.

    Distributed training averages the gradients of the processes. So each divides by the mean of their counts, and they
    learn what one process would with all images. All processes have to call it equally often then.

    Args:
        count: of this process's RoIs, or of their cells.
        like: a tensor of the device and the type of the loss.
        training: whether this is a training step.
    """
    if training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        shared = like.new_zeros(()) + count
        dist.all_reduce(shared)
        return shared.clamp(min=1) / dist.get_world_size()
    return max(count, 1) if isinstance(count, int) else count.clamp(min=1)


def smooth_l1(
    deltas: Tensor, references: Tensor, gt_boxes: Tensor, bbox_reg_weights: BoxRegWeights, beta: float = 0.0
) -> Tensor:
    """Compute smooth L1 between deltas (Fast R-CNN, equation 3): quadratic below `beta`; 0 gives L1."""
    return F.smooth_l1_loss(
        deltas, box_ops.encode(gt_boxes, references, bbox_reg_weights), beta=beta, reduction="none"
    ).sum(1)


def giou(deltas: Tensor, references: Tensor, gt_boxes: Tensor, bbox_reg_weights: BoxRegWeights) -> Tensor:
    """Compute 1 - generalised IoU of regressed and ground-truth boxes (Rezatofighi et al. 2019)."""
    loss: Tensor = generalized_box_iou_loss(box_ops.decode(deltas, references, bbox_reg_weights), gt_boxes)
    return loss
