"""Losses on boxes: functions of predicted deltas, the boxes they start from and the true boxes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detector import boxes as box_ops
from detector.boxes import BoxRegWeights


class BoxLoss(Protocol):
    """What a box regressor minimises."""

    def __call__(self, deltas: Tensor, references: Tensor, truth: Tensor, bbox_reg_weights: BoxRegWeights) -> Tensor:
        """From [K, 4] each to the loss of each box, [K]; 0 where `deltas` lead from `references` to `truth`."""


def smooth_l1(
    deltas: Tensor, references: Tensor, truth: Tensor, bbox_reg_weights: BoxRegWeights, beta: float = 0.0
) -> Tensor:
    """Smooth L1 between the deltas (Fast R-CNN, equation 3); quadratic below `beta`, 0 is L1."""
    return F.smooth_l1_loss(
        deltas, box_ops.encode(truth, references, bbox_reg_weights), beta=beta, reduction="none"
    ).sum(1)


def giou(deltas: Tensor, references: Tensor, truth: Tensor, bbox_reg_weights: BoxRegWeights) -> Tensor:
    """1 - generalised IoU of the regressed and the true boxes (Rezatofighi et al. 2019)."""
    loss: Tensor = generalized_box_iou_loss(box_ops.decode(deltas, references, bbox_reg_weights), truth)
    return loss
