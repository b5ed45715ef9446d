"""YOLO's pose labels: boxes are read, key points are not, and polygons are told from them."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.faults import Effect, collect
from detector.data.yolo import read_yolo

BOX = [12, 4, 18, 6]  # of 30 x 20 pixels
PLAIN = "1 0.5 0.25 0.2 0.1"
TWO = f"{PLAIN} 0.45 0.22 0.55 0.28"
THREE = f"{PLAIN} 0.45 0.22 2 0.55 0.28 1 0 0 0"  # the last is not labelled
TRIANGLE = "0 0.1 0.1 0.5 0.1 0.5 0.6"


def make(root: Path, *files: str, keys: str = "") -> Path:
    """Write images with these labels, and their data.yaml."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True)
    for number, text in enumerate(files):
        Image.new("RGB", (30, 20)).save(root / f"images/{number}.png")
        (root / f"labels/{number}.txt").write_text(text)
    path = root / "data.yaml"
    path.write_text(f"names: [dog, cat]\ntrain: images\n{keys}\n")
    return path


@pytest.mark.parametrize(("line", "shape"), [(TWO, "[2, 2]"), (THREE, "[3, 3]")])
def test_boxes_of_pose_labels(tmp_path: Path, line: str, shape: str, caplog: pytest.LogCaptureFixture) -> None:
    path = make(tmp_path, f"{line}\n{line}\n", f"{PLAIN}\n{line}", keys=f"kpt_shape: {shape}")
    with caplog.at_level(logging.INFO):
        table = read_yolo(path)
    np.testing.assert_allclose(table.corners(), [BOX] * 4, atol=1e-9)
    np.testing.assert_allclose(table.areas, 12, atol=1e-9)
    assert (table.labels.tolist(), table.segmentations) == ([1] * 4, None)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"{path}: the key points of 3 objects are not read, their boxes are"


@pytest.mark.parametrize(
    ("line", "shape", "message"),
    [
        (TWO, "[3, 2]", r"0\.txt:1: 9 numbers; with kpt_shape: \[3, 2\] .* has 11 .* 2 of each of 3 key points\)"),
        (THREE, "[2, 3]", r"0\.txt:1: 14 numbers; with kpt_shape: \[2, 3\] .* has 11"),
        (TRIANGLE, "[2, 2]", r"0\.txt:1: 7 numbers; with kpt_shape: \[2, 2\]"),
        ("1 15 5 6 2 0.5 0.5 0.5 0.5", "[2, 2]", r"0\.txt:1: 15 is no share of the image's .* divide pixels by them$"),
        (TWO, "[2, 4]", r"data\.yaml: kpt_shape must be .* such as \[17, 3\], not \[2, 4\]; leave it out"),
        (TWO, "17", r"data\.yaml: kpt_shape must be .* not 17"),
        (TWO, "[0, 2]", r"data\.yaml: kpt_shape must be .* not \[0, 2\]"),
        (TWO, "[2, a]", r"data\.yaml: kpt_shape must be .* not \[2, 'a'\]"),
    ],
)
def test_other_numbers_are_refused(tmp_path: Path, line: str, shape: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_yolo(make(tmp_path, line, keys=f"kpt_shape: {shape}"))


def test_polygons_that_may_be_points_are_remarked_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make(tmp_path, f"{TWO}\n{PLAIN} 0.41 0.25 0 0\n", TWO)
    table = read_yolo(path)
    assert table.segmentations is not None  # nothing is guessed
    (said,) = [record.getMessage() for record in caplog.records if "key points" in record.getMessage()]
    assert said.startswith(f"{path}: all 3 objects are read as polygons, but may be boxes with 2 key points in them")
    assert said.endswith(
        f"such as that of {tmp_path}/labels/0.txt:1; if they are, add `kpt_shape: [2, 2]` to the data.yaml"
    )
    with collect() as faults:
        read_yolo(path)
    (fault,) = [f for f in faults if f.kind == "doubts about a whole file"]
    assert fault.effect == Effect.LEARNT
    assert "kpt_shape: [2, 2]" in fault.where
    visible = make(tmp_path, f"{PLAIN} 0.45 0.22 1 0.55 0.28 1", f"{PLAIN} 0.45 0.22 0 0 0 0")
    caplog.clear()
    read_yolo(visible)
    assert "2 key points in them" in caplog.text
    assert "kpt_shape: [2, 3]" in caplog.text


@pytest.mark.parametrize(
    "files",
    [
        (TWO, f"{PLAIN} 0.45 0.22 0.7 0.28"),  # a point out of its box
        (TWO, TRIANGLE),
        (TWO, PLAIN),
        (TWO, "1 0.5 0.25 1.2 0.1 0.45 0.22 0.55 0.28"),
        ("0 0.9 0.1 0.95 0.1 0.95 0.2 0.9 0.2",),  # a rectangle
        (PLAIN,),
        ("",),
    ],
)
def test_what_cannot_be_points_is_read_without_a_word(
    tmp_path: Path, files: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    path = make(tmp_path, *files)
    if "1.2" in files[-1]:
        with pytest.raises(ValueError, match=r"1\.2 is no share .* divide pixels by them$"):
            read_yolo(path)
        return
    read_yolo(path)
    assert "key points" not in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (THREE, r"14 numbers; a box has 5 .*; if they are a box and key points, add `kpt_shape: \[3, 3\]` to the data"),
        (f"{PLAIN} 0.45 0.22 2 0.55 0.28 1", r"2 is no share.* by them; if they are .* add `kpt_shape: \[2, 3\]`"),
    ],
)
def test_refused_rows_name_the_key(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_yolo(make(tmp_path, line))
