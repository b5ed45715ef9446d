"""The second stage: from features and proposals to losses, or to detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detector.matching import Matcher, Sampled
from detector.models.box_head import BoxHead
from detector.models.mask_head import MaskHead
from detector.models.stages import Heads
from detector.types import Objects, Size, Target


class StandardHeads(Heads):
    """A box head and, if given, a mask head, each with its own pooler (Mask R-CNN with FPN).

    Args:
        box_head, mask_head: the heads; no mask head, no masks.
        matcher, sampler: which proposals learn.
        append_truth: the true boxes are added to the proposals in training, so that there are positives from the start.
    """

    def __init__(
        self,
        box_head: BoxHead,
        matcher: Matcher,
        sampler: Callable[[Tensor, Tensor], Sampled],
        mask_head: MaskHead | None = None,
        append_truth: bool = True,
    ) -> None:
        super().__init__()
        self.box_head, self.mask_head = box_head, mask_head
        self.matcher, self.sampler, self.append_truth = matcher, sampler, append_truth

    @torch.no_grad()
    def _sample(self, proposals: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """RoIs [R, 4], positives first; their labels [R], C for the background; and the index [R] of their object."""
        if self.append_truth:
            proposals = torch.cat((proposals, target.boxes[~target.crowd]))
        matches = self.matcher(proposals, target)
        chosen = self.sampler(matches.positive, matches.negative)
        index = chosen.index[chosen.valid]
        background = torch.full_like(index, self.box_head.num_classes)
        if len(target) == 0:
            return proposals[index], background, torch.zeros_like(index)
        match = matches.index[index]
        return proposals[index], torch.where(matches.positive[index], target.labels[match], background), match

    def loss(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """The heads' losses, scalars: `class`, `box` and, with a mask head, `mask`.

        Args:
            features: by level [B, D, H, W].
            proposals: by image [R, 4].
            sizes: of the images before padding.
            targets: the true objects by image.
        """
        del sizes
        sampled = [self._sample(p, t) for p, t in zip(proposals, targets, strict=True)]
        boxes = [roi for roi, _, _ in sampled]
        labels = torch.cat([label for _, label, _ in sampled])
        truth = torch.cat(
            [
                t.boxes[match] if len(t) else torch.zeros_like(roi)
                for (roi, _, match), t in zip(sampled, targets, strict=True)
            ]
        )
        losses = self.box_head.loss(features, boxes, labels, truth)
        if self.mask_head is not None:
            losses |= self._mask_loss(self.mask_head, features, sampled, targets)
        return losses

    def _mask_loss(
        self,
        head: MaskHead,
        features: Sequence[Tensor],
        sampled: Sequence[tuple[Tensor, Tensor, Tensor]],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        boxes, labels, matches = [], [], []
        for roi, label, match in sampled:
            positive = label < self.box_head.num_classes
            boxes.append(roi[positive])
            labels.append(label[positive])
            matches.append(match[positive])
        masks = [target.masks for target in targets if target.masks is not None]
        if len(masks) < len(targets):
            raise ValueError("the mask head learns from masks, and this dataset gives none: use model=faster_rcnn")
        return head.loss(features, boxes, torch.cat(labels), masks, matches)

    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """The detections of each image, best first, in pixels of the network's image; arguments as of `loss`."""
        objects: list[Objects] = self.box_head(features, proposals, sizes)
        if self.mask_head is not None:
            objects = self.mask_head(features, objects)
        return objects
