"""Classes of datasets and detectors are compared by name."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from detector.config.build import build_collector
from detector.config.classes import with_labels_of
from detector.config.resolve import resolve, with_classes
from detector.data.coco import CocoDataset
from detector.data.relabel import Relabelled
from detector.evaluation import CocoMetric
from detector.types import Objects
from detector.weights.checkpoints import FORMAT, portable_config
from tests.conftest import compose_config, dense

SIZE = (40, 48)


def make(folder: Path, name: str, classes: dict[int, str]) -> Path:
    """Write a JSON with an image of one square of each class."""
    image = np.zeros((*SIZE, 3), np.uint8)
    objects = []
    for place, category in enumerate(classes):
        x, y = 2 + 15 * place, 4 + 3 * place
        image[y : y + 12, x : x + 12] = 250
        box = {"bbox": [x, y, 12, 12], "area": 144, "iscrowd": 0, "segmentation": [[x, y, x + 12, y, x + 12, y + 12]]}
        objects.append({"id": place + 1, "image_id": 1, "category_id": category, **box})
    Image.fromarray(image).save(folder / f"{name}.png")
    images = [{"id": 1, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}]
    categories = [{"id": number, "name": word} for number, word in classes.items()]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return path


def opened(folder: Path, name: str, classes: dict[int, str]) -> CocoDataset:
    return CocoDataset(folder, make(folder, name, classes))


def test_another_order_is_matched_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = opened(tmp_path, "train", {0: "apple", 1: "banana", 2: "cherry"})
    val = opened(tmp_path, "val", {0: "cherry", 1: "apple", 7: "banana"})
    with caplog.at_level(logging.INFO):
        found, names = with_labels_of({"train": train, "val": val})
    assert found["train"] is train
    assert names == ["apple", "banana", "cherry"]
    mapped = found["val"]
    assert isinstance(mapped, Relabelled)
    assert (list(mapped.classes), list(mapped.category_ids)) == (names, [1, 7, 0])
    sample, before = mapped[0], val[0]
    assert [names[i] for i in sample.target.labels] == ["cherry", "apple", "banana"]
    assert torch.equal(sample.target.boxes, before.target.boxes)
    assert sample.target.masks is not None
    assert before.target.masks is not None
    assert torch.equal(dense(sample.target.masks), dense(before.target.masks))
    assert mapped.ground_truth() == val.ground_truth()
    assert (len(mapped), mapped.has_masks) == (1, True)
    assert not hasattr(mapped, "has_keypoints")
    assert [r.getMessage() for r in caplog.records] == [
        "dataset.val has the classes of dataset.train in another order; they are matched by name"
    ]


def test_other_ids_in_the_same_order_need_nothing(tmp_path: Path) -> None:
    train, val = opened(tmp_path, "t", {0: "a", 1: "b"}), opened(tmp_path, "v", {5: "a", 9: "b"})
    found, _ = with_labels_of({"train": train, "val": val})
    assert found["val"] is val


def test_a_clash_names_the_pairs(tmp_path: Path) -> None:
    train = opened(tmp_path, "t", {0: "apple", 1: "banana"})
    val = opened(tmp_path, "v", {0: "banana", 1: "cherry"})
    with pytest.raises(ValueError, match="both must name the same classes") as error:
        with_labels_of({"train": train, "val": val})
    assert str(error.value).startswith(
        "dataset.train knows 2 classes, dataset.val has 2; only dataset.val has 'cherry'; only dataset.train has "
        "'apple'; the category id 0 is 'apple' in dataset.train and 'banana' in dataset.val, 1 is 'banana' in "
        "dataset.train and 'cherry' in dataset.val: "
    )
    assert "(dataset.classes=[...] chooses some" in str(error.value)
    with pytest.raises(
        ValueError, match=r"checkpoint 'x' knows 3 classes, dataset.val has 2; only checkpoint 'x' has 'd'"
    ):
        with_labels_of({"val": val}, ["banana", "d", "cherry"], "checkpoint 'x'")
    many = [f"class {i:02}" for i in range(9)]
    with pytest.raises(ValueError, match=r"'class 04' and 4 more"):
        with_labels_of({"val": val}, ["banana", "cherry", *many], "x")


def test_gathered_classes_may_be_fewer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of XML files the classes are those of the objects, and a validation split may have none of some."""
    train = opened(tmp_path, "t", {1: "a", 2: "b", 3: "c"})
    val = opened(tmp_path, "v", {1: "b"})
    with pytest.raises(ValueError, match=r"only dataset\.train has 'a', 'c'"):
        with_labels_of({"train": train, "val": val})
    val.annotations = replace(val.annotations, gathered=True)
    with caplog.at_level(logging.INFO):
        found, names = with_labels_of({"train": train, "val": val})
    assert names == ["a", "b", "c"]
    assert "dataset.val has no object of 'a', 'c', which dataset.train has" in caplog.text
    assert (list(found["val"].classes), list(found["val"].category_ids)) == (names, [2, 1, 3])
    assert found["val"][0].target.labels.tolist() == [1]
    truth = found["val"].ground_truth()
    assert {c["id"]: c["name"] for c in truth["categories"]} == {1: "b", 2: "a", 3: "c"}
    assert [a["category_id"] for a in truth["annotations"]] == [1]
    with pytest.raises(ValueError, match=r"only dataset\.val has 'b'"):
        with_labels_of({"val": val}, ["a", "c"], "checkpoint 'x'")


def test_names_of_other_datasets_are_refused() -> None:
    class Two:
        classes, category_ids = ["a", "b"], [1, 2]

    with pytest.raises(ValueError, match=r"must be \['a', 'b'\] in any order, not \['a', 'c'\]"):
        Relabelled(Two(), ["a", "c"])  # type: ignore[arg-type]


def test_detections_are_measured_and_written_by_name(tmp_path: Path) -> None:
    trained = with_classes(compose_config("dataset=custom", "dataset.train.annotations=t.json"), ["apple", "cherry"])
    trained.dataset.val.annotations = "v.json"
    own = {"format": FORMAT, "config": portable_config(trained)}
    torch.save({"state_dict": {}, "aligned_rcnn": own}, tmp_path / "last.ckpt")
    val = make(tmp_path, "val", {4: "cherry", 6: "apple"})
    given = [f"checkpoint={tmp_path / 'last.ckpt'}", "dataset=custom", f"dataset.val.annotations={val}"]
    resolved = resolve(compose_config(*given, name="evaluate"), given, splits=("val",))
    assert list(resolved.config.classes) == ["apple", "cherry"]
    collector = build_collector([], resolved.datasets["val"], (32, 96))
    boxes = torch.tensor([[2.0, 4, 14, 16], [17, 7, 29, 19]])  # of the cherry and the apple
    collector.update([1], [Objects(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 0]))], [SIZE])
    measured = CocoMetric(collector).results()
    assert {name: measured[name] for name in ("box/AP", "box/AP/apple", "box/AP/cherry")} == pytest.approx(
        {"box/AP": 1.0, "box/AP/apple": 1.0, "box/AP/cherry": 1.0}
    )
    collector.write(tmp_path)
    rows = json.loads((tmp_path / "predictions" / "box.json").read_text())
    assert {row["category_id"]: row["bbox"] for row in rows} == {4: [2, 4, 12, 12], 6: [17, 7, 12, 12]}
    make(tmp_path, "val", {4: "cherry", 6: "pear"})
    with pytest.raises(ValueError, match=r"only dataset\.val has 'pear'; only checkpoint '.*last\.ckpt' has 'apple'"):
        resolve(compose_config(*given, name="evaluate"), given, splits=("val",))


def test_classes_of_the_configuration_are_those_of_the_data(tmp_path: Path) -> None:
    paths = [f"dataset.{split}.annotations={make(tmp_path, split, {1: 'b', 2: 'a'})}" for split in ("train", "val")]
    assert list(resolve(compose_config("dataset=custom", *paths)).config.classes) == ["b", "a"]
    with pytest.raises(ValueError, match="leave it out"):
        resolve(compose_config("dataset=custom", *paths, "classes=[a,b]"))
    assert OmegaConf.is_readonly(resolve(compose_config("dataset=custom", *paths)).config)
