"""Choose and join classes, join files, split by image."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.data.arrange import choose_classes, join, split_images
from detector.data.coco import read_coco
from detector.data.custom import custom
from detector.data.image import ImageReader
from detector.data.summary import summarise

NAMES = {3: "car", 7: "helmet", 8: "hard hat", 9: "person"}


def content(objects: dict[int, list[int]], first: int = 1, names: dict[int, str] = NAMES) -> dict[str, Any]:
    """A set with `objects`: for each image its objects' category ids."""
    annotations = [(image, category) for image, categories in objects.items() for category in categories]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 30, "height": 20} for i in objects],
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for i, name in names.items()],
        "annotations": [
            {"id": first + n, "image_id": image, "category_id": category, "bbox": [n, 1, 4, 5], "area": 20}
            for n, (image, category) in enumerate(annotations)
        ],
    }


def write(folder: Path, data: dict[str, Any], name: str = "set.json", pictures: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for image in data["images"] if pictures else ():
        pixels = draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])
    (folder / name).write_text(json.dumps(data))
    return folder / name


OBJECTS = {1: [3, 7, 9], 2: [8, 8], 3: [], 4: [9]}


def test_classes_are_chosen_ordered_and_joined(tmp_path, caplog):
    table = read_coco(write(tmp_path, content(OBJECTS)))
    chosen = choose_classes(table, ["person", {"helmet": ["hard hat", "helmet"]}])
    assert (chosen.classes, chosen.category_ids) == (["person", "helmet"], [9, 8])
    truth = chosen.to_coco()
    assert [(a["image_id"], a["category_id"]) for a in truth["annotations"]] == [(1, 8), (1, 9), (2, 8), (2, 8), (4, 9)]
    assert [(c["id"], c["name"]) for c in truth["categories"]] == [(9, "person"), (8, "helmet")]
    assert len(truth["images"]) == 4
    assert choose_classes(table, {"person": "person"}).classes == ["person"]


def test_other_classes_are_ignored_if_asked(tmp_path):
    folder = write(tmp_path, content(OBJECTS), pictures=True)
    dataset = custom(folder, classes=["person", "car"], others="ignore")
    target = dataset[0].target
    assert target.labels.tolist() == [1, -1, 0]
    assert target.crowd.tolist() == [False, True, False]
    truth = [a for a in dataset.ground_truth()["annotations"] if a["image_id"] == 1]
    assert [(a["category_id"], a["iscrowd"], a["bbox"][0]) for a in truth] == [
        (3, 0, 0), (9, 1, 1), (3, 1, 1), (9, 0, 2)
    ]  # fmt: skip
    assert [s.id for s in custom(folder, classes=["person"], others="ignore", keep_empty=False)] == [1, 4]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["persn"], "there is no class 'persn' among .*; did you mean 'person'?"),
        (["person", "person"], "'person' is named more than once"),
        (["person", {"people": ["person"]}], "'person' is named more than once"),
        ([], r"classes must be names, or \{name: \[names to be joined\]\}"),
        ("person", "classes must be names"),
        ([{"helmet": []}], "classes must be names"),
        ([3], "classes must be names"),
    ],
)
def test_wrong_choices_are_named(tmp_path, classes, message):
    table = read_coco(write(tmp_path, content(OBJECTS)))
    with pytest.raises(ValueError, match=message):
        choose_classes(table, classes)


def test_files_are_joined_by_the_names_of_their_classes(tmp_path, caplog):
    first = write(tmp_path / "a", content({1: [3], 2: [9, 9]}), "one.json", pictures=True)
    second = write(
        tmp_path / "b", content({1: [1, 2], 5: []}, names={1: "person", 2: "dog"}), "two.json", pictures=True
    )
    dataset = custom([first, second])
    assert dataset.classes == ["car", "helmet", "hard hat", "person", "dog"]
    assert dataset.category_ids == [1, 2, 3, 4, 5]
    assert "category ids differ" in caplog.text
    assert [dataset[i].id for i in range(4)] == ["one:1", "one:2", "two:1", "two:5"]
    assert [dataset[i].target.labels.tolist() for i in range(4)] == [[0], [3, 3], [3, 4], []]
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == [1, 2, 3, 4, 5]
    assert dataset.file(2) == tmp_path / "b" / "1.png"
    assert dataset.annotations.name(3) == f"{second}: annotation 1 of {tmp_path / 'b' / '1.png'}"
    assert dataset.annotations.select(np.array([2])).describe(1) == (
        f"{second}: annotation 2 of {tmp_path / 'b' / '1.png'}, {dataset.classes[4]} [1.0, 1.0, 4.0, 5.0]"
    )
    with pytest.raises(ValueError, match=rf"{first} and {second}: classes: there is no class 'owl'"):
        custom([first, second], classes=["owl"])
    same = join([read_coco(first), read_coco(write(tmp_path / "c", content({8: [3]})))])
    assert (same.category_ids, list(same.image_ids)) == ([3, 7, 8, 9], [1, 2, 8])
    with pytest.raises(ValueError, match=r"both name the image 1\.png \(2 such\)"):
        join([read_coco(first), read_coco(first)])


def test_masks_are_joined(tmp_path):
    square = [[2, 3, 6, 3, 6, 9, 2, 9]]
    with_masks = content({1: [3]})
    with_masks["annotations"][0]["segmentation"] = square
    table = join([read_coco(write(tmp_path / "a", with_masks)), read_coco(write(tmp_path / "b", content({2: [3]})))])
    assert table.segmentations is not None
    assert [table.segmentations.get(i, (20, 30)) for i in range(2)] == [square, None]


def test_a_split_keeps_shares_of_each_class_and_is_seeded(tmp_path):
    draw = np.random.default_rng(0)
    objects = {
        i: [9] * int(draw.integers(1, 4)) + [3] * int(i % 5 == 0) + [7] * int(i % 25 == 0) for i in range(1, 201)
    }
    table = read_coco(write(tmp_path, content(objects)))
    train, val = split_images(table, [0.8, 0.2], seed=3)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(200))
    assert len(val) == 40
    rare = [sum(7 in objects[i + 1] for i in part.tolist()) for part in (train, val)]
    medium = [sum(3 in objects[i + 1] for i in part.tolist()) for part in (train, val)]
    assert rare[1] in (1, 2)
    assert medium[1] in (7, 8, 9)
    again, other = split_images(table, [0.8, 0.2], seed=3), split_images(table, [0.8, 0.2], seed=4)
    assert again[1].tolist() == val.tolist() != other[1].tolist()
    assert [len(part) for part in split_images(table, [0.7, 0.2, 0.1])] == [140, 40, 20]
    groups = np.arange(200) // 4
    grouped = split_images(table, [0.8, 0.2], groups=groups)[1]
    assert len(grouped) == 40
    assert len(set((grouped // 4).tolist())) == 10


def inside(objects: dict[int, list[int]]) -> dict[str, Any]:
    """Such a set with all boxes in one place."""
    made = content(objects)
    for annotation in made["annotations"]:
        annotation["bbox"] = [1, 1, 4, 5]
    return made


@pytest.mark.parametrize("seed", range(8))
def test_shares_are_those_of_images_not_of_groups(tmp_path, seed, caplog):
    table = read_coco(write(tmp_path, inside({i: [3, 9] if i % 10 == 0 else [9] for i in range(1, 101)})))
    groups = np.concatenate([np.zeros(60, int), np.arange(1, 41)])  # a camera's frames, and other images
    train, val = split_images(table, [0.8, 0.2], seed, groups)
    assert (len(train), len(val)) == (80, 20)
    assert len({part for part, images in enumerate((train, val)) for i in images.tolist() if i < 60}) == 1
    assert "look like others" not in caplog.text
    cars = [sum((i + 1) % 10 == 0 and i >= 60 for i in part.tolist()) for part in (train, val)]
    assert min(cars) >= 1  # 20 of the other images for each part


def test_groups_of_many_sizes_keep_shares_and_classes(tmp_path):
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), draw.integers(1, 30, 300))
    rare = draw.random(300) < 0.2
    table = read_coco(write(tmp_path, inside({i: [3] if rare[g] else [9] for i, g in enumerate(groups.tolist(), 1)})))
    for seed in range(5):
        parts = split_images(table, [0.7, 0.2, 0.1], seed, groups)
        assert np.abs(np.array([len(part) for part in parts]) / len(groups) - [0.7, 0.2, 0.1]).max() < 0.002
        cars = np.array([rare[groups[part]].sum() for part in parts])
        assert np.abs(cars / cars.sum() - [0.7, 0.2, 0.1]).max() < 0.02
        assert not set(groups[parts[0]].tolist()) & set(groups[parts[1]].tolist())


def test_shares_that_groups_miss_are_said(tmp_path, caplog):
    table = read_coco(write(tmp_path, content({i: [9] for i in range(1, 61)})))
    parts = split_images(table, [0.8, 0.2], 0, np.arange(60) // 30)  # both parts have one group
    assert [len(part) for part in parts] == [30, 30]
    said = r"set\.json: the parts have 30 and 30 images for shares of 0\.8 and 0\.2 of 60 images, of which 60 "
    assert re.search(said, caplog.text)
    said = (
        r"a share of 0\.2 of 60 images, of which 60 look like others and stay together: 1 groups is none; give more, "
    )
    with pytest.raises(
        ValueError, match=said + r"or .* dataset\.train\.annotations=FILE and dataset\.val\.annotations="
    ):
        split_images(table, [0.8, 0.2], 0, np.zeros(60, int))


def test_categories_keep_their_keys_where_files_are_joined(tmp_path):
    first, second = content({1: [3]}), content({2: [1, 2]}, names={1: "person", 2: "dog"})
    first["categories"][3] |= {"keypoints": ["nose"], "supercategory": "body"}  # person
    second["categories"][0] |= {"supercategory": "other", "color": "red"}
    second["categories"][1] |= {"color": "blue"}
    table = join([read_coco(write(tmp_path / "a", first)), read_coco(write(tmp_path / "b", second))])
    assert table.to_coco()["categories"][3:] == [
        {"id": 4, "name": "person", "keypoints": ["nose"], "supercategory": "body", "color": "red"},
        {"id": 5, "name": "dog", "supercategory": "thing", "color": "blue"},
    ]


def test_images_that_look_the_same_stay_together(tmp_path, monkeypatch):
    path = write(tmp_path, content({i: [3] for i in range(1, 41)}))
    draw = np.random.default_rng(0)
    for i in range(1, 41, 2):
        pixels = draw.integers(0, 256, (2, 3, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        Image.fromarray(pixels.clip(2) - 2).save(tmp_path / f"{i + 1}.png")
    read = []
    monkeypatch.setattr(
        ImageReader, "read", lambda *args, read=read, real=ImageReader.read: read.append(args) or real(*args)
    )
    train, val = (custom(whole=path, part=part, split=[0.75, 0.25], reader=ImageReader()) for part in ("train", "val"))
    assert (len(read), len(train)) == (40, 30)  # read once for both parts
    ids = {val[i].id for i in range(len(val))}
    assert len(ids) == 10
    assert all(i + 1 in ids for i in ids if i % 2)


def test_one_file_is_split_into_training_and_validation(tmp_path):
    path = write(tmp_path, content({i: [3] for i in range(1, 11)}), pictures=True)
    parts = {part: custom(whole=path, part=part, val_share=0.3) for part in ("train", "val")}
    ids = {part: [dataset[i].id for i in range(len(dataset))] for part, dataset in parts.items()}
    assert (len(ids["train"]), len(ids["val"])) == (7, 3)
    assert sorted(ids["train"] + ids["val"]) == list(range(1, 11))
    assert len(custom(whole=path, part="val", split=[0.5, 0.2, 0.3])) == 2
    assert len(custom(path, part="val", whole=path, val_share=0.3)) == 10  # a file of its own is not divided


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"give dataset.val.annotations=..., .*dataset.annotations=FILE dataset.val_share=0.2"),
        ({"whole": "all.json"}, "dataset.annotations=all.json: say which share .* dataset.val_share=0.2"),
        ({"whole": "all.json", "val_share": 1.5}, "val_share must be a share above 0 and below 1, .* not 1.5"),
        ({"whole": "all.json", "val_share": 0.1, "split": [0.9, 0.1]}, "give one of them"),
        ({"annotations": []}, "empty list"),
        ({"annotations": ["a.json", "b.txt"]}, "annotations must be a COCO file"),
        ({"annotations": ["a.json", "."]}, "files of one format only can be joined"),
    ],
)
def test_what_is_missing_is_named(tmp_path, arguments, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, content({1: [3]}), "a.json", pictures=True)
    (tmp_path / "b.txt").touch()
    with pytest.raises(ValueError, match=message):
        custom(part="val", **arguments)


@pytest.mark.parametrize("shares", [[0.5], [0.5, 0.6], [1.2, -0.2], [0.99, 0.01]])
def test_wrong_shares_are_named(tmp_path, shares):
    table = read_coco(write(tmp_path, content({i: [3] for i in range(1, 11)})))
    with pytest.raises(ValueError, match="split"):
        split_images(table, shares)


def test_ignored_classes_are_a_crowd_of_each_class_with_ids_of_their_own(tmp_path):
    dataset = custom(write(tmp_path, content(OBJECTS), pictures=True), classes=["person", "car"], others="ignore")
    ids = [a["id"] for a in dataset.ground_truth()["annotations"]]
    assert len(set(ids)) == len(ids) == 3 + 2 * 3
    assert summarise(dataset, (16, 48)).ignored == 3
    assert "other [1.0, 1.0, 4.0, 5.0] in 1.png" in dataset.annotations.describe(1)


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path):
    first, second = (
        write(tmp_path / name, content({1: [3], 2: [9]}), "set.json", pictures=True) for name in ("a", "b")
    )
    dataset = custom([first, second])
    ids = [dataset[i].id for i in range(4)]
    assert ids == [f"{first}:1", f"{first}:2", f"{second}:1", f"{second}:2"]
    assert dataset.stated_in(2) == second
    assert len(dataset.ground_truth()["images"]) == 4


def test_a_limit_below_one_is_refused(tmp_path):
    path = write(tmp_path, content({1: [3], 2: [9]}), pictures=True)
    assert len(custom(path, limit=1)) == 1
    for limit in (0, -1):
        with pytest.raises(ValueError, match=rf"set\.json: limit={limit}: give at least 1"):
            custom(path, limit=limit)


def test_a_category_of_other_ids_is_no_parent(tmp_path):
    data = content({1: [3]}, names={2: "vehicle", 3: "car"})
    data["categories"][1]["supercategory"] = "vehicle"
    data["categories"][0]["supercategory"] = "none"
    assert read_coco(write(tmp_path, data)).classes == ["vehicle", "car"]


def xml_folder(folder: Path, names: dict[str, list[str]]) -> Path:
    folder.mkdir()
    for stem, objects in names.items():
        Image.fromarray(np.full((20, 30, 3), len(stem), np.uint8)).save(folder / f"{stem}.png")
        boxes = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        found = "".join(f"<object><name>{name}</name>{boxes}</object>" for name in objects)
        size = "<size><width>30</width><height>20</height></size>"
        (folder / f"{stem}.xml").write_text(f"<annotation><filename>{stem}.png</filename>{size}{found}</annotation>")
    return folder


def test_classes_of_xml_files_may_be_absent_in_a_split_and_others_ignored(tmp_path):
    folder = xml_folder(tmp_path / "val", {"a": ["cat", "dog", "cat"], "b": ["bird"]})
    dataset = custom(folder, classes=["cat", "owl"], others="ignore")
    assert dataset.classes == ["cat", "owl"]
    assert len(set(dataset.category_ids)) == 2
    assert dataset[0].target.labels.tolist() == [0, -1, 0]
    truth = dataset.ground_truth()["annotations"]
    assert [(a["category_id"], a["iscrowd"]) for a in truth if a["image_id"] == "a"] == [
        (dataset.category_ids[0], 0), (dataset.category_ids[0], 1), (dataset.category_ids[1], 1),
        (dataset.category_ids[0], 0),
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file or folder of annotations"):
        custom(tmp_path / "nowhere")


def test_images_of_a_data_yaml_are_not_given_for_both_splits(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: train/images\nval: val/images\n")
    for part, options in (("train", {"images": "x"}), ("val", {"shared_images": "x"})):
        with pytest.raises(ValueError, match=r"data\.yaml names the images of both splits; leave out dataset\.images"):
            custom(whole=tmp_path / "data.yaml", part=part, **options)
