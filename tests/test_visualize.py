import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from detector import visualize
from detector.types import Masks, Objects, Target
from detector.visualize import HIDDEN, OPACITY, Rectangle, as_rgb, colour, contact_sheet, draw

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


def test_masks_blend_every_value_of_a_channel() -> None:
    columns = torch.arange(400, dtype=torch.uint8)
    image = torch.stack([columns, columns + 85, columns + 170])[:, None].expand(3, 400, 400)
    pixels = np.asarray(draw(image, true([[0.0, 0, 400, 400]], [1], (400, 400)), [" ", " "]))
    blended = ((1 - OPACITY) * image.permute(1, 2, 0).numpy() + OPACITY * np.array(colour(1))).astype(np.uint8)
    assert np.array_equal(pixels[100:390, 10:390], blended[100:390, 10:390])


def watch(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Record at each call of a function of `visualize` how many of its earlier results are held."""
    function: Callable[..., Any] = getattr(visualize, name)
    results: list[weakref.ref[Any]] = []
    held = []

    def watched(*args: Any) -> Any:
        held.append(sum(result() is not None for result in results))
        result = function(*args)
        results.append(weakref.ref(result))
        return result

    monkeypatch.setattr(visualize, name, watched)
    return held


def test_only_what_is_drawn_is_pasted_and_one_mask_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pasted, magnified = watch(monkeypatch, "_pasted"), watch(monkeypatch, "_magnified")
    image = torch.zeros(3, 400, 400, dtype=torch.uint8)
    boxes = [[10.0 * i, 5.0 * i, 10.0 * i + 100, 5.0 * i + 90] for i in range(20)]
    draw(image, found(boxes, [i / 20 for i in range(20)], [0] * 20, masks=True), CLASSES, threshold=0.7)
    assert len(pasted) == 6
    draw(image, true(boxes, [0] * 20, (400, 400)), CLASSES)
    assert len(magnified) == 20
    assert max(pasted + magnified) <= 1


def place_by_loops(
    box: Rectangle,
    text: tuple[int, int],
    size: tuple[int, int],
    boxes: Sequence[Rectangle],
    labels: Sequence[Rectangle],
) -> Rectangle | None:
    """`_place` in plain Python."""

    def share(a: Rectangle, b: Rectangle) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        return max(width, 0) * max(height, 0) / ((b[2] - b[0]) * (b[3] - b[1]))

    (width, height), (x1, y1, x2, y2) = text, box
    for x, y in ((x1, y1 - height), (x1, y2), (x2, y1), (x1 - width, y1), (x2 - width, y1 - height), (x1, y1)):
        x = min(max(x, 0), size[1] - width)
        place = (x, y, x + width, y + height)
        inside = x >= 0 and y >= 0 and y + height <= size[0]
        free = not any(share(place, other) for other in labels)
        if inside and free and all(share(place, other) <= HIDDEN for other in boxes):
            return place
    return None


@pytest.mark.parametrize("size", [(500, 700), (60, 40), (15, 300)])
def test_labels_are_placed_as_by_loops_over_all_boxes_and_labels(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (size[1] - 1, size[0] - 1), (150, 2))
    far = np.minimum(corners + rng.integers(1, 60, (150, 2)), (size[1], size[0]))
    boxes = np.concatenate((corners, far), 1)
    plain: list[Rectangle] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist()]
    labels: list[Rectangle] = []
    for box in plain:
        text = (int(rng.integers(4, 60)), int(rng.integers(8, 16)))
        expected = place_by_loops(box, text, size, plain, labels)
        assert visualize._place(box, text, size, boxes, np.array(labels, np.int64).reshape(-1, 4)) == expected
        labels += [] if expected is None else [expected]
    assert 0 < len(labels) < 150


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
    "image",
    [torch.zeros(0, 9, 9, dtype=torch.uint8), torch.zeros(3, 9, 9).long(), torch.zeros(3, 9, dtype=torch.uint8)],
)
def test_what_is_no_image(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        draw(image, found([], [], []), CLASSES)


def test_images_of_any_channels_are_shown_as_rgb() -> None:
    bands = torch.tensor([0.4, 100.6, 300.0, -7.0, 3.0])[:, None, None].expand(-1, 2, 2)
    assert as_rgb(bands)[:, 0, 0].tolist() == [0, 101, 255]
    assert as_rgb(bands[1:3])[:, 0, 0].tolist() == [101, 101, 101]
    assert as_rgb(bands[3:4].to(torch.float16)).unique().tolist() == [0]
    grey = torch.arange(4, dtype=torch.uint8).view(1, 2, 2)
    assert torch.equal(as_rgb(grey), grey.expand(3, -1, -1))
    assert draw(bands, found([], [], []), CLASSES).getpixel((0, 0)) == (0, 101, 255)


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


def test_a_contact_sheet_holds_one_picture_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = watch(monkeypatch, "draw")
    images: list[weakref.ref[torch.Tensor]] = []

    def rows() -> Iterator[tuple[torch.Tensor, Target, Objects]]:
        for _ in range(5):
            assert sum(image() is not None for image in images) <= 1
            image = torch.full((3, 192, 150), 77, dtype=torch.uint8)
            images.append(weakref.ref(image))
            yield image, true([[10.0, 20, 60, 90]], [0], (192, 150)), found([[11.0, 19, 62, 88]], [0.8], [0])

    contact_sheet(rows(), CLASSES, tmp_path / "sheet.png", limit=3)
    assert len(images) == 3
    assert held == [0] * 6
