"""RoI heads: from features and proposals to losses, or to detections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from detector.matching import Assigner, Rois, Sampler, join_rois, sample_rois
from detector.models.box_head import BoxHead, Prediction
from detector.models.heads import FurtherHead, Heads, Positives
from detector.models.pooler import Pooler
from detector.models.selection import Select
from detector.types import Objects, Output, Size, Target


class StandardHeads(Heads):
    """Run a box head, and any number of further heads on its detections (Fast, Faster and Mask R-CNN).

    Args:
        box_pooler: pools the features of the box head.
        box_head: classifies RoIs and regresses their boxes.
        select: postprocesses its predictions into detections.
        matcher: labels proposals by the ground truth.
        sampler: samples among them for training.
        further: heads that run after the box head, by name, in this order.
        proposal_append_gt: add the ground-truth boxes to the proposals in training.
        rois_at_once: RoIs that the box head sees at a time at inference, to bound the memory; None: all.
        detections_at_once: the same of the further heads, which see detections.

    Raises:
        ValueError: `rois_at_once` or `detections_at_once` is below 1.
    """

    def __init__(
        self,
        box_pooler: Pooler,
        box_head: BoxHead,
        select: Select,
        matcher: Assigner,
        sampler: Sampler,
        further: Mapping[str, FurtherHead] | None = None,
        proposal_append_gt: bool = True,
        rois_at_once: int | None = None,
        detections_at_once: int | None = None,
    ) -> None:
        super().__init__()
        for key, number in (("rois_at_once", rois_at_once), ("detections_at_once", detections_at_once)):
            if number is not None and number < 1:
                raise ValueError(f"{key} must be at least 1, or null for all, got {number}")
        self.rois_at_once, self.detections_at_once = rois_at_once, detections_at_once
        self.box_pooler, self.box_head, self.select = box_pooler, box_head, select
        heads = {name: head for name, head in (further or {}).items() if head is not None}  # null switches one off
        self.further: Mapping[str, FurtherHead] = nn.ModuleDict(heads)  # type: ignore[assignment]
        self.matcher, self.sampler, self.proposal_append_gt = matcher, sampler, proposal_append_gt

    @property
    def outputs(self) -> list[Output]:
        """Return the outputs of the further heads; empty if there are none."""
        return [head.output for head in self.further.values() if head.output is not None]

    def loss(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Compute the losses, scalars: `class`, `box` and those of the further heads; arguments as of `Heads.loss`.

        Raises:
            ValueError: the targets lack annotations that a further head needs.
        """
        del sizes
        rois = self._sample(proposals, targets)
        pooled = self.pool(features, [r.boxes for r in rois])
        losses = self.box_head.loss(self.predict(self.box_head, pooled), *join_rois(rois))
        return self._with_further(losses, features, pooled, rois, targets)

    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """Detect the objects of each image, best first; arguments as of `Heads.forward`."""
        predicted = self._predict(self.box_head, features, proposals)
        regress = predicted.regression(torch.cat(list(proposals)), self.box_head.bbox_reg_weights)
        objects = self.select(predicted.probabilities, regress, [p.shape[0] for p in proposals], sizes)
        return self._complete(features, objects)

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool the box features: [K, D, P, P] of boxes [R, 4] by image."""
        pooled: Tensor = self.box_pooler(features, boxes)
        return pooled

    def predict(self, head: BoxHead, pooled: Tensor) -> Prediction:
        """Predict classes and boxes from the box features of `pool`."""
        predicted: Prediction = head(pooled)
        return predicted

    def _sample(self, proposals: Sequence[Tensor], targets: Sequence[Target]) -> list[Rois]:
        background = self.box_head.num_classes
        return sample_rois(proposals, targets, self.matcher, self.sampler, background, self.proposal_append_gt)

    def _predict(self, head: BoxHead, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Prediction:
        """Predict classes and boxes of RoIs [R, 4] by image, `rois_at_once` at a time."""
        parts = [self.predict(head, self.pool(features, part)) for part in in_parts(boxes, self.rois_at_once)]
        return Prediction(torch.cat([p.logits for p in parts]), torch.cat([p.deltas for p in parts]))

    def _with_further(
        self,
        losses: dict[str, Tensor],
        features: Sequence[Tensor],
        pooled: Tensor,
        rois: Sequence[Rois],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """Add the losses of the further heads on the positive RoIs.

        Args:
            losses: of the box head.
            features: by level, [B, D, H, W].
            pooled: [K, D, P, P], the box features of all RoIs.
            rois, targets: by image.
        """
        if not self.further:
            return losses
        positive = [(r.labels >= 0) & (r.labels < self.box_head.num_classes) for r in rois]
        positives = Positives(
            [r.boxes[p] for r, p in zip(rois, positive, strict=True)],
            torch.cat([r.labels[p] for r, p in zip(rois, positive, strict=True)]),
            [r.index[p] for r, p in zip(rois, positive, strict=True)],
            targets,
        )
        for key, head in self.further.items():
            if lacking := [name for name in head.needs if any(t.get(name) is None for t in targets)]:
                raise ValueError(
                    f"model.heads.further.{key} ({type(head).__name__}) is trained on {', '.join(lacking)}, which this "
                    f"dataset does not have: use a model without {', '.join(lacking)}"
                )
            read = pooled[torch.cat(positive)] if head.pooler is None else head.pooler(features, positives.boxes)
            own = head.loss(read, positives)
            if twice := losses.keys() & own.keys():
                raise ValueError(f"model.heads.further.{key}: other heads have losses called {', '.join(twice)}, too")
            losses = losses | own
        return losses

    def _complete(self, features: Sequence[Tensor], objects: list[Objects]) -> list[Objects]:
        """Let the further heads add their predictions to the detections of each image, some detections at a time."""
        if not self.further:
            return objects
        if self.detections_at_once is None:
            return self._complete_part(features, objects)
        chunks = in_parts([torch.arange(len(o), device=o.boxes.device) for o in objects], self.detections_at_once)
        parts = [
            self._complete_part(features, [o.select(i) for o, i in zip(objects, chunk, strict=True)])
            for chunk in chunks
        ]
        return [Objects.join(image) for image in zip(*parts, strict=True)]

    def _complete_part(self, features: Sequence[Tensor], objects: list[Objects]) -> list[Objects]:
        """Run the further heads, each after the other."""
        boxes = [o.boxes for o in objects]
        shared = any(head.pooler is None for head in self.further.values())
        pooled = self.pool(features, boxes) if shared else None  # once, for all heads without a pooler
        for head in self.further.values():
            objects = head(pooled if head.pooler is None else head.pooler(features, boxes), objects)
        return objects


def in_parts(boxes: Sequence[Tensor], size: int | None) -> Iterator[list[Tensor]]:
    """Split the boxes of B images, or other rows, into chunks of at most `size`; None: a single chunk.

    Each chunk is a list of B tensors [R, ...]. Yields at least one chunk, empty if there are no boxes.
    """
    if size is None:
        yield list(boxes)
        return
    starts = [0, *accumulate(len(b) for b in boxes)]
    for begin in range(0, max(starts[-1], 1), size):
        yield [b[max(begin - s, 0) : max(begin + size - s, 0)] for b, s in zip(boxes, starts, strict=False)]
