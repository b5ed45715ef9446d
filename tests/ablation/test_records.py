"""Records: written and read again, and refused where they are not what they should be."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from detector.ablation.commands import chosen_overrides
from detector.ablation.description import Arm, PublishedRow, StudyInfo
from detector.ablation.records import (
    CurvePoint,
    Gain,
    MetricRow,
    Records,
    Run,
    read_records,
    write_records,
)

STUDY = StudyInfo(
    name="pooler",
    title="Which pooler?",
    question="Does alignment help, or interpolation?",
    baseline="roipool",
    arms={
        "roipool": Arm("RoIPool", ["pooler=roipool"]),
        "roialign": Arm("RoIAlign", ["pooler=roialign", "proposals=${data_dir}/given.npz"], 16),
    },
    datasets=["shapes_coco"],
    seeds=[0, 1],
    published=[PublishedRow("roipool", "shapes_coco", "mask", {"AP": 26.9}, "a table")],
    size_bins={"shapes_coco": [16.0, 48.0]},
)
RECORDS = Records(
    STUDY,
    [Run("pooler", "roialign", "shapes_coco", 0, "python a, b", "abc", "2026-01-02", 1.5, 500, 150, 12)],
    [MetricRow("pooler", "roialign", "shapes_coco", 0, "box", "AP[0,8)", 1 / 3, None, 0.5)],
    [Gain("pooler", "roialign", "roipool", "shapes_coco", 0, "box", "AP", -0.1, -0.2, 0.0)],
    [CurvePoint("pooler", "roialign", "shapes_coco", 0, 10, "loss/total", 2.5)],
)


def test_reads_what_was_written(tmp_path: Path) -> None:
    write_records(tmp_path, RECORDS)
    assert read_records(tmp_path) == RECORDS
    assert (
        (tmp_path / "runs.csv")
        .read_text()
        .startswith("study,arm,dataset,seed,command,commit,date,seconds,steps,images,params\n")
    )
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("metrics.csv", "study,arm", "arm,study", "the header must be study,arm"),
        ("metrics.csv", "0.3333333333333333", "much", "line 2: value must be a number, not 'much'"),
        ("metrics.csv", "0.3333333333333333", "nan", "must be a finite number"),
        ("metrics.csv", "0.3333333333333333", "", "value must be a number, not ''"),
        ("runs.csv", ",500,", ",500.5,", "steps must be a whole number"),
        ("runs.csv", ",150,12", ",150", "10 cells"),
        ("curves.csv", "roialign", "roiwarp", "arm 'roiwarp' is not in study.yaml"),
        ("curves.csv", "shapes_coco", "coco", "dataset 'coco' is not in study.yaml"),
        ("study.yaml", "baseline: roipool", "baseline: none_such", "baseline 'none_such' is none of the arms"),
        ("study.yaml", "question:", "query:", "lacks question"),
        ("study.yaml", "- 0", "- zero", "seeds must be whole numbers"),
        ("study.yaml", "stride: 16", "stride: wide", "stride must be a whole number of pixels"),
        ("study.yaml", "name: pooler", "name: [", "not readable as YAML"),
        ("study.yaml", "stride: 16", "stride: true", "stride must be a whole number of pixels"),
        ("study.yaml", "arm: roipool", "arm: roiwarp", "published: there is no arm 'roiwarp'"),
        (
            "study.yaml",
            "kind: mask",
            "kind: keypoint",
            "source, values, of kind box or mask",
        ),
        ("study.yaml", "AP: 26.9", "AP: many", "published: values must be of AP, AP50"),
        ("study.yaml", "AP: 26.9", "APsmall: 26.9", "not {'APsmall': 26.9}"),
        ("study.yaml", "- 16.0", "- wide", "size_bins must be numbers of pixels"),
        ("study.yaml", "  - 16.0\n", "", "size_bins must be two sides for each dataset"),
        ("study.yaml", "label: RoIPool", "label: null", "label must be text, not None"),
        ("study.yaml", "- shapes_coco", "- ../coco", "'../coco' is used as a file name"),
        ("metrics.csv", "0.3333333333333333", "33.3", "must be a fraction in 0..1, not (33.3, 0.5)"),
        ("metrics.csv", "0.3333333333333333", "-0.1", "must be a fraction in 0..1"),
        ("differences.csv", "-0.1,-0.2,0.0", "-0.1,0.2,0.0", "an interval that ends before it begins: [0.2, 0.0]"),
        ("differences.csv", "-0.1,-0.2,0.0", "-1.1,-0.2,0.0", "must be a fraction in -1..1"),
        ("metrics.csv", "shapes_coco,0,", "shapes_coco,1,", "roialign, shapes_coco, seed 1: no such run in runs.csv"),
        ("curves.csv", "shapes_coco,0,", "shapes_coco,7,", "seed 7 is not in study.yaml"),
    ],
)
def test_refuses(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    write_records(tmp_path, RECORDS)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(message)):
        read_records(tmp_path)


@pytest.mark.parametrize("name", ["study.yaml", "runs.csv", "metrics.csv", "differences.csv", "curves.csv"])
def test_names_the_missing_file(tmp_path: Path, name: str) -> None:
    write_records(tmp_path, RECORDS)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        read_records(tmp_path)


def test_refuses_what_is_no_text_and_skips_empty_lines(tmp_path: Path) -> None:
    write_records(tmp_path, RECORDS)
    runs = (tmp_path / "runs.csv").read_bytes()
    (tmp_path / "runs.csv").write_bytes(runs + b"\n")
    assert read_records(tmp_path) == RECORDS
    for damage in (b"\xff", b"x" * 200_000):
        (tmp_path / "runs.csv").write_bytes(runs + damage)
        with pytest.raises(ValueError, match=r"runs\.csv: not readable as CSV in UTF-8"):
            read_records(tmp_path)


def test_writes_no_number_that_could_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have finite numbers"):
        write_records(tmp_path, replace(RECORDS, metrics=[replace(RECORDS.metrics[0], value=math.nan)]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("train.py a=1 b=2", "train.py b='2' a=1\n", True),
        ("train.py a=1 a=2", "train.py a=2", True),
        ("train.py a=2 a=1", "train.py a=1 a=2", False),
        ("train.py a=1 ++a=2", "train.py ++a=2 a=1", False),
        ("train.py a={b:1} a.b=2", "train.py a.b=2 a={b:1}", False),
        ("train.py a={b:1}", " train.py a={b:1}", True),
        ("python scripts/train.py a=1 ~b", "aligned-rcnn train a=1 ~b", True),
        ("aligned-rcnn train a=1", "aligned-rcnn train a=2", False),
        ("train.py '' a=1", "train.py a=1", True),
        ("it's", "it's ", True),
        ("it's", "its", False),
        ("train.py a=1 workers=0 trainer.devices=2 hydra.run.dir=b", "train.py a=1 logger=none", True),
        ("train.py a=1 trainer.precision=16-mixed", "train.py a=1", False),
        ("train.py a=1 trainer=gpu", "train.py a=1", False),
        ("train.py a=1 data_dir=b", "train.py a=1", False),
    ],
)
def test_the_order_of_overrides_counts_where_it_has_a_meaning(one: str, other: str, same: bool) -> None:
    assert (chosen_overrides(one) == chosen_overrides(other)) == same


def test_a_study_without_published_numbers_and_bins(tmp_path: Path) -> None:
    records = replace(RECORDS, study=replace(STUDY, published=[], size_bins={}))
    write_records(tmp_path, records)
    assert not {"published", "size_bins"} & set((tmp_path / "study.yaml").read_text().replace(":", "").split())
    assert read_records(tmp_path) == records


def test_writes_no_name_that_could_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'BCCD \(small\)' is used as a file name"):
        write_records(tmp_path / "new", replace(RECORDS, study=replace(STUDY, datasets=["BCCD (small)"])))
    assert not (tmp_path / "new").exists()


def test_refuses_a_number_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two rows with the key"):
        write_records(tmp_path, replace(RECORDS, metrics=RECORDS.metrics * 2))
