"""The box head: what class an RoI holds, and where exactly (Fast R-CNN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from detector import boxes as box_ops
from detector.models.pooler import Pooler
from detector.types import Objects, Size


class FullyConnected(nn.Module):
    """A linear layer over pooled features [K, `channels`, `size`, `size`], giving [K, `width`].

    The weight keeps the shape of the features, so that with both in channels_last nothing is copied; flattened, it is
    the matrix of `nn.Linear` behind `nn.Flatten`.
    """

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, channels, size, size))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.kaiming_uniform_(self.weight, a=1)

    def forward(self, features: Tensor) -> Tensor:
        """From [K, D, P, P] to [K, `width`]."""
        return F.linear(_rows(features), _rows(self.weight), self.bias)


def _rows(tensor: Tensor) -> Tensor:
    """[N, D, P, P] as [N, P · P · D]; a view, where it is in channels_last."""
    return tensor.permute(0, 2, 3, 1).flatten(1)


class TwoMLP(nn.Sequential):
    """Two fully connected layers of `width` over pooled features `channels` × `size` × `size` (FPN, section 4.2)."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        last = nn.Linear(width, width)
        nn.init.kaiming_uniform_(last.weight, a=1)
        nn.init.zeros_(last.bias)
        super().__init__(FullyConnected(channels, size, width), nn.ReLU(), last, nn.ReLU())


class BoxHead(nn.Module):
    """Classifies RoIs and regresses their boxes class by class.

    Args:
        pooler: from features and boxes to [K, D, P, P].
        trunk: from there to [K, `width`].
        width: channels that `trunk` gives.
        num_classes: C, without the background.
        weights: of the deltas (dx, dy, dw, dh).
        beta: of the smooth L1 loss on the deltas; 0 is L1.
        score: detections below this probability are dropped.
        nms: detections of a class that overlap a better one by more than this IoU are dropped.
        detections: at most so many are kept of an image.
    """

    def __init__(
        self,
        pooler: Pooler,
        trunk: nn.Module,
        width: int,
        num_classes: int,
        weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        beta: float = 0.0,
        score: float = 0.05,
        nms: float = 0.5,
        detections: int = 100,
    ) -> None:
        super().__init__()
        self.pooler, self.trunk, self.num_classes = pooler, trunk, num_classes
        self.classify = nn.Linear(width, num_classes + 1)
        self.regress = nn.Linear(width, 4 * num_classes)
        for layer, std in ((self.classify, 0.01), (self.regress, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self.weights: tuple[float, float, float, float] = tuple(weights)  # type: ignore[assignment]
        self.beta, self.score, self.nms, self.detections = beta, score, nms, detections

    def _predict(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [K, C + 1] and deltas [K, C, 4]."""
        hidden = self.trunk(self.pooler(features, boxes))
        return self.classify(hidden).float(), self.regress(hidden).float().unflatten(1, (self.num_classes, 4))

    def loss(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Tensor, truth: Tensor
    ) -> dict[str, Tensor]:
        """The losses `class` and `box`, averaged over the RoIs.

        Args:
            features: by level [B, D, H, W].
            boxes: the RoIs by image; K in all.
            labels: int64 [K], C for the background.
            truth: [K, 4], the true boxes; not looked at where the label is C.
        """
        logits, deltas = self._predict(features, boxes)
        count = max(len(labels), 1)
        positive = (labels < self.num_classes).nonzero().squeeze(1)
        wanted = box_ops.encode(truth[positive], torch.cat(list(boxes))[positive], self.weights)
        predicted = deltas[positive, labels[positive]]
        return {
            "class": F.cross_entropy(logits, labels, reduction="sum") / count,
            "box": F.smooth_l1_loss(predicted, wanted, beta=self.beta, reduction="sum") / count,
        }

    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """The detections of each image, best first, in pixels of the network's image."""
        logits, deltas = self._predict(features, proposals)
        counts = [len(p) for p in proposals]
        boxes = box_ops.decode(deltas, torch.cat(list(proposals))[:, None], self.weights)
        scores = logits.softmax(1)[:, :-1]
        return [
            self._select(box_ops.clip(box, size), score)
            for box, score, size in zip(torch.split(boxes, counts), torch.split(scores, counts), sizes, strict=True)
        ]

    def _select(self, boxes: Tensor, scores: Tensor) -> Objects:
        """The detections among boxes [R, C, 4] with probabilities [R, C]."""
        finite = boxes.isfinite().all(-1) & scores.isfinite()
        roi, label = (finite & (scores > self.score)).nonzero(as_tuple=True)
        box, score = boxes[roi, label], scores[roi, label]
        keep = batched_nms(box, score, label, self.nms)[: self.detections]
        return Objects(box[keep], score[keep], label[keep])
