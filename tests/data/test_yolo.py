"""YOLO's format: where files are found, boxes and polygons, hostile input."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from detector.data.annotations import AnnotatedDataset
from detector.data.custom import custom
from detector.data.faults import collect
from detector.data.image import ImageReader
from detector.data.yolo import read_yolo
from detector.data.yolo_labels import label_file

BOX = "1 0.5 0.25 0.2 0.1"  # in 30 x 20 pixels: (12, 4) to (18, 6)
TRIANGLE = "0 0.1 0.1 0.5 0.1 0.5 0.6"  # (3, 2), (15, 2), (15, 12)


def make(root: Path, labels: dict[str, str | None], yaml: str = "names: [dog, cat]\ntrain: images/train\n") -> Path:
    """Write images and labels by path, as `train/a`, and the data.yaml; None: no label file."""
    for name, text in labels.items():
        image, label = root / "images" / f"{name}.png", root / "labels" / f"{name}.txt"
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), "red").save(image)
        if text is not None:
            label.write_text(text)
    path = root / "data.yaml"
    path.write_text(yaml)
    return path


def test_boxes_and_polygons(tmp_path):
    path = make(tmp_path, {"train/a": f"\n{BOX}\n", "train/b": "", "train/c": f"{TRIANGLE}\n", "train/d": None})
    table = read_yolo(path)
    assert (table.classes, table.category_ids) == (["dog", "cat"], [0, 1])
    assert list(table.files) == [f"images/train/{name}.png" for name in "abcd"]
    assert list(table.image_ids) == ["a", "b", "c", "d"]
    assert table.sizes.tolist() == [[20, 30]] * 4
    assert (table.starts.tolist(), table.labels.tolist(), table.ids.tolist()) == ([0, 1, 1, 2, 2], [1, 0], [1, 2])
    np.testing.assert_allclose(table.boxes, [[12, 4, 6, 2], [3, 2, 12, 10]], atol=1e-9)
    np.testing.assert_allclose(table.areas, [12, 60], atol=1e-9)
    assert table.segmentations is not None
    assert table.segmentations.known.tolist() == [False, True]
    np.testing.assert_allclose(table.segmentations.get(1, (20, 30)), [[3, 2, 15, 2, 15, 12]], atol=1e-9)
    assert not table.crowd.any()
    assert not table.difficult.any()
    assert table.name(0) == f"{tmp_path / 'labels/train/a.txt'}:2"
    boxes = make(tmp_path / "boxes", {"train/a": BOX})
    dataset = AnnotatedDataset(read_yolo(boxes), boxes.parent)
    assert not dataset.has_masks
    np.testing.assert_allclose(dataset[0].target.boxes, [[12, 4, 18, 6]], atol=1e-5)


def test_a_thousandth_of_a_pixel_survives_six_decimals(tmp_path):
    path = make(tmp_path, {"train/a": None})
    Image.new("L", (1920, 1080)).save(tmp_path / "images/train/a.png")
    x1, y1, x2, y2 = 17.25, 33.5, 1901.125, 1079.75
    shares = ((x1 + x2) / 2 / 1920, (y1 + y2) / 2 / 1080, (x2 - x1) / 1920, (y2 - y1) / 1080)
    (tmp_path / "labels/train/a.txt").write_text("0 " + " ".join(f"{v:.6f}" for v in shares))
    np.testing.assert_allclose(read_yolo(path).corners(), [[x1, y1, x2, y2]], atol=0.002)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [dog, cat]\nnc: 2", ["dog", "cat"]),
        ("names: {0: dog, 1: cat}", ["dog", "cat"]),
        ("names: {1: cat, 0: dog}", ["dog", "cat"]),
        ("names: {'0': dog, '1': 7}", ["dog", "7"]),
        ("nc: 2", ["class_0", "class_1"]),
    ],
)
def test_names(tmp_path, names, expected):
    assert read_yolo(make(tmp_path, {"train/a": BOX}, f"{names}\ntrain: images/train")).classes == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: [dog, cat]\nnc: 3", r"nc is 3, but there are 2 names: \['dog', 'cat'\]"),
        ("names: {a: dog, 2: cat}", "must be a list of class names"),
        ("names: {-1: dog, 2: cat}", "must be a list of class names"),
        ("names: []", "must be a list of class names"),
        ("names: [[dog]]", "must be a list of class names"),
        ("nc: some", "must be a list of class names"),
        ("names: [dog, dog]", "repeat"),
    ],
)
def test_malformed_names(tmp_path, names, message):
    with pytest.raises(ValueError, match=rf"data\.yaml: .*{message}"):
        read_yolo(make(tmp_path, {"train/a": BOX}, f"{names}\ntrain: images/train"))


def test_class_numbers_with_gaps(tmp_path):
    yaml = "names: {7: cat, 3: dog}\nnc: 2\ntrain: images/train"  # as labelformat 0.1.17 writes COCO's
    path = make(tmp_path, {"train/a": "7 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.2 0.2\n"}, yaml)
    table = read_yolo(path)
    assert (table.classes, table.category_ids, table.labels.tolist()) == (["dog", "cat"], [3, 7], [1, 0])
    (tmp_path / "labels/train/a.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    with pytest.raises(
        ValueError, match=r"a\.txt:1: class number 1, but .* nc=2, numbers \[3, 7\] for \['dog', 'cat'\]"
    ):
        read_yolo(path)


def test_a_folder_of_images_in_place_of_the_keys(tmp_path):
    path = make(tmp_path, {"train/a": BOX, "val/b": TRIANGLE}, "names: [dog, cat]\nnc: 2\n")  # as supervision writes it
    assert list(read_yolo(path, images=tmp_path / "images/val").image_ids) == ["b"]
    assert list(read_yolo(path).image_ids) == ["a", "b"]
    with pytest.raises(FileNotFoundError, match="labels: the folder holds no image"):
        read_yolo(path, images=tmp_path / "labels")


def test_where_images_are_found(tmp_path):
    labels = {
        f"{split}/{name}": BOX for split, name in (("train", "a"), ("train/deep", "b"), ("val", "c"), ("more", "d"))
    }

    def files(keys: str, split: str = "train", root: Path = tmp_path) -> list[str]:
        path = make(root, labels, f"names: [dog, cat]\n{keys}\n")
        table = read_yolo(path, split)
        assert len(table.ids) == len(table)  # each has its labels
        return [name.removeprefix("images/") for name in table.files]

    assert files("train: images/train") == ["train/a.png", "train/deep/b.png"]
    assert files("train: [images/more, images/val]") == ["more/d.png", "val/c.png"]
    assert files("validation: images/val", "val") == ["val/c.png"]
    assert files("test: images/more/", "test") == ["more/d.png"]
    assert files("train: ../images/more") == ["more/d.png"]  # as Roboflow writes it
    assert files(f"path: {tmp_path}\ntrain: images/more") == ["more/d.png"]
    assert files("path: /content/somewhere\ntrain: images/more") == ["more/d.png"]
    assert files("path: .\ntrain: images/more") == ["more/d.png"]
    (tmp_path / "train.txt").write_text("./images/val/c.png\n\nimages\\train\\a.png\n")
    assert files("train: train.txt") == ["val/c.png", "train/a.png"]
    elsewhere = tmp_path / "yaml"
    elsewhere.mkdir()
    path = elsewhere / "data.yaml"
    path.write_text(f"names: [dog, cat]\npath: {tmp_path}\ntrain: images/val")
    assert list(read_yolo(path).files) == [f"{tmp_path}/images/val/c.png"]
    path.write_text("names: [dog, cat]\npath: ..\ntrain: images/val")
    assert list(read_yolo(path).files) == [f"{tmp_path}/images/val/c.png"]


def test_labels_beside_images(tmp_path):
    assert label_file(Path("/d/images/images/a.b.jpg")) == Path("/d/images/labels/a.b.txt")
    assert label_file(Path("/d/photos/a.jpg")) == Path("/d/photos/a.txt")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "photos/a.jpg")
    (tmp_path / "photos/a.txt").write_text(BOX)
    (tmp_path / "data.yaml").write_text("names: [dog, cat]\ntrain: photos\n")
    assert len(read_yolo(tmp_path / "data.yaml").ids) == 1


def test_ids_where_names_repeat(tmp_path):
    path = make(tmp_path, {"train/a/1": BOX, "train/b/1": BOX})
    assert list(read_yolo(path).image_ids) == ["images/train/a/1", "images/train/b/1"]
    Image.new("RGB", (30, 20)).save(tmp_path / "images/train/b/1.jpg")  # another image; they share the text file
    table = read_yolo(path)
    assert list(table.image_ids) == ["images/train/a/1.png", "images/train/b/1.jpg", "images/train/b/1.png"]
    assert table.starts.tolist() == [0, 1, 2, 3]


def test_photographs_are_upright(tmp_path):
    path = make(tmp_path, {"train/a": BOX})
    (tmp_path / "images/train/a.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "images/train/a.jpg", exif=exif)
    table = read_yolo(path)
    assert table.sizes.tolist() == [[30, 20]]
    np.testing.assert_allclose(table.boxes, [[8, 6, 4, 3]], atol=1e-9)
    as_stored = ImageReader(exif=False)
    dataset = AnnotatedDataset(read_yolo(path, reader=as_stored), tmp_path, reader=as_stored)
    assert dataset[0].image.shape == (3, 20, 30)
    np.testing.assert_allclose(dataset[0].target.boxes, [[12, 4, 18, 6]], atol=1e-5)
    custom_set = custom(path, reader=as_stored)
    np.testing.assert_allclose(custom_set[0].target.boxes, [[12, 4, 18, 6]], atol=1e-5)


def test_sizes_are_those_of_the_images_that_are_read(tmp_path):
    """A TIFF and a PNG that EXIF turns, one with a number that EXIF does not have, five bands, arrays, grey formats."""
    path = make(tmp_path, {f"train/{name}": BOX for name in ("a", "b", "c", "d", "e")})
    folder = tmp_path / "images/train"
    for name in "abcde":
        (folder / f"{name}.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30))
    picture.convert("RGB").save(folder / "a.tif", exif=exif)
    picture.save(folder / "b.png", exif=exif)
    exif[0x0112] = 9
    picture.save(folder / "c.jpg", exif=exif)
    picture.save(folder / "d.pgm")
    picture.save(folder / "e.jp2")
    dataset = AnnotatedDataset(read_yolo(path), tmp_path)
    assert list(dataset.annotations.image_ids) == list("abcde")
    assert [dataset[i].image.shape[1:] for i in range(5)] == [(30, 20), (30, 20), (20, 30), (20, 30), (20, 30)]
    assert dataset.annotations.sizes.tolist() == [[30, 20], [30, 20], [20, 30], [20, 30], [20, 30]]
    grey = ImageReader().read(folder / "b.png")[0].numpy()
    np.testing.assert_array_equal(grey, np.rot90(np.asarray(picture), -1))
    np.testing.assert_allclose(dataset[0].target.boxes, [[8, 6, 12, 9]], atol=1e-5)


def test_bands_and_arrays(tmp_path):
    path = make(tmp_path, {"train/a": BOX, "val/b": BOX}, "names: [dog, cat]\ntrain: images/train\nval: images/val\n")
    bands = np.arange(5 * 600, dtype=np.uint8).reshape(5, 20, 30)
    for name in ("train/a", "val/b"):
        (tmp_path / f"images/{name}.png").unlink()
    tifffile.imwrite(tmp_path / "images/train/a.tif", bands)
    np.save(tmp_path / "images/train/embedding.npy", np.zeros(7))  # beside images an array is none
    np.save(tmp_path / "images/val/b.npy", bands)
    reader = ImageReader(5)
    for split in ("train", "val"):
        dataset = AnnotatedDataset(read_yolo(path, split, reader=reader), tmp_path, reader=reader)
        assert len(dataset) == 1
        np.testing.assert_array_equal(dataset[0].image.numpy(), bands)


def test_images_over_the_limit_of_pixels(tmp_path, monkeypatch):
    path = make(tmp_path, {"train/a": BOX})
    with pytest.raises(ValueError, match=r"a\.png: the image has 30x20 = 600 pixels.* dataset\.max_pixels=600"):
        read_yolo(path, reader=ImageReader(max_pixels=599))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert len(read_yolo(path, reader=ImageReader(max_pixels=None))) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", r"class number 2, but .*data\.yaml has nc=2, numbers 0\.\.1 for \['dog', 'cat'\]"),
        ("90 0.5 0.5 0.1 0.1", r"class number 90, but .*nc=2"),
        ("-1 0.5 0.5 0.1 0.1", r"class number -1"),
        ("0.5 0.5 0.5 0.1 0.1", r"class number 0\.5"),
        ("nan 0.5 0.5 0.1 0.1", r"class number nan"),
        ("dog 0.5 0.5 0.1 0.1", r"'dog 0\.5 0\.5 0\.1 0\.1' are not numbers"),
        ("0 0.5 0.5 0.1", "4 numbers; a box has 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers; a box has 5"),
        ("0 0.5 0.5 0.1 0.1 0.9 0.1 0.9", "8 numbers; a box has 5"),
        ("0 15 10 3 2", "15 is no share"),
        ("0 0.5 -0.02 0.1 0.1", r"-0\.02 is no share"),
        ("0 0.1 0.1 0.5 0.1 0.5 nan", "nan is no share"),
        ("0 0.5 0.5 inf 0.1", "inf is no share"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, line, message):
    path = make(tmp_path, {"train/a": f"\n{line}\n"})
    with pytest.raises(ValueError, match=rf"labels/train/a\.txt:2: {message}"):
        read_yolo(path)


@pytest.mark.parametrize("rows", [(TRIANGLE, "0 0.7 0.8 0.75 0.82"), ("0 0.7 0.8 0.75 0.82", TRIANGLE)])
def test_five_numbers_among_polygons_are_refused(tmp_path, rows):
    """FiftyOne (1.22.1) writes tiny masks as two points, which read as a box may span the whole image."""
    path = make(tmp_path, {"train/a": "\n".join(rows)})
    box = 1 + rows.index("0 0.7 0.8 0.75 0.82")
    with pytest.raises(ValueError, match=rf"a\.txt:{box}: five numbers are a box, but line {3 - box} of the file is a"):
        read_yolo(path)


def test_what_cannot_be_learnt_is_skipped_with_a_line(tmp_path, caplog):
    boxes, polygons = ["0 0.5 0.5 0 0.1", "0 1.005 0.5 0.2 0.1"], ["0 0.1 0.1 0.1001 0.1 0.1001 0.1001", TRIANGLE]
    path = make(tmp_path, {"train/a": "\n".join(boxes), "train/b": "\n".join(polygons)})
    with caplog.at_level(logging.WARNING):
        table = read_yolo(path)
    said = [r.getMessage() for r in caplog.records]
    assert [text.split(": ", 1)[1] for text in said] == [
        "1.005 is out of 0..1, as 1 numbers are; what reaches out of the image is cut",
        "the polygon has no pixel within its image, as 1 have; they are left out",
        "skipped 1 of 4 boxes: 1 without area",
    ]
    assert said[0].startswith(f"{tmp_path / 'labels/train/a.txt'}:2: ")
    np.testing.assert_allclose(table.corners()[0], [27.15, 9, 30, 11])
    assert [table.name(i) for i in range(3)] == [
        f"{tmp_path}/labels/train/{line}" for line in ("a.txt:2", "b.txt:1", "b.txt:2")
    ]
    assert table.segmentations is not None
    assert table.segmentations.known.tolist() == [False, False, True]


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.yaml: no such file"):
        read_yolo(tmp_path / "data.yaml")
    path = make(tmp_path, {"train/a": None, "val/b": BOX})
    with pytest.raises(
        FileNotFoundError, match=r"labels/train/a\.txt: no such labels, nor any for the 1 images of train"
    ):
        read_yolo(path)
    with pytest.raises(
        ValueError, match=r"`val` must be a folder.*not None; it has \['train'\]; dataset\.val_share=0\.2"
    ):
        read_yolo(path, "val")
    with pytest.raises(ValueError, match=r"`test` must be a folder.*it has \['train'\]$"):
        read_yolo(path, "test")
    for text, message in (("names: [a", "not YAML"), ("- a", "it has no keys")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"data\.yaml: .*{message}"):
            read_yolo(path)
    path.write_text("names: [dog, cat]\ntrain: images/nowhere\nval: list.txt\ntest: labels\n")
    with pytest.raises(FileNotFoundError, match="images/nowhere: no such folder or list"):
        read_yolo(path)
    with pytest.raises(FileNotFoundError, match="labels: the folder holds no image"):
        read_yolo(path, "test")
    (tmp_path / "list.txt").write_text("images/val/b.png\nimages/val/c.png\n")
    with pytest.raises(FileNotFoundError, match=r"images/val/c\.png: no such image, but .*list\.txt"):
        read_yolo(path, "val")


def test_an_image_listed_twice_is_read_once(tmp_path, caplog):
    path = make(tmp_path, {"train/a": BOX}, "names: [dog, cat]\ntrain: [images/train, images]\n")
    with caplog.at_level(logging.WARNING):
        assert len(read_yolo(path)) == 1
    assert "1 images of train are listed again" in caplog.text


@pytest.mark.parametrize("text", ["1 0.5 0.25 0.2 0.1\n".encode("utf-16"), "träin".encode("latin-1")])
def test_text_in_another_encoding_is_named(tmp_path, text):
    path = make(tmp_path, {"train/a": BOX, "train/b": BOX})
    label = tmp_path / "labels/train/a.txt"
    label.write_bytes(text)
    with pytest.raises(ValueError, match=r"labels/train/a\.txt: not text in UTF-8 \(.*\); save it in that encoding"):
        read_yolo(path)
    with collect() as faults:
        assert np.diff(read_yolo(path).starts).tolist() == [0, 1]
    assert [fault.kind for fault in faults] == ["text files that cannot be read"]
    (tmp_path / "list.txt").write_bytes(text)
    path.write_text("names: [dog, cat]\ntrain: list.txt\n")
    with pytest.raises(ValueError, match=r"list\.txt: not text in UTF-8"):
        read_yolo(path)


def test_a_share_of_train_in_place_of_val(tmp_path):
    """What the message on a data.yaml without `val` proposes."""
    names = [f"train/{i}" for i in range(5)]
    path = make(tmp_path, dict.fromkeys(names, BOX))
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{name}.png")
    parts = [custom(whole=path, val_share=0.2, part=part) for part in ("train", "val")]
    assert [len(part) for part in parts] == [4, 1]
