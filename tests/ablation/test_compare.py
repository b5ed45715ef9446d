"""Which claims two runs are asked about."""

import pytest

from detector.ablation.compare import _choices

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
            "dataset.proposals.test.pre_nms=9 dataset.detections=5",
            "dataset.rpn.test.pre_nms_topk=9 dataset.detections=5",
            [["dataset.rpn.test.pre_nms_topk=9", "dataset.detections=5"]] * 2,
        ),
    ],
)
def test_only_what_the_commands_tell(one: str, other: str | None, expected: list[list[str]]) -> None:
    assert _choices([TRAIN + one, None if other is None else TRAIN + other]) == expected
