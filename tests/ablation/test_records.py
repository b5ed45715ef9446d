"""Records: written and read again, and refused where they are not what they should be."""

from dataclasses import replace
from pathlib import Path

import pytest

from detector.ablation.records import Arm, CurvePoint, Gain, Metric, Records, Run, StudyInfo, read, write

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
)
RECORDS = Records(
    STUDY,
    [Run("pooler", "roialign", "shapes_coco", 0, "python a, b", "abc", "2026-01-02", 1.5, 500, 150, 12)],
    [Metric("pooler", "roialign", "shapes_coco", 0, "box", "AP[0,8)", 1 / 3, None, 0.5)],
    [Gain("pooler", "roialign", "roipool", "shapes_coco", 0, "box", "AP", -0.1, -0.2, 0.0)],
    [CurvePoint("pooler", "roialign", "shapes_coco", 0, 10, "loss/total", 2.5)],
)


def test_reads_what_was_written(tmp_path: Path) -> None:
    write(tmp_path, RECORDS)
    assert read(tmp_path) == RECORDS
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
    ],
)
def test_refuses(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    write(tmp_path, RECORDS)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        read(tmp_path)


@pytest.mark.parametrize("name", ["study.yaml", "runs.csv", "metrics.csv", "differences.csv", "curves.csv"])
def test_names_the_missing_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, RECORDS)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        read(tmp_path)


def test_refuses_a_number_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two rows about"):
        write(tmp_path, replace(RECORDS, metrics=RECORDS.metrics * 2))
