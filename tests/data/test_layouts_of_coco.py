"""COCO's JSON as tools really write it, of one image with two objects."""

import json
from pathlib import Path
from typing import Any

import pytest

from detector.data.custom import custom
from tests.data.layout_cases import OBJECTS, found, write


def coco(**keys: Any) -> dict[str, Any]:
    """Make a JSON of both objects, with further keys of each, and what `keys` replaces."""
    boxes = [[0.0, 0.0, 10.0, 10.0], [20.0, 5.0, 30.0, 25.0]]
    each = keys.pop("each", {})
    ids, of = keys.pop("ids", [1, 2]), keys.pop("of", [2, 1])
    annotations = [
        {"image_id": 0, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0} | each
        for c, box in zip(of, boxes, strict=True)
    ]
    annotations = [a | {"id": i} for a, i in zip(annotations, ids, strict=True)]
    names = [{"id": 1, "name": "apple", "supercategory": None}, {"id": 2, "name": "pear", "supercategory": None}]
    images = [{"id": 0, "file_name": "a.png", "width": 60, "height": 40}]
    return {"images": images, "categories": names, "annotations": annotations} | keys


def _named(*names: str, first: int = 0, **keys: Any) -> list[dict[str, Any]]:
    return [{"id": i, "name": name} | keys for i, name in enumerate(names, first)]


COCO = {
    "roboflow": coco(
        info={"year": "2026", "version": "1"},
        licenses=[{"id": 1, "url": "", "name": "CC BY 4.0"}],
        categories=[*_named("fruit", supercategory="none"), *_named("apple", "pear", first=1, supercategory="fruit")],
        ids=[0, 1],
        each={"segmentation": []},
    ),
    "roboflow-one-name": coco(
        categories=[*_named("pear", supercategory="none"), *_named("apple", "pear", first=1, supercategory="pear")],
        ids=[0, 1],
    ),
    "label-studio": coco(
        categories=_named("apple", "pear"), ids=[0, 1], of=[1, 0], each={"segmentation": [], "ignore": 0}
    ),
    "cvat": coco(
        licenses=[{"name": "", "id": 0, "url": ""}],
        each={"segmentation": [], "attributes": {"occluded": True, "rotation": 0.0}},
    ),
    "fiftyone": coco(each={"difficult": 0}),
    "sahi": coco(categories=_named("apple", "pear", first=1, supercategory="apple")),
    "labelme2coco": coco(categories=_named("pear", "apple"), of=[0, 1]),
}


@pytest.mark.parametrize("tool", COCO)
def test_coco(tmp_path: Path, tool: str) -> None:
    write(tmp_path, {"_annotations.coco.json": json.dumps(COCO[tool]), "a.png": ""})
    dataset = custom(tmp_path / "_annotations.coco.json")
    assert found(dataset) == OBJECTS
    assert sorted(dataset.classes) == ["apple", "pear"]
    assert not dataset.annotations.crowd.any()
    assert not dataset.annotations.difficult.any()


def test_file_names_with_the_folders_of_another_place(tmp_path: Path) -> None:
    """As labelme2coco writes them, relative to where it ran."""
    images = [{"id": 0, "file_name": "runs/src/a.png", "width": 60, "height": 40}]
    write(tmp_path, {"runs/dataset.json": json.dumps(coco(images=images)), "runs/src/a.png": ""})
    with pytest.raises(FileNotFoundError, match=r"missing; a\.png is there, without the folders of its file_name\); "):
        custom(tmp_path / "runs/dataset.json", tmp_path / "runs/src")
    assert found(custom(tmp_path / "runs/dataset.json", tmp_path)) == OBJECTS
