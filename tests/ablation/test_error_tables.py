"""The section on the errors of two runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from pycocotools import mask as coco_mask

from detector.ablation.report.document import Heading, Paragraph, Table
from detector.ablation.report.errors import costs, error_blocks, in_words, lost, objects, paired_errors
from detector.config import build
from detector.evaluation.errors import KINDS
from detector.evaluation.measure import Estimate
from detector.evaluation.paired_errors import PairedErrors, pair_errors
from tests.conftest import compose_config
from tests.evaluation.test_paired_errors import BESIDE, CAT, DOG, HERE, RUNS, Images, collector_of

LABELS = ("RoIPool", "RoIAlign")
NAMES = ("compare", "pets")


def with_differences(**values: tuple[float, float, float]) -> PairedErrors:
    errors = pair_errors(*(collector_of(images) for images in RUNS), "box", resamples=2)
    none = dict.fromkeys(KINDS, Estimate(0, 0, 0))
    return PairedErrors(errors.first, errors.second, none | {name: Estimate(*e) for name, e in values.items()})


def test_numbers_costs_and_their_differences() -> None:
    wrong: Images = [([(CAT, HERE)], [(CAT, BESIDE, 0.8)]), ([(CAT, HERE)], [(CAT, HERE, 0.9), (DOG, BESIDE, 0.1)])]
    right: Images = [([(CAT, HERE)], [(CAT, HERE, 0.8)]), ([(CAT, HERE)], [])]
    paired = pair_errors(collector_of(wrong), collector_of(right), "box")
    table = costs(paired, "box", LABELS, NAMES)
    assert table.name == "compare_pets_box_errors"
    assert table.header[1:] == [
        *("number\nRoIPool", "number\nRoIAlign", "cost\nRoIPool", "cost\nRoIAlign"),
        "difference",
    ]
    # one of two objects is found with a precision of 1 in both: 51 of 101 recalls
    # in a quarter of the resamples no object is missed; another quarter, of missed objects alone, has no cost
    assert table.rows == [
        ["localisation", "1", "0", "49.5", "0.0", "-49.5\n-100.0 to +0.0"],
        ["missed", "0", "1", "0.0", "49.5", "+49.5\n+0.0 to +49.5"],
        ["classification", "0", "0", "0.0", "0.0", "+0.0\n+0.0 to +0.0"],
        ["both", "1", "0", "0.0", "0.0", "+0.0\n+0.0 to +0.0"],
        ["duplicate", "0", "0", "0.0", "0.0", "+0.0\n+0.0 to +0.0"],
        ["background", "0", "0", "0.0", "0.0", "+0.0\n+0.0 to +0.0"],
    ]
    assert "50.5 for RoIPool and 50.5 for RoIAlign" in table.notes[0]


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        (
            {"missed": (-0.032, -0.05, -0.01), "localisation": (-0.01, -0.02, 0), "duplicate": (0.004, -0.001, 0.009)},
            "the cost of missed objects falls most, by 3.2 points of AP50 (interval of the difference -5.0 to -1.0) "
            "and the cost of duplicates rises most, by 0.4 points of AP50 (interval of the difference -0.1 to +0.9, "
            "which contains zero)",
        ),
        (
            {"both": (0.02, 0.01, 0.03)},
            "the cost of errors of both class and place rises most, by 2.0 points of AP50 "
            "(interval of the difference +1.0 to +3.0)",
        ),
        ({"background": (-0.0004, -0.001, 0)}, "no kind of error changes its cost"),
    ],
)
def test_the_largest_change_in_words(differences: dict[str, tuple[float, float, float]], words: str) -> None:
    text = in_words(with_differences(**differences), "mask", LABELS)
    assert text == f"Masks, from RoIPool to RoIAlign: {words}."


def test_objects_found() -> None:
    paired = with_differences()
    table = objects(paired, "box", LABELS, NAMES, (20, 40))
    assert table.header == ["size", "objects", "found by both", "only by\nRoIPool", "only by\nRoIAlign", "by neither"]
    assert table.rows == [
        ["all", "5", "1", "2", "1", "1"],
        ["small", "2", "0", "1", "1", "0"],
        ["medium", "2", "1", "0", "0", "1"],
        ["large", "1", "0", "1", "0", "0"],
    ]
    others = lost(paired, "box", LABELS, NAMES)
    assert others.header == ["error of the other run", "found only by\nRoIPool", "found only by\nRoIAlign"]
    assert others.rows == [["classification", "0", "1"], ["localisation", "1", "0"], ["missed", "1", "0"]]


def test_reads_both_runs_with_their_limits_and_masks(tmp_path: Path) -> None:
    config = compose_config("model=mask_rcnn", f"data_dir={tmp_path}", "dataset.train.train=2", "dataset.train.val=4")
    dataset = build.build_dataset(config, "val")
    annotations = dataset.ground_truth()["annotations"]
    for name, detections in (("a", 100), ("b", 1)):
        rows: list[dict[str, Any]] = []
        for annotation in annotations:
            mask = coco_mask.decode(annotation["segmentation"])
            x, _, w, _ = annotation["bbox"]
            mask[:, int(x + 0.4 * w) :] = 0  # too little of each
            part = coco_mask.encode(np.asfortranarray(mask))
            kept = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
            rows.append({**kept, "segmentation": {**part, "counts": part["counts"].decode()}, "score": 0.9})
        config.dataset.detections = detections
        (tmp_path / name / "predictions").mkdir(parents=True)
        for kind in ("box", "mask"):
            (tmp_path / name / "predictions" / f"{kind}.json").write_text(json.dumps(rows))
        OmegaConf.save(config, tmp_path / name / "config.yaml", resolve=True)
    found = paired_errors(tmp_path / "a", tmp_path / "b")
    assert list(found) == ["box", "mask"]
    assert found["box"].first.numbers() == dict.fromkeys(KINDS, 0)
    assert found["box"].second.numbers()["missed"] == len(annotations) - 4
    assert found["mask"].first.numbers()["localisation"] > len(annotations) / 2
    blocks = error_blocks(found, LABELS, NAMES, (20, 40))
    assert [type(block) for block in blocks] == [Heading, *[Paragraph, Table, Table, Table] * 2]
    assert error_blocks({}, LABELS, NAMES, (20, 40)) == []

    (tmp_path / "b" / "predictions" / "mask.json").unlink()
    assert list(paired_errors(tmp_path / "a", tmp_path / "b")) == ["box"]
