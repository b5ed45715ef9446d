"""The overrides that the page on a detector's results may advise."""

import pytest

from detector.training.report import possible_changes
from tests.conftest import compose_config

REPEAT, EMPTY = "dataset.repeat_threshold=0.1", "dataset.train.keep_empty=true"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"model=cascade_rcnn", REPEAT}),  # generated images have no keep_empty
        (["pooler=roipool", "dataset=coco"], {"pooler=roialign", "model=cascade_rcnn", REPEAT, EMPTY}),
        (["pooler=roialign_legacy"], {"pooler=roialign", "model=cascade_rcnn", REPEAT}),
        (["model=mask_rcnn"], {"model=cascade_mask_rcnn", REPEAT}),
        (["model=cascade_rcnn"], {REPEAT}),
        (["experiment=detectron2_c4"], {REPEAT, EMPTY}),
        (["dataset=coco", "dataset.repeat_threshold=0.01", "dataset.train.keep_empty=true"], {"model=cascade_rcnn"}),
    ],
)
def test_what_is_in_use_or_impossible_is_left_out(overrides: list[str], expected: set[str]) -> None:
    assert possible_changes(compose_config(*overrides)) == expected


def test_models_of_ones_own_have_no_advice() -> None:
    config = compose_config()
    config.model = {"_target_": "my.Model"}
    del config.pooler
    assert possible_changes(config) == {REPEAT}
