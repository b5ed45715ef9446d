import json

import numpy as np
import pytest

from detector.data.tiny_shapes import GAP, TinyShapesDataset


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny") / "shapes_tiny"
    return TinyShapesDataset(root, "train", train=4, val=2), TinyShapesDataset(root, "val", train=4, val=2)


def test_sizes_numbers_and_one_class(drawn):
    train, val = drawn
    assert (len(train), len(val), train.classes, train.has_masks) == (4, 2, ["object"], False)
    truth = train.ground_truth()
    counts = np.bincount([a["image_id"] for a in truth["annotations"]])[1:]
    assert counts.min() >= 50
    assert counts.max() <= 300
    assert counts.max() - counts.min() > 50
    boxes = np.array([a["bbox"] for a in truth["annotations"]])
    sizes = np.sqrt(boxes[:, 2:].prod(1))
    assert sizes.min() >= 1.99
    assert sizes.max() <= 16.01
    assert 0.3 < (sizes < 8).mean() < 0.5
    np.testing.assert_allclose([a["area"] for a in truth["annotations"]], sizes**2)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 512).all()


def test_no_two_objects_touch(drawn):
    target = drawn[0][0].target
    boxes = target.boxes.numpy()
    near = (
        (boxes[:, None, :2] < boxes[None, :, 2:] + 0.99 * GAP) & (boxes[None, :, :2] < boxes[:, None, 2:] + 0.99 * GAP)
    ).all(-1)
    assert near.sum() == len(boxes)  # each with itself


def test_boxes_lie_around_what_is_painted(drawn):
    """Inside of a tiny object's box the mean colour is another than around it."""
    sample = drawn[1][0]
    image, differences = sample.image.numpy().astype(float), []
    for x1, y1, x2, y2 in sample.target.boxes.numpy():
        if min(x2 - x1, y2 - y1) < 6 or min(x1, y1) < 12 or max(x2, y2) > 500:
            continue
        inner = image[:, int(y1) + 2 : int(y2) - 1, int(x1) + 2 : int(x2) - 1].mean((1, 2))
        outer = np.median(image[:, int(y1) - 8 : int(y2) + 8, int(x1) - 8 : int(x2) + 8], (1, 2))
        differences.append(np.abs(inner - outer).max())
    assert len(differences) > 20
    assert np.median(differences) > 25


def test_the_same_parameters_draw_the_same_images(tmp_path):
    small = {"train": 1, "val": 1, "image_size": 256, "objects": (20, 40)}
    first, second = (TinyShapesDataset(tmp_path / name / "tiny", "train", **small) for name in ("a", "b"))
    assert np.array_equal(first[0].image, second[0].image)
    assert json.dumps(first.ground_truth()) == json.dumps(second.ground_truth())
    other = TinyShapesDataset(tmp_path / "a" / "tiny", "train", **small, seed=1)
    assert other.images != first.images


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"split": "test"}, "split must be 'train' or 'val'"),
        ({"sizes": (8, 2, 16)}, r"sizes must be three rising ones.*\[8, 2, 16\]"),
        ({"sizes": (2, 8, 100)}, "an eighth of image_size 512"),
        ({"shares": (0, 0)}, r"shares must be two numbers \(very tiny, tiny\)"),
        ({"objects": (10, 5)}, "objects must be two numbers"),
        ({"objects": (10, 5000)}, "of which 512x512 pixels have room"),
        ({"val": 0}, "at least 1"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path, argument, message):
    with pytest.raises(ValueError, match=message):
        TinyShapesDataset(tmp_path / "tiny", **{"split": "train", **argument})
