"""Images are told by the suffixes of what can be read, and labels without an image are told."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.custom import custom
from detector.data.faults import Effect, collect
from detector.data.image import ImageReader
from detector.data.image_files import SUFFIXES, images_among
from detector.data.yolo import read_yolo
from detector.inference.inputs import image_files

ROW = "0 0.5 0.25 0.2 0.1\n"
XML = (
    "<annotation><size><width>30</width><height>20</height></size><object><name>dog</name><bndbox><xmin>3</xmin>"
    "<ymin>4</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
LATE = [".jfif", ".jpe", ".JPE", ".avif", ".pnm", ".j2k", ".tga"]


def picture(path: Path) -> None:
    """Write an image of 30 x 20 pixels in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)


def text(path: Path, content: str = ROW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize("suffix", LATE)
def test_whatever_pillow_reads_is_an_image(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / f"images/train/a{suffix}")
    picture(tmp_path / "images/train/b.png")
    for name in "ab":
        text(tmp_path / f"labels/train/{name}.txt")
        text(tmp_path / f"images/train/{name}.xml", XML)
    yolo = custom(text(tmp_path / "data.yaml", "names: [dog]\ntrain: images/train\n"))
    voc = custom(tmp_path / "images/train")
    for dataset in (yolo, voc):
        assert len(dataset.annotations.ids) == len(dataset) == 2
        assert dataset[0].image.shape == (3, 20, 30)
    (tmp_path / "images/train/a.xml").unlink()
    assert len(custom(tmp_path / "images/train", unannotated="empty")) == 2
    assert [p.name for p in image_files(tmp_path / "images/train")] == [f"a{suffix}", "b.png"]


def test_other_files_are_none(tmp_path: Path) -> None:
    names = ["a.mpg", "a.h5", "a.grib", "a.eps", "a.emf", "a.pcd", "a.txt", "a.xml", "a.json", "a.pdf", "a", "b.npy"]
    assert images_among(tmp_path / name for name in names) == [tmp_path / "b.npy"]
    assert {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"} <= SUFFIXES
    with pytest.raises(ValueError, match=r"the folder has no images, such as \*\.jpg"):
        image_files(tmp_path)


def warnings(caplog: pytest.LogCaptureFixture, path: Path) -> list[str]:
    """Read a dataset of YOLO, and return what is said."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read_yolo(path, reader=ImageReader())
    return [record.getMessage() for record in caplog.records]


def test_labels_without_an_image_of_a_data_yaml(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/a", "train/deep/b", "val/c"):
        picture(tmp_path / f"images/{name}.png")
        text(tmp_path / f"labels/{name}.txt")
    text(tmp_path / "labels/train/classes.txt", "dog\n")
    path = text(tmp_path / "data.yaml", "names: [dog]\ntrain: images/train\nval: images/val\n")
    assert warnings(caplog, path) == []
    lost = [text(tmp_path / f"labels/train/{name}.txt") for name in ("deep/y", "other/x", "z")]
    text(tmp_path / "images/train/deep/y.heic")
    assert warnings(caplog, path) == [
        f"3 text files of labels belong to no image, such as {lost[0]}; {tmp_path}/images/train/deep/y.heic is of no "
        "format that is read here: write it as PNG or JPEG"
    ]
    with collect() as faults:
        read_yolo(path)
    assert [(f.kind, f.effect, f.where) for f in faults] == [
        ("labels without an image", Effect.SKIPPED, str(place)) for place in lost
    ]
    lost[0].unlink()
    (tmp_path / "labels/train/folder.txt").mkdir()
    text(tmp_path / "images/train/z.json")  # describes an image, and is none
    assert warnings(caplog, path) == [f"2 text files of labels belong to no image, such as {lost[1]}"]


def test_photographs_of_several_pictures_are_images(tmp_path: Path) -> None:
    """Pillow tells MPO, as cameras write, by its content alone."""
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    (tmp_path / "images").mkdir()
    frames[0].save(tmp_path / "images/a.mpo", save_all=True, append_images=frames[1:])
    text(tmp_path / "labels/a.txt")
    path = text(tmp_path / "data.yaml", "names: [dog]\ntrain: images\n")
    assert list(read_yolo(path, reader=ImageReader()).files) == ["images/a.mpo"]


def test_images_of_another_list_are_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One folder holds all images, and lists choose those of each split."""
    for name in "ab":
        picture(tmp_path / f"images/{name}.png")
        text(tmp_path / f"labels/{name}.txt")
        text(tmp_path / f"{name}.txt", f"images/{name}.png\n")
    path = text(tmp_path / "data.yaml", "names: [dog]\ntrain: a.txt\nval: b.txt\n")
    assert warnings(caplog, path) == []
    lost = text(tmp_path / "labels/c.txt")
    assert warnings(caplog, path) == [f"1 text files of labels belong to no image, such as {lost}"]


@pytest.mark.parametrize("beside", [True, False])
def test_labels_without_an_image_of_an_obj_data(tmp_path: Path, beside: bool, caplog: pytest.LogCaptureFixture) -> None:
    images, labels = ("set", "set") if beside else ("images", "labels")
    for name in "ab":
        picture(tmp_path / f"{images}/{name}.png")
        text(tmp_path / f"{labels}/{name}.txt")
    text(tmp_path / "obj.names", "dog\n")
    text(tmp_path / "train.txt", f"{images}/a.png\n")
    text(tmp_path / f"{images}/notes.txt", "1 or 2 words\n")
    path = text(tmp_path / "obj.data", "names = obj.names\ntrain = train.txt\n")
    assert warnings(caplog, path) == []
    lost = text(tmp_path / f"{labels}/c.txt")
    assert warnings(caplog, path) == [f"1 text files of labels belong to no image, such as {lost}"]
