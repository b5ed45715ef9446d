"""RoI heads on C4: res5, a ResNet's last stage, runs on each RoI (ResNet, appendix A; Detectron2's `Res5ROIHeads`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from detector.matching import Assigner, Sampler
from detector.models.box_head import AveragePool, BoxHead, Prediction
from detector.models.heads import FurtherHead
from detector.models.pooler import Pooler
from detector.models.roi_heads import StandardHeads
from detector.models.selection import Select


class StageTrunk(nn.Module):
    """Run res5 on pooled features and average its output: the trunk of C4's box head.

    Args:
        stage: res5, such as `detector.models.resnet.ResNetStage`: from pooled features [K, D, P, P] to
            [K, 2D, P / 2, P / 2].
    """

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage, self.average = stage, AveragePool()

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute [K, 2D] from pooled features [K, D, P, P]."""
        hidden: Tensor = self.average(self.stage(pooled))
        return hidden


class C4Heads(StandardHeads):
    """Run res5 once per RoI and share its output between the box head and the further heads without a pooler.

    Args:
        box_head: its trunk is a `StageTrunk`.
        box_pooler, select, matcher, sampler, further, proposal_append_gt, rois_at_once, detections_at_once: as of
            `StandardHeads`.

    Raises:
        ValueError: the box head has another trunk.
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
        super().__init__(
            box_pooler,
            box_head,
            select,
            matcher,
            sampler,
            further,
            proposal_append_gt,
            rois_at_once,
            detections_at_once,
        )
        if not isinstance(box_head.trunk, StageTrunk):
            raise ValueError(
                "C4's heads share the stage of the box head's trunk, which must be a detector.models.c4.StageTrunk, "
                f"got {type(box_head.trunk).__name__}"
            )

    @property
    def _trunk(self) -> StageTrunk:
        assert isinstance(self.box_head.trunk, StageTrunk)
        return self.box_head.trunk

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool boxes [R, 4] by image and run res5 on them: [K, 2D, P / 2, P / 2]."""
        shared: Tensor = self._trunk.stage(super().pool(features, boxes))
        return shared

    def predict(self, head: BoxHead, pooled: Tensor) -> Prediction:
        """Predict classes and boxes from res5's output."""
        return head.predict(self._trunk.average(pooled))
