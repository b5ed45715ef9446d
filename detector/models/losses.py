"""Box regression losses, of predicted deltas, the boxes they refer to and the ground-truth boxes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detector import boxes as box_ops
from detector.boxes import BoxRegWeights


class BoxLoss(Protocol):
    """Compute a box regression loss."""

    def __call__(self, deltas: Tensor, references: Tensor, gt_boxes: Tensor, bbox_reg_weights: BoxRegWeights) -> Tensor:
        """Compute the loss [K] from [K, 4] each; it is 0 where `deltas` applied to `references` give `gt_boxes`."""


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
