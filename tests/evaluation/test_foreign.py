"""Detections that other programs have written."""

import logging
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.foreign import foreign_detections, have_masks
from detector.masks import MaskOutput
from tests.evaluation.test_predictions import IDS, IMAGES, SIZE, TRUTH

CODE = {"size": list(SIZE), "counts": "0"}
ROW: dict[str, Any] = {"image_id": 1, "category_id": 2, "bbox": [20, 20, 40, 40], "score": 1}


def test_boxes_count_as_those_of_a_detector() -> None:
    rows = [{**ROW, "image_id": a["image_id"], "category_id": a["category_id"]} for a in TRUTH["annotations"]]
    assert not have_masks(rows)
    collector = Collector(TRUTH, IDS)
    collector.merge([foreign_detections(rows, TRUTH, IDS, masks=False)])
    assert collector.images == IMAGES  # those without a detection, too
    assert CocoMetric(collector).results()["box/AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (7, "detection 1 is 7; each is"),
        ({"score": None}, "detection 1: score must be a number from 0 to 1, not None"),
        ({"score": 97.5}, "not 97.5"),
        ({"score": True}, "not True"),
        (
            {"image_id": 77},
            r"on image 77, which is none of the 8 images of the dataset \(1, 2, 3, ...\)",
        ),
        ({"image_id": [1]}, r"image_id must be an id, not \[1\]"),
        ({"category_id": 0}, "detection 1 has the category 0; there are 2: class 2, 5: class 5, 9: class 9: give the"),
        ({"bbox": [1, 2, 3]}, r"bbox must be \[x, y, width, height\] in pixels, not \[1, 2, 3\]"),
        ({"bbox": [1, 2, -3, 4]}, r"not \[1, 2, -3, 4\]"),
        ({"bbox": [1, 2, 3, float("nan")]}, "nan"),
        ({"bbox": None}, "not None"),
        ({"bbox": [1, 2, 3, 10**400]}, "bbox must be"),
        ({"segmentation": CODE}, "detection 1 has a mask, unlike detection 0"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(change: Any, words: str) -> None:
    wrong = {**ROW, **change} if isinstance(change, dict) else change
    with pytest.raises(ValueError, match=words):
        foreign_detections([ROW, wrong], TRUTH, IDS, masks=False)
    with pytest.raises(ValueError, match="detection 1 has no score"):
        foreign_detections([ROW, {k: v for k, v in ROW.items() if k != "score"}], TRUTH, IDS, masks=False)


def test_masks_are_checked_and_give_missing_boxes() -> None:
    collector = Collector(TRUTH, IDS, outputs=[MaskOutput()])
    square = np.zeros(SIZE, np.uint8, order="F")
    square[20:60, 20:60] = 1
    code = mask.encode(square)
    good = {"size": list(SIZE), "counts": code["counts"].decode()}
    rows = [{"image_id": 1, "category_id": 2, "score": 0.5, "segmentation": good}]
    assert have_masks(rows)
    state = foreign_detections(rows, TRUTH, IDS, masks=True)
    assert state[1].boxes.tolist() == [[20, 20, 40, 40]]
    collector.merge([state])
    assert CocoMetric(collector).results()["mask/AP/class 2"] == pytest.approx(0.5, abs=0.01)  # one of two objects
    for wrong, words in (
        ({**good, "size": None}, "its mask has the size None"),
        ({**good, "size": [5, 5]}, r"detection 0: its mask has the size \[5, 5\], but its image 1 \[96, 112\]"),
        ({**good, "counts": good["counts"][:-2]}, "detection 0: the run lengths are broken"),
        ({**good, "counts": [1, 2]}, "must be a compressed run-length code"),
        ([[1, 1, 9, 1, 9, 9]], "must be a compressed run-length code"),
    ):
        with pytest.raises(ValueError, match=words):
            foreign_detections([{**rows[0], "segmentation": wrong}], TRUTH, IDS, masks=True)
    with pytest.raises(ValueError, match="detection 1 has no mask, unlike detection 0"):
        foreign_detections([*rows, ROW], TRUTH, IDS, masks=True)


@pytest.mark.parametrize(
    ("box", "words"), [([70, 60, 110, 90], "may be corners"), ([0.1, 0.2, 0.5, 0.4], "shares"), ([1, 2, 30, 40], "")]
)
def test_boxes_of_another_form_are_remarked_on(box: list[float], words: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        foreign_detections([{**ROW, "bbox": box}], TRUTH, IDS, masks=False)
    assert (words in caplog.text) if words else not caplog.text


@pytest.mark.parametrize("form", ["photos/{}.jpg", "{}.jpg", "{}"])
def test_names_and_stems_of_files_are_taken_for_ids(form: str) -> None:
    images = [{**image, "file_name": f"photos/{'ab'[image['id'] % 2]}{image['id']}.jpg"} for image in TRUTH["images"]]
    named = [{**ROW, "image_id": form.format("b1")}, {**ROW, "image_id": form.format("a2")}]
    state = foreign_detections(named, {**TRUTH, "images": images}, IDS, masks=False)
    assert {image for image, own in state.items() if len(own.labels)} == {1, 2}
    with pytest.raises(ValueError, match="on image"):
        foreign_detections([*named, {**ROW, "image_id": "c1"}], {**TRUTH, "images": images}, IDS, masks=False)


def test_what_the_dataset_leaves_out_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rows = [ROW, {**ROW, "category_id": 77}, {**ROW, "image_id": 99}]
    with caplog.at_level(logging.WARNING):
        state = foreign_detections(rows, TRUTH, IDS, masks=False, partial=True)
    assert sum(len(own.labels) for own in state.values()) == 1
    assert "2 of 3 detections are of images or classes that are left out" in caplog.text
