"""COCO's JSON as tools spell it: sizes, areas, flags, and several names of one file."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import CocoDataset
from detector.data.custom import custom
from detector.data.faults import Effect, collect

BOX = {"category_id": 1, "bbox": [2, 3, 4, 6], "area": 24, "iscrowd": 0}


def write(folder: Path, images: list[dict[str, Any]], *objects: dict[str, Any]) -> tuple[Path, Path]:
    """Write a JSON in `folder`, beside `a.png` and `sub/a.png` of 30 x 20 pixels."""
    (folder / "sub").mkdir(exist_ok=True)
    for value, name in enumerate(("a.png", "sub/a.png")):
        Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(folder / name)
    content = {
        "images": [{"width": 30, "height": 20, **image} for image in images],
        "annotations": [{"id": i, **BOX, **keys} for i, keys in enumerate(objects, 1)],
        "categories": [{"id": 1, "name": "ant"}],
    }
    path = folder / "set.json"
    path.write_text(json.dumps(content))
    return folder, path


def with_object(folder: Path, **keys: Any) -> CocoDataset:
    """Open a JSON of one image with an object."""
    return CocoDataset(*write(folder, [{"id": 7, "file_name": "a.png"}], {"image_id": 7, **keys}))


SPELLINGS = [
    ("sub/a.png", "sub\\a.png"),
    ("sub\\a.png", "sub/a.png"),
    ("sub\\a.png", ".\\sub\\a.png"),
    ("./sub/a.png", "sub//a.png"),
    ("sub/a.png", "{folder}/sub/a.png"),
    ("{folder}/sub/../sub/a.png", "sub\\a.png"),
]


@pytest.mark.parametrize("names", SPELLINGS)
def test_an_image_listed_in_two_spellings_is_joined(
    tmp_path: Path, names: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (name.format(folder=tmp_path) for name in names)
    images = [{"id": 7, "file_name": first}, {"id": 8, "file_name": "a.png"}, {"id": 9, "file_name": second}]
    objects = [{"image_id": i, "bbox": [2, 3, 4, y], "area": 4 * y} for y, i in ((5, 9), (6, 7), (7, 8), (8, 9))]
    folder, path = write(tmp_path, images, *objects)
    for dataset in (CocoDataset(folder, path), custom(path), custom([path])):
        assert list(dataset.annotations.image_ids) == [7, 8]
        assert dataset[0].target.boxes.tolist() == [[2, 3, 6, 8], [2, 3, 6, 9], [2, 3, 6, 11]]
        assert (int(dataset[0].image.max()), int(dataset[1].image.max())) == (1, 0)
        assert dataset[1].target.boxes.tolist() == [[2, 3, 6, 10]]
        assert [(a["id"], a["image_id"]) for a in dataset.ground_truth()["annotations"]] == [
            (1, 7), (2, 7), (4, 7), (3, 8),
        ]  # fmt: skip
    assert caplog.text.count("1 images are listed more than once, such as") == 3
    with collect() as faults:
        CocoDataset(folder, path)
    (fault,) = [f for f in faults if f.kind == "images that are listed more than once"]
    assert fault.effect == Effect.CORRECTED
    assert "has the ids 7 and 9" in fault.where


def test_objects_that_two_entries_of_an_image_hold_count_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "a.png"}, {"id": 8, "file_name": "sub/a.png"}]
    objects = [{"image_id": i, "bbox": [2, 3, 4, y]} for i, y in ((7, 6), (7, 6), (9, 6), (9, 7), (8, 6), (8, 6))]
    dataset = CocoDataset(*write(tmp_path, images, *objects))
    assert dataset[0].target.boxes.tolist() == [[2, 3, 6, 9], [2, 3, 6, 9], [2, 3, 6, 10]]
    assert dataset[1].target.boxes.tolist() == [[2, 3, 6, 9]] * 2
    assert "1 objects that several of these entries hold count once" in caplog.text


def test_an_image_listed_in_two_spellings_and_sizes_is_refused(tmp_path: Path) -> None:
    files = write(tmp_path, [{"id": 7, "file_name": "sub/a.png"}, {"id": 9, "file_name": "sub\\a.png", "width": 31}])
    with pytest.raises(ValueError, match=r"images 7 and 9 name one file, sub/a\.png, but differ in size"):
        CocoDataset(*files)


def test_a_file_with_a_back_slash_in_its_name_is_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write(tmp_path, [{"id": 7, "file_name": "sub/a.png"}, {"id": 9, "file_name": "sub\\a.png"}])
    Image.fromarray(np.full((20, 30, 3), 5, np.uint8)).save(tmp_path / "sub\\a.png")
    dataset = CocoDataset(*files)
    assert [int(dataset[i].image.max()) for i in range(2)] == [1, 5]
    assert not caplog.records


def test_whole_floats_are_sizes(tmp_path: Path) -> None:
    dataset = CocoDataset(*write(tmp_path, [{"id": 7, "file_name": "a.png", "width": 30.0, "height": 20.0}]))
    assert dataset[0].image.shape == (3, 20, 30)
    (image,) = dataset.ground_truth()["images"]
    assert image == {"id": 7, "file_name": "a.png", "width": 30, "height": 20}
    assert [type(image[side]) for side in ("width", "height")] == [int, int]


@pytest.mark.parametrize("width", [30.5, -30, float("inf"), float("nan"), "30", True, None])
def test_other_sizes_are_refused(tmp_path: Path, width: Any) -> None:
    files = write(tmp_path, [{"id": 7, "file_name": "a.png", "width": width}])
    with pytest.raises(ValueError, match=rf"\(a\.png\): `width` must be a positive int, not {width!r}"):
        CocoDataset(*files)


TRIANGLE = [[2, 3, 10, 3, 10, 11]]


@pytest.mark.parametrize("area", [{"area": None}, {}])
@pytest.mark.parametrize(("shape", "expected"), [({}, 24), ({"segmentation": TRIANGLE}, 32)])
def test_an_area_that_is_null_is_that_of_the_mask_or_the_box(
    tmp_path: Path, area: dict[str, None], shape: dict[str, Any], expected: float
) -> None:
    folder, path = write(tmp_path, [{"id": 7, "file_name": "a.png"}], {"image_id": 7, **shape}, {"image_id": 7})
    content = json.loads(path.read_text())
    del content["annotations"][0]["area"]
    content["annotations"][0] |= area
    path.write_text(json.dumps(content))
    stated, measured = (CocoDataset(folder, path, areas=areas).ground_truth() for areas in ("stated", "measured"))
    assert ["area" in a for a in stated["annotations"]] == [False, True]  # evaluation measures it
    assert measured["annotations"][0]["area"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "crowd"),
    [("false", False), ("False", False), ("TRUE", True), (" true ", True), ("Unspecified", False), ("", False)],
)
def test_flags_as_texts(tmp_path: Path, value: str, crowd: bool) -> None:
    dataset = with_object(tmp_path, iscrowd=value)
    assert dataset[0].target.crowd.tolist() == [crowd]
    for keys in ({"difficult": value}, {"ignore": value}, {"attributes": {"difficult": value}}):
        assert with_object(tmp_path, **keys)[0].target.difficult.tolist() == [crowd]


@pytest.mark.parametrize("value", ["yes", "2", 2, [0], 0.5])
def test_other_flags_are_refused(tmp_path: Path, value: Any) -> None:
    for key in ("iscrowd", "difficult"):
        with pytest.raises(ValueError, match=rf"annotations\[0\] \(id 1\): `{key}` must be 0 or 1, not "):
            with_object(tmp_path, **{key: value})


def test_plain_values_are_read_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        with_object(tmp_path, iscrowd="false", area=None, difficult="Unspecified")
    assert not caplog.records
