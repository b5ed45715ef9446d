"""Which claims two runs are asked about."""

import pytest
from omegaconf import OmegaConf

from detector.ablation.compare import _choices, _hidden_differences

TRAIN = "python scripts/train.py "


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (
            "pooler=roipool seed=1 workers=0 logger.x.y=1",
            "pooler=roialign seed=2 data_dir=d",
            [["pooler=roipool"], ["pooler=roialign"]],
        ),
        ("pooler=roipool", "", [["pooler=roipool"], []]),
        ("pooler=roipool", None, [[], []]),
        ("experiment=voc07 pooler=roipool", "experiment=voc07", [[], []]),
        ("weights=w mask_loss=softmax", "weights=w mask_loss=sigmoid", [[], []]),
        (
            "experiment=voc07 pooler=roipool",
            "experiment=voc07 pooler=roialign",
            [["experiment=voc07", "pooler=roipool"], ["experiment=voc07", "pooler=roialign"]],
        ),
        ("pooler=roialign pooler=roipool", "++a=1", [["pooler=roipool"], ["++a=1"]]),
        (
            "experiment=study_defaults dataset=coco pooler=roipool",
            "experiment=study_defaults dataset=coco",
            [["dataset=coco", "pooler=roipool"], ["dataset=coco"]],
        ),
        ("experiment=[study_defaults,voc07] pooler=roipool", "experiment=voc07", [[], []]),
        (
            "dataset.proposals.test.pre_nms=9 dataset.detections=5",
            "dataset.rpn.test.pre_nms_topk=9 dataset.detections=5",
            [["dataset.rpn.test.pre_nms_topk=9", "dataset.detections=5"]] * 2,
        ),
    ],
)
def test_only_what_the_commands_tell(one: str, other: str | None, expected: list[list[str]]) -> None:
    assert _choices([TRAIN + one, None if other is None else TRAIN + other]) == expected


@pytest.mark.parametrize(
    ("one", "other", "hidden"),
    [
        ("pooler=roipool", "pooler=roialign", True),
        ("pooler=roipool", "backbone=resnet10_small_fpn schedule=muon", False),
        ("backbone=resnet18_small_fpn", "pooler=roialign", True),
    ],
)
def test_other_defaults_are_a_difference_that_commands_hide(one: str, other: str, hidden: bool) -> None:
    before = {"backbone": {"name": "resnet18"}, "schedule": {"optimizer": {"_target_": "torch.optim.AdamW"}}}
    after = {"backbone": {"name": "resnet10"}, "schedule": {"optimizer": {"_target_": "detector.training.optim.Muon"}}}
    configs = [OmegaConf.create(before), OmegaConf.create(after)]
    assert _hidden_differences(configs, [TRAIN + one, TRAIN + other]) == hidden
    assert not _hidden_differences([configs[0], configs[0]], [TRAIN + one, TRAIN + other])
