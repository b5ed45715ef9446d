"""Images whose folder is not given: the right pictures, or none."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.config.build import build_dataset
from detector.data.image_folder import Folders, file_names
from tests.conftest import compose_config


def make(path: Path, *names: str, folder: Path | None = None, value: int = 0) -> Path:
    """Write a JSON of images with an object each, and, into `folder`, these images, all pixels of one value."""
    images = [{"id": i, "file_name": name, "width": 20, "height": 10} for i, name in enumerate(names)]
    box = {"category_id": 1, "bbox": [1, 2, 5, 4], "iscrowd": 0, "area": 20}
    objects = [{"id": i + 1, "image_id": i, **box} for i in range(len(names))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": [{"id": 1, "name": "a"}]}))
    for name in names if folder is not None else ():
        assert folder is not None
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 20, 3), value, np.uint8)).save(folder / name)
    return path


def opened(tmp_path: Path, val: Path) -> int:
    """Open `val` as the configuration does beside train.json, whose images are in `train`; returns its first pixel."""
    config = compose_config(
        "dataset=custom",
        f"dataset.train.annotations={tmp_path / 'train.json'}",
        f"dataset.train.images={tmp_path / 'train'}",
        f"dataset.val.annotations={val}",
    )
    assert config.dataset.val.images is None
    dataset = build_dataset(config, "val")
    return int(dataset[0].image[0, 0, 0])


def test_one_folder_for_both(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "train.json", "1.png", folder=tmp_path / "train", value=10)
    val = make(tmp_path / "val.json", "2.png", "sub/3.png", folder=tmp_path / "train", value=20)
    with caplog.at_level(logging.INFO):
        assert opened(tmp_path, val) == 20
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith(f"{val}: its images are read from {tmp_path / 'train'}, not from its own folder")


def test_the_folder_of_the_json_comes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "train.json", "1.png", folder=tmp_path / "train", value=10)
    val = make(tmp_path / "val" / "val.json", "1.png", folder=tmp_path / "val", value=20)
    with caplog.at_level(logging.INFO):
        assert opened(tmp_path, val) == 20
    assert f"{val}: its images are read from its own folder, {tmp_path / 'val'}" in caplog.text


def test_names_of_training_images_are_refused(tmp_path: Path) -> None:
    train = make(tmp_path / "train.json", "1.png", "2.png", folder=tmp_path / "train", value=10)
    val = make(tmp_path / "val.json", "2.png", folder=tmp_path / "val", value=20)
    with pytest.raises(ValueError, match=r"both name 2\.png \(1 files in both\).*dataset\.val\.images=") as error:
        opened(tmp_path, val)
    assert all(str(path) in str(error.value) for path in (train, val, tmp_path / "train"))
    assert opened(tmp_path, train) == 10  # the training images themselves are meant
    make(tmp_path / "train.json", "1.png", folder=tmp_path / "train")
    assert opened(tmp_path, val) == 10  # nothing says that it is another picture


def test_images_in_neither_folder_are_named(tmp_path: Path) -> None:
    make(tmp_path / "train.json", "1.png", folder=tmp_path / "train")
    val = make(tmp_path / "val.json", "2.png", folder=tmp_path / "val")
    with pytest.raises(ValueError, match=r"val\.json: neither .*2\.png nor .*train/2\.png exists.*dataset\.val\.im"):
        opened(tmp_path, val)


def test_without_another_folder_it_is_that_of_the_json(tmp_path: Path) -> None:
    val = make(tmp_path / "val.json", "2.png", folder=tmp_path)
    assert Folders().of(val, ["2.png"]) == Folders(shared=tmp_path / "." / "x" / "..").of(val, ["2.png"]) == tmp_path
    assert Folders(tmp_path / "given", tmp_path / "x").of(val, ["2.png"]) == tmp_path / "given"


def test_names_are_read_as_json_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [{"file_name": 'ü"\\x.png'}], "info": "file_name"}, ensure_ascii=True))
    assert file_names(path) == ['ü"\\x.png']
    assert file_names(tmp_path / "list.txt") == []


def test_a_dataset_without_training_data_composes() -> None:
    config = compose_config("dataset=custom", "dataset.val.annotations=v.json", name="evaluate")
    assert (config.dataset.val.shared_images, config.dataset.val.shared_annotations) == (None, None)


@pytest.mark.parametrize(
    ("in_train", "in_val"),
    [
        ("sub\\0.png", "sub\\0.png"),
        ("sub/0.png", "sub\\0.png"),
        ("./sub/0.png", "sub//0.png"),
        ("{folder}/sub/0.png", "sub/0.png"),
    ],
)
def test_names_of_training_images_are_refused_in_any_spelling(tmp_path: Path, in_train: str, in_val: str) -> None:
    make(tmp_path / "images.json", "sub/0.png", folder=tmp_path / "train", value=10)
    make(tmp_path / "images.json", "sub/0.png", folder=tmp_path / "val", value=20)
    make(tmp_path / "train.json", in_train.format(folder=tmp_path / "train"))
    val = make(tmp_path / "elsewhere/val.json", in_val)
    with pytest.raises(ValueError, match=r"both name sub/0\.png \(1 files in both\).*dataset\.val\.images="):
        opened(tmp_path, val)


def test_a_back_slash_may_be_part_of_a_name(tmp_path: Path) -> None:
    """Where a file has it, that file is read, and it is another than the one in a folder."""
    make(tmp_path / "train.json", "sub/0.png", folder=tmp_path / "train", value=10)
    val = make(tmp_path / "elsewhere/val.json", "sub\\0.png", folder=tmp_path / "train", value=20)
    assert opened(tmp_path, val) == 20
