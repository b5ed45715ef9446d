"""The generated set: what it promises about sizes, boxes, masks and repeatability."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.data import scene
from detector.data.shapes import ShapesDataset
from detector.data.summary import summarise
from tests.conftest import dense

SHARES = {"coco": (0.41, 0.34, 0.24), "voc": (0.11, 0.35, 0.54)}
SMALL = {"train": 24, "val": 12}


def digest(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module", params=SHARES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ShapesDataset, list[float]]:
    root = tmp_path_factory.mktemp("shapes") / request.param
    shares = SHARES[request.param]
    return ShapesDataset(root, "train", shares=shares, **SMALL), [s / sum(shares) for s in shares]


def test_sizes_hold_their_shares(made):
    dataset, shares = made
    found = summarise(dataset, (16, 48))
    assert found.objects >= 3 * len(dataset)
    assert [found.small, found.medium, found.large] == pytest.approx(shares, abs=0.02)


def test_images_hold_three_to_ten_objects_of_every_class(made):
    dataset, _ = made
    truth = dataset.ground_truth()
    counts = np.bincount([a["image_id"] for a in truth["annotations"]])[1:]
    assert len(counts) == 24
    assert counts.min() >= 3
    assert counts.max() <= 10
    assert {a["category_id"] for a in truth["annotations"]} == {1, 2, 3, 4, 5}
    sides = np.array([a["bbox"][2:] for a in truth["annotations"]])
    assert sides.min() >= 6
    assert sides.max() <= 120
    assert (sides[:, 0] / sides[:, 1]).max() > 1.5
    assert (sides[:, 0] / sides[:, 1]).min() < 1 / 1.5


def test_boxes_agree_with_the_visible_masks(made):
    dataset, _ = made
    for sample in (dataset[i] for i in range(len(dataset))):
        assert sample.size == (192, 192)
        # Two objects may each hold exactly half of a pixel, and no more than that.
        masks = dense(sample.target.masks)
        assert (masks.sum(0) > 1).float().mean() < 0.001
        for box, mask in zip(sample.target.boxes, masks, strict=True):
            rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
            tight = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            # A pixel of at least half coverage belongs to the mask; only the tip of a triangle is thinner for longer.
            assert (box - tight).abs().max() < 3.0
            assert (box - tight).abs().median() < 1.0


def test_annotated_area_is_the_masks(made):
    dataset, _ = made
    areas = [a["area"] for a in dataset.ground_truth()["annotations"] if a["image_id"] == 1]
    assert areas == dense(dataset[0].target.masks).sum((1, 2)).tolist()


def test_the_same_parameters_give_the_same_bytes_and_others_another_folder(tmp_path):
    small = {"train": 4, "val": 3}
    first = ShapesDataset(tmp_path / "a" / "shapes", "train", **small)
    second = ShapesDataset(tmp_path / "b" / "shapes", "train", **small)
    assert digest(first.images.parent) == digest(second.images.parent)
    other = ShapesDataset(tmp_path / "a" / "shapes", "train", **small, seed=1)
    assert other.images.parent != first.images.parent
    assert not torch.equal(other[0].image, first[0].image)
    assert {p.name for p in (tmp_path / "a").iterdir()} == {first.images.parent.name, other.images.parent.name}


def test_splits_are_disjoint(tmp_path):
    train, val = (ShapesDataset(tmp_path / "shapes", split, train=6, val=6) for split in ("train", "val"))
    assert not {d for k, d in digest(train.images).items()} & {d for k, d in digest(val.images).items()}


def test_an_existing_set_is_not_drawn_again(tmp_path):
    first = ShapesDataset(tmp_path / "shapes", "train", train=2, val=1)
    before = (first.images / "000001.png").stat().st_mtime_ns
    again = ShapesDataset(tmp_path / "shapes", "val", train=2, val=1)
    assert (first.images / "000001.png").stat().st_mtime_ns == before
    assert len(again) == 1
    assert json.loads((first.images.parent / "parameters.json").read_text())["train"] == 2


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scene, "paint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ShapesDataset(tmp_path / "shapes", "train", train=2, val=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", scene.CLASSES)
@pytest.mark.parametrize("angle", [0.0, 0.3, -0.2])
def test_box_of_a_shape_is_the_extent_of_its_points(name, angle):
    shape = scene.Shape(scene.CLASSES.index(name), 30.3, 29.6, 20.0, 11.0, angle)
    points = ((np.arange(60 * 32) + 0.5) / 32).astype(np.float32)
    inside = shape.covers(points[None], points[:, None])
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    found = points[[columns[0], rows[0], columns[-1], rows[-1]]]
    # The outermost points of a slanted tip lie within a grid step along it, not across it.
    assert np.abs(found - shape.box()).max() < 0.12
    assert inside.mean() * 60 * 60 == pytest.approx(scene.FILL[name] * 40 * 22, rel=0.01)


def test_an_occluded_side_ends_where_the_other_object_begins():
    rectangle = scene.CLASSES.index("rectangle")
    behind = scene.Shape(rectangle, 30.1, 30.2, 15.0, 10.0, 0.0)
    front = scene.Shape(rectangle, 40.0, 30.0, 4.75, 12.0, 0.0)
    seen = scene.visible_shapes([behind, front], 64)
    assert seen is not None
    assert seen[0].box == pytest.approx((15.1, 20.2, 45.1, 40.2))  # it reaches out on the other side
    cut = scene.visible_shapes([behind, scene.Shape(rectangle, 41.0, 30.0, 6.0, 12.0, 0.0)], 64)
    assert cut is not None
    assert cut[0].box == pytest.approx((15.1, 20.2, 35.0, 40.2))
    assert not (cut[0].mask(64) & cut[1].mask(64)).any()
    assert scene.visible_shapes([behind, scene.Shape(rectangle, 30.0, 30.0, 14.0, 9.5, 0.0)], 64) is None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"split": "test"}, "split"),
        ({"shares": (1, 2)}, "shares"),
        ({"shares": (0, 0, 0)}, "shares"),
        ({"size_bins": (48, 16)}, "size_bins"),
        ({"train": 0}, "train"),
        ({"seed": -1}, "seed"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path, argument, message):
    with pytest.raises(ValueError, match=message):
        ShapesDataset(tmp_path / "shapes", **{"split": "train", **argument})
    assert list(tmp_path.iterdir()) == []
