"""Postprocess scored boxes into detections: threshold, clip, NMS, top k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detector import boxes as box_ops
from detector.types import Objects, Size


@dataclass
class Select:
    """Select the detections of each image among its scored boxes.

    Attributes:
        score_thresh: boxes of a score up to this are dropped, 0..1.
        nms_thresh: NMS, by class, drops boxes whose IoU with one of higher score exceeds this, 0..1.
        topk_per_image: detections kept of an image, those of highest score.
        min_size: boxes with a side below this, in pixels of the network's image, are dropped.

    Raises:
        ValueError: a number out of range.
    """

    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    topk_per_image: int = 100
    min_size: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.score_thresh <= 1 and 0 <= self.nms_thresh <= 1) or self.topk_per_image < 1:
            raise ValueError(
                "score_thresh and nms_thresh must lie in 0..1 and topk_per_image be at least 1, got "
                f"{self.score_thresh=} {self.nms_thresh=} {self.topk_per_image=}"
            )

    def __call__(
        self,
        scores: Tensor,
        regress: Callable[[Tensor, Tensor], Tensor],
        counts: Sequence[int],
        sizes: Sequence[Size],
    ) -> list[Objects]:
        """Select the detections of each image of a batch, clipped to the image, best first.

        Args:
            scores: [K, C], class probabilities of the RoIs of all images.
            regress: `(roi, label) -> boxes [N, 4]`, from indices of RoIs in 0..K-1 and classes, int64 [N] each; called
                for boxes above `score_thresh` alone.
            counts: RoIs of each image; K in all.
            sizes: of the images before padding.
        """
        objects, first = [], 0
        for score, count, size in zip(torch.split(scores, list(counts)), counts, sizes, strict=True):
            roi, label = (score > self.score_thresh).nonzero(as_tuple=True)
            box = box_ops.clip(regress(roi + first, label), size)
            objects.append(self._best(box, score[roi, label], label))
            first += count
        return objects

    def _best(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Objects:
        side = boxes[:, 2:] - boxes[:, :2]
        good = boxes.isfinite().all(1) & (side >= self.min_size).all(1) & scores.isfinite()
        boxes, scores, labels = boxes[good], scores[good], labels[good]
        keep = box_ops.batched_nms(boxes, scores, labels, self.nms_thresh, self.topk_per_image)
        return Objects(boxes[keep], scores[keep], labels[keep])
