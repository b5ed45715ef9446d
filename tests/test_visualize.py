import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from detector.types import Masks, Objects, Target
from detector.visualize import colour, contact_sheet, draw

CLASSES = ["cat", "dog"]


def found(boxes: list[list[float]], scores: list[float], labels: list[int], masks: bool = False) -> Objects:
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels, dtype=torch.int64),
        torch.ones(len(labels), 28, 28) if masks else None,
    )


def true(boxes: list[list[float]], labels: list[int], size: tuple[int, int]) -> Target:
    masks = torch.zeros(len(labels), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[round(y1) : round(y2), round(x1) : round(x2)] = True
    flags = torch.zeros(len(labels), dtype=torch.bool)
    return Target(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        flags,
        flags,
        Masks.from_dense(masks, size),
    )


def is_colour(picture: Image.Image, label: int) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (np.asarray(picture) == np.array(colour(label))).all(-1)
    return same


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_are_not() -> None:
    image = torch.randint(0, 256, (3, 100, 192), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = draw(image, found([], [], []), CLASSES)
    assert picture.size == (768, 400)
    assert np.array_equal(np.asarray(picture)[::4, ::4], image.permute(1, 2, 0).numpy())
    assert draw(torch.zeros(3, 400, 600, dtype=torch.uint8), found([], [], []), CLASSES).size == (600, 400)
    assert draw(torch.zeros(3, 1, 5000, dtype=torch.uint8), found([], [], []), CLASSES).size == (5000, 1)
    assert max(draw(torch.zeros(3, 2, 900, dtype=torch.uint8), found([], [], []), CLASSES).size) <= 2048


def test_boxes_are_drawn_on_their_own_pixels() -> None:
    image = torch.zeros(3, 400, 400, dtype=torch.uint8)
    drawn = is_colour(draw(image, found([[100.2, 149.8, 300.4, 250.1]], [0.9], [0]), [" "]), 0)
    assert drawn[150:250, 100].all()
    assert drawn[150:250, 299].all()
    assert drawn[150, 100:300].all()
    assert drawn[249, 100:300].all()
    assert not drawn[155:245, 105:295].any()
    assert not drawn[:, 300:].any()
    assert not drawn[250:].any()


def test_threshold_and_broken_boxes() -> None:
    image = torch.zeros(3, 400, 400, dtype=torch.uint8)
    boxes: list[list[float]] = [
        [10.0, 50.0, 60.0, 90.0],
        [100.0, 100, 300, 300],
        [math.nan, 0, 5, 5],
        [-1e9, -1e9, 1e9, 1e9],
    ]
    picture = draw(image, found(boxes, [0.4, 0.3, 0.9, 0.35], [0, 1, 0, 1], masks=True), CLASSES, threshold=0.4)
    assert is_colour(picture, 0).any()
    assert not is_colour(picture, 1).any()
    everything = draw(image, found(boxes, [0.4, 0.3, 0.9, 0.35], [0, 1, 0, 1], masks=True), CLASSES, threshold=0.0)
    assert (np.asarray(everything)[310:] > 0).any(-1).all()  # the last box's mask covers the image


@pytest.mark.parametrize("box", [[500.0, 500, 600, 600], [50, 50, 50, 50], [-30, -30, -10, -10], [80, 80, 20, 20]])
def test_boxes_outside_or_without_area_do_no_harm(box: list[float]) -> None:
    image = torch.zeros(3, 192, 192, dtype=torch.uint8)
    assert draw(image, found([box], [0.9], [1], masks=True), CLASSES).size == (384, 384)


def test_masks_tint_and_let_the_image_through() -> None:
    image = torch.full((3, 400, 400), 100, dtype=torch.uint8)
    image[:, 200:] = 200
    boxes = [[100.0, 100, 300, 300]]
    for objects in (found(boxes, [0.9], [1], masks=True), true(boxes, [1], (400, 400))):
        pixels = np.asarray(draw(image, objects, CLASSES)).astype(int)
        upper, lower = pixels[150, 200], pixels[250, 200]
        assert (np.abs(upper - 100) > 0).any()
        assert (np.abs(lower - upper - 55) <= 1).all()  # 55 % of the difference of 100 shows through
        assert (pixels[310:390, 310:390] == 200).all()


def test_labels_never_hide_small_objects() -> None:
    generator = torch.Generator().manual_seed(5)
    image = torch.zeros(3, 192, 192, dtype=torch.uint8)
    corners = torch.rand(40, 2, generator=generator) * 180
    boxes = torch.cat((corners, corners + 6), 1)
    objects = found(boxes.tolist(), [0.9] * 40, [1] * 40)
    named = is_colour(draw(image, objects, ["", "a long class name"]), 1)
    assert named.sum() > is_colour(draw(image, objects, ["", ""]), 1).sum()  # there are labels
    image[0] = 255
    pixels = np.asarray(draw(image, objects, ["", "a long class name"]))
    for x1, y1, x2, y2 in (boxes * 2).round().int().tolist():
        assert (pixels[y1:y2, x1:x2] == (255, 0, 0)).all(-1).mean() > 0.1  # something of the object is to be seen


def test_truth_says_what_is_special() -> None:
    image = torch.zeros(3, 400, 400, dtype=torch.uint8)
    plain = true([[100.0, 100, 300, 300]], [0], (400, 400))
    special = true([[100.0, 100, 300, 300]], [0], (400, 400))
    special.difficult = torch.tensor([True])
    assert is_colour(draw(image, special, CLASSES), 0).sum() > is_colour(draw(image, plain, CLASSES), 0).sum()


def test_colours_are_stable_and_distinct() -> None:
    colours = [colour(label) for label in range(90)]
    assert len(set(colours)) == 90
    assert all(0 <= channel <= 255 for c in colours for channel in c)


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 9, 9, dtype=torch.uint8), torch.zeros(3, 9, 9), torch.zeros(3, 9, dtype=torch.uint8)]
)
def test_what_is_no_image(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        draw(image, found([], [], []), CLASSES)


def test_contact_sheet(tmp_path: Path) -> None:
    image = torch.full((3, 192, 150), 77, dtype=torch.uint8)
    row = (image, true([[10.0, 20, 60, 90]], [0], (192, 150)), found([[11.0, 19, 62, 88]], [0.8], [0], masks=True))
    path = tmp_path / "pictures/sheet.png"
    contact_sheet([row] * 11, CLASSES, path, limit=3)
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    contact_sheet([row] * 3, CLASSES, path)
    assert path.read_bytes() == first
    with Image.open(path) as three:
        assert three.mode == "RGB"
        contact_sheet([row], CLASSES, tmp_path / "one.png")
        with Image.open(tmp_path / "one.png") as one:
            assert one.width * 2 == three.width
            assert one.height < three.height
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([], CLASSES, path)
