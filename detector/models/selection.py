"""From scored boxes to detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector import boxes as box_ops
from detector.types import Objects, Size


@dataclass
class Select:
    """Which of the scored boxes of an image are detections.

    Attributes:
        score: those of a lower probability are dropped.
        nms: those of a class that overlap a better one by more than this IoU are dropped.
        detections: at most so many are kept of an image.
        min_size: those with a side below it, in pixels of the network's image, are dropped.
    """

    score: float = 0.05
    nms: float = 0.5
    detections: int = 100
    min_size: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.score <= 1 and 0 <= self.nms <= 1) or self.detections < 1:
            raise ValueError(
                f"score and nms must lie in 0..1 and detections be at least 1, got {self.score=} {self.nms=} "
                f"{self.detections=}"
            )

    def __call__(
        self,
        scores: Tensor,
        regress: Callable[[Tensor, Tensor], Tensor],
        counts: Sequence[int],
        sizes: Sequence[Size],
    ) -> list[Objects]:
        """The detections of each image of a batch, cut to it.

        Args:
            scores: [K, C], probabilities of the RoIs of all images.
            regress: from RoIs' numbers in 0..K-1 and classes, int64 [N] each, to boxes [N, 4]. Asked for few of all.
            counts: RoIs of each image; K in all.
            sizes: of the images before padding.
        """
        objects, first = [], 0
        for score, count, size in zip(torch.split(scores, list(counts)), counts, sizes, strict=True):
            roi, label = (score > self.score).nonzero(as_tuple=True)
            box = box_ops.clip(regress(roi + first, label), size)
            objects.append(self._best(box, score[roi, label], label))
            first += count
        return objects

    def _best(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Objects:
        side = boxes[:, 2:] - boxes[:, :2]
        good = boxes.isfinite().all(1) & (side >= self.min_size).all(1) & scores.isfinite()
        boxes, scores, labels = boxes[good], scores[good], labels[good]
        keep = batched_nms(boxes, scores, labels, self.nms)[: self.detections]
        return Objects(boxes[keep], scores[keep], labels[keep])
