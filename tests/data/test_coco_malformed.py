"""COCO files that are refused: malformed entries and masks, missing paths, unreadable images."""

import re

import pytest
from PIL import Image

from detector.data.coco import CocoDataset
from tests.data.coco_cases import CIRCLE, change, content, write


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("no json", "not JSON"),
        ("[1, 2]", "no list `images`"),
        ({"images": [], "annotations": []}, "no list `categories`"),
        (change("categories", []), "category ids"),
        (change("categories.0.id", 4), "repeat"),
        (change("categories.0.name", 3), "category needs"),
        (change("images.0.id", ...), r"images\[0\] needs an `id`"),
        (change("images.1.id", 7), "taken"),
        (change("images.0.width", 0), "`width` must be a positive int"),
        (change("annotations.0", 5), r"annotations\[0\] is int"),
        (change("annotations.1.image_id", 8), r"id 12\) belongs to image_id 8"),
        (change("annotations.1.image_id", [7]), r"belongs to image_id \[7\]"),
        (change("annotations.1.category_id", 5), "category_id 5"),
        (change("annotations.1.bbox", ...), "`bbox` must be four numbers"),
        (change("annotations.1.bbox", [1, 2, 3]), "`bbox` must be four numbers"),
        (change("annotations.1.bbox", [1, 2, 3, "4"]), "`bbox` must be four numbers"),
        (change("annotations.1.bbox", [1, 2, 3, float("nan")]), "`bbox` must be four numbers"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, data, message):
    with pytest.raises(ValueError, match=rf"(?s)set\.json.*{message}"):
        CocoDataset(*write(tmp_path, data))


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5, float("inf")]],
        ["polygon"],
        "polygon",
        {"counts": "abc"},
        {"size": [30, 20], "counts": [600]},
        {"size": 600, "counts": [600]},
        {"size": [20, 30], "counts": None},
        {"size": [20, 30], "counts": "\u00ff"},
        {"size": [20, 30], "counts": [10, 20]},
        {"size": [20, 30], "counts": [-1, 601]},
    ],
)
def test_a_malformed_mask_is_named(segmentation, tmp_path):
    data = content()
    data["annotations"][1]["segmentation"] = segmentation
    number = data["annotations"][1]["id"]
    with pytest.raises(ValueError, match=rf"set\.json: annotation(s\[1\] \(id {number}\)| {number}): "):
        CocoDataset(*write(tmp_path, data))[0]


def test_missing_paths_say_what_is_expected(tmp_path):
    folder, path = write(tmp_path, content())
    with pytest.raises(FileNotFoundError, match=r"(?s)nowhere: no such folder.*layout.*data_dir"):
        CocoDataset(tmp_path / "nowhere", path)
    with pytest.raises(FileNotFoundError, match=r"(?s)none\.json: no such annotation file.*layout.*data_dir"):
        CocoDataset(folder, tmp_path / "none.json")
    for wrong in (path.with_name(f"{path.stem}s.json"), tmp_path.with_name(f"{tmp_path.name}_") / path.name):
        with pytest.raises(FileNotFoundError, match=rf"did you mean {re.escape(str(path))}\?\)"):
            CocoDataset(folder, wrong)
    with pytest.raises(FileNotFoundError, match=rf"there is no 'xyzzy' in {re.escape(str(tmp_path))}"):
        CocoDataset(folder, tmp_path / "xyzzy/a/b.json")
    near = folder.with_name(folder.name[:-1])
    with pytest.raises(
        FileNotFoundError, match=rf"did you mean {re.escape(str(folder))}\?\); .*dataset\.images=FOLDER"
    ):
        CocoDataset(near, path)
    (folder / "plate").mkdir()
    (folder / "b.png").rename(folder / "plate" / "b.png")
    with pytest.raises(
        FileNotFoundError, match=r"b\.png: no such image \(1 of 2 images.*; it is in .*plate\); .*dataset\.images="
    ):
        CocoDataset(folder, path)


def test_unreadable_and_unequal_images_are_named_at_once_and_when_read(tmp_path):
    folder, path = write(tmp_path, content())
    dataset = CocoDataset(folder, path)
    whole = (tmp_path / "a.png").read_bytes()
    for broken in (b"", b"no image", whole[: len(whole) // 2]):
        (tmp_path / "a.png").write_bytes(broken)
        for read in (lambda: CocoDataset(folder, path), lambda: dataset[0]):
            with pytest.raises(ValueError, match=r"a\.png: unreadable image"):
                read()
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    for read in (lambda: CocoDataset(folder, path), lambda: dataset[0]):
        with pytest.raises(ValueError, match=r"a\.png: the image is 20x30 .*says 30x20"):
            read()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("area", "12", "area must be a number, not '12'"),
        ("area", float("nan"), "area must be a number"),
        ("segmentation", [[1, 2, 3]], "at least three points"),
        ("segmentation", {"counts": [1, 2], "size": [3, 3]}, "its mask has size"),
        ("segmentation", 7, "neither polygons nor run lengths"),
    ],
)
def test_annotations_are_checked_before_they_are_needed(tmp_path, key, value, words):
    data = content()
    data["annotations"][1][key] = value
    with pytest.raises(ValueError, match=words) as error:
        CocoDataset(*write(tmp_path, data))
    assert "set.json" in str(error.value)


def test_ids_as_another_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'007', which is not among the 2 images of the file, whose ids are numbers"):
        CocoDataset(*write(tmp_path, change("annotations.0.image_id", "007")))


@pytest.mark.parametrize("value", ["no", 2, [0], 0.5])
def test_a_flag_that_is_neither_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"annotations\[0\] \(id 11\): `iscrowd` must be 0 or 1, not"):
        CocoDataset(*write(tmp_path, change("annotations.0.iscrowd", value)))


def test_a_negative_area_is_refused_unless_areas_are_measured(tmp_path):
    files = write(tmp_path, change("annotations.1.area", -112.0))
    with pytest.raises(ValueError, match=r"annotation 12 has the area -112 .*areas=measured"):
        CocoDataset(*files)
    areas = [a["area"] for a in CocoDataset(*files, areas="measured").ground_truth()["annotations"]]
    assert areas == [24, CIRCLE.sum(), 40]


def test_polygons_of_pairs_are_refused(tmp_path):
    data = change("annotations.0.segmentation", [[[5, 5], [9, 5], [9, 9], [5, 9]]])
    with pytest.raises(ValueError, match=r"id 11\): a polygon must be x, y, x, y, .* not \[\[5, 5\], \[9, 5\]"):
        CocoDataset(*write(tmp_path, data))


def test_a_polygon_far_outside_is_refused(tmp_path):
    data = change("annotations.0.segmentation", [[2, 3, 6, 3, 6, 300]])
    with pytest.raises(ValueError, match=r"annotations\[0\] \(id 11\): a polygon reaches .* far outside of its image"):
        CocoDataset(*write(tmp_path, data))
