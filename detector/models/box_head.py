"""The box head: classify RoIs and regress their boxes (Fast R-CNN)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector import boxes as box_ops
from detector.boxes import BoxRegWeights
from detector.matching import IGNORED
from detector.models.losses import BoxLoss, mean_count


class FullyConnected(nn.Module):
    """Apply a linear layer to flattened features.

    The weight keeps the shape of the features, so that with both in channels_last nothing is copied; flattened, it is
    the matrix of `nn.Linear` behind `nn.Flatten`.

    Args:
        channels, size: of the pooled features, D and P.
        width: outputs.
    """

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, channels, size, size))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.kaiming_uniform_(self.weight, a=1)

    def forward(self, features: Tensor) -> Tensor:
        """Compute [K, `width`] from [K, D, P, P]."""
        return F.linear(_rows(features), _rows(self.weight), self.bias)


def _rows(tensor: Tensor) -> Tensor:
    """Flatten [N, D, P, P] to [N, P · P · D]; a view of a tensor in channels_last."""
    return tensor.permute(0, 2, 3, 1).flatten(1)


class TwoMLP(nn.Sequential):
    """Apply two fully connected layers (FPN, section 4.2).

    Args:
        channels, size: of the pooled features, D and P.
        width: of both layers.
    """

    def __init__(self, channels: int, size: int, width: int) -> None:
        last = nn.Linear(width, width)
        nn.init.kaiming_uniform_(last.weight, a=1)
        nn.init.zeros_(last.bias)
        super().__init__(FullyConnected(channels, size, width), nn.ReLU(), last, nn.ReLU())


class ConvFC(nn.Sequential):
    """Apply 3×3 convolutions, each with its norm, then a fully connected layer (torchvision's v2 models).

    Args:
        channels, size: of the pooled features, D and P.
        width: of the fully connected layer.
        convs: number of convolutions.
        norm: makes the normalisation layer of a number of channels; None for none.
    """

    def __init__(
        self, channels: int, size: int, width: int, convs: int = 4, norm: Callable[[int], nn.Module] | None = None
    ) -> None:
        layers: list[nn.Module] = []
        for _ in range(convs):
            layers += conv_block(channels, channels, norm)
        super().__init__(*layers, FullyConnected(channels, size, width), nn.ReLU())


def conv_block(inputs: int, outputs: int, norm: Callable[[int], nn.Module] | None) -> list[nn.Module]:
    """Make the layers of a 3×3 convolution: its norm, if any, takes the place of a bias; a ReLU is last."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm is None)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return [conv, nn.ReLU()] if norm is None else [conv, norm(outputs), nn.ReLU()]


class AveragePool(nn.Sequential):
    """Average the cells of pooled features: [K, D, P, P] to [K, D]."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@dataclass
class Prediction:
    """The predictions of a box head for K RoIs."""

    logits: Tensor
    """float32 [K, C + 1], the background last"""
    deltas: Tensor
    """float32 [K, C, 4], or class-agnostic [K, 1, 4]"""

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities [K, C], without the background."""
        return self.logits.softmax(1)[:, :-1]

    def regression(self, boxes: Tensor, bbox_reg_weights: BoxRegWeights) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the function that regresses single boxes, for `Select`.

        Args:
            boxes: [K, 4], the RoIs.
            bbox_reg_weights: as of `BoxHead`.

        Returns:
            `(roi, label) -> boxes [N, 4]`, from indices of RoIs and classes, int64 [N] each.
        """

        def regress(roi: Tensor, label: Tensor) -> Tensor:
            deltas = self.deltas[roi, label.clamp(max=self.deltas.shape[1] - 1)]
            return box_ops.decode(deltas, boxes[roi], bbox_reg_weights)

        return regress


class BoxHead(nn.Module):
    """Classify pooled RoIs and regress their boxes (Fast R-CNN).

    Args:
        trunk: from pooled features [K, D, P, P] to [K, `width`].
        width: channels of the trunk's output.
        num_classes: C, without the background.
        box_loss: on the deltas, such as `detector.models.losses.smooth_l1`.
        bbox_reg_weights: factors of the deltas (dx, dy, dw, dh).
        cls_agnostic_bbox_reg: one regression for all classes, instead of one for each.
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        num_classes: int,
        box_loss: BoxLoss,
        bbox_reg_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        cls_agnostic_bbox_reg: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.num_classes, self.box_loss = trunk, num_classes, box_loss
        self.regressors = 1 if cls_agnostic_bbox_reg else num_classes
        self.classify = nn.Linear(width, num_classes + 1)
        self.regress = nn.Linear(width, 4 * self.regressors)
        for layer, std in ((self.classify, 0.01), (self.regress, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self.bbox_reg_weights: BoxRegWeights = tuple(bbox_reg_weights)  # type: ignore[assignment]

    def forward(self, pooled: Tensor) -> Prediction:
        """Predict from pooled features [K, D, P, P]."""
        return self.predict(self.trunk(pooled))

    def predict(self, hidden: Tensor) -> Prediction:
        """Predict from trunk features [K, `width`]."""
        deltas = box_ops.precise(self.regress(hidden)).reshape(-1, self.regressors, 4)
        return Prediction(box_ops.precise(self.classify(hidden)), deltas)

    def loss(self, predicted: Prediction, boxes: Tensor, labels: Tensor, gt_boxes: Tensor) -> dict[str, Tensor]:
        """Compute the losses `class` and `box`; see `box_head_loss`."""
        return box_head_loss(
            predicted, boxes, labels, gt_boxes, self.box_loss, self.bbox_reg_weights, training=self.training
        )

    def boxes(self, predicted: Prediction, boxes: Tensor) -> Tensor:
        """Regress the boxes of RoIs [K, 4]: [K, C, 4], or class-agnostic [K, 1, 4]."""
        return box_ops.decode(predicted.deltas, boxes[:, None], self.bbox_reg_weights)


def box_head_loss(
    predicted: Prediction,
    boxes: Tensor,
    labels: Tensor,
    gt_boxes: Tensor,
    box_loss: BoxLoss,
    bbox_reg_weights: BoxRegWeights,
    training: bool = False,
) -> dict[str, Tensor]:
    """Compute Fast R-CNN's losses (equation 1), `class` and `box`, averaged over the RoIs that are not ignored.

    Args:
        predicted: of K RoIs.
        boxes: [K, 4], the RoIs.
        labels: int64 [K]: the class, C for the background, `IGNORED`.
        gt_boxes: [K, 4], the matched ground-truth boxes; read where the label is a class.
        box_loss, bbox_reg_weights: as of `BoxHead`.
        training: average over the RoIs of all processes; see `mean_count`.
    """
    count = mean_count((labels >= 0).sum(), predicted.logits, training)
    return {
        "class": F.cross_entropy(predicted.logits, labels, reduction="sum", ignore_index=IGNORED) / count,
        "box": _box_loss_by_roi(predicted, boxes, labels, gt_boxes, box_loss, bbox_reg_weights).sum() / count,
    }


def loss_by_roi(
    predicted: Prediction,
    boxes: Tensor,
    labels: Tensor,
    gt_boxes: Tensor,
    box_loss: BoxLoss,
    bbox_reg_weights: BoxRegWeights,
) -> Tensor:
    """Compute the sum of both losses for each RoI, [K], 0 for ignored ones; arguments as of `box_head_loss`."""
    classes = F.cross_entropy(predicted.logits, labels, reduction="none", ignore_index=IGNORED)
    return classes + _box_loss_by_roi(predicted, boxes, labels, gt_boxes, box_loss, bbox_reg_weights)


def _box_loss_by_roi(
    predicted: Prediction,
    boxes: Tensor,
    labels: Tensor,
    gt_boxes: Tensor,
    box_loss: BoxLoss,
    bbox_reg_weights: BoxRegWeights,
) -> Tensor:
    classes = predicted.logits.shape[1] - 1
    positive = ((labels >= 0) & (labels < classes))[:, None]
    regressor = labels.clamp(0, predicted.deltas.shape[1] - 1)
    deltas = predicted.deltas[torch.arange(len(labels), device=labels.device), regressor]
    # RoIs that are not positive get deltas of 0 to themselves: no loss, without waiting for the device to count them.
    return box_loss(torch.where(positive, deltas, 0.0), boxes, torch.where(positive, gt_boxes, boxes), bbox_reg_weights)
