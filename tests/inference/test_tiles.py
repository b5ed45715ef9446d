"""Windows of large images: each object is found once, whole, and its mask with it."""

import tracemalloc
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from detector.inference.joining import Join
from detector.inference.tiles import Tiling, _cut, _neighbours, detect_tiles, join_windows
from detector.masks import paste
from detector.types import Objects

Box = Sequence[float]


def objects(
    boxes: Sequence[Box], scores: Sequence[float] | None = None, labels: Sequence[int] | None = None
) -> Objects:
    count = len(boxes)
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor([0.9] * count if scores is None else scores),
        torch.tensor([0] * count if labels is None else labels, dtype=torch.int64),
    )


def seen(boxes: Sequence[Box], windows: Sequence[Sequence[int]], least: float = 4) -> list[Objects]:
    """What an ideal detector finds in each window: the visible parts of boxes, with the more score the more is seen."""
    parts = []
    for x1, y1, x2, y2 in windows:
        found, scores, labels = [], [], []
        for label, (a, b, c, d) in enumerate(boxes):
            part = max(a, x1), max(b, y1), min(c, x2), min(d, y2)
            if part[2] - part[0] >= least and part[3] - part[1] >= least:
                found.append(part)
                area = (part[2] - part[0]) * (part[3] - part[1])
                scores.append(0.5 + 0.4 * area / ((c - a) * (d - b)))
                labels.append(label % 2)
        parts.append(objects(found, scores, labels))
    return parts


@pytest.mark.parametrize("size", [(100, 100), (101, 640), (1000, 257), (4321, 1234)])
@pytest.mark.parametrize(("side", "overlap"), [(100, 0.0), (100, 0.2), (128, 0.5), (64, 0.75)])
def test_windows_cover_the_image_and_overlap(size: tuple[int, int], side: int, overlap: float) -> None:
    windows = Tiling(side, overlap).windows(size)
    high, wide = min(side, size[0]), min(side, size[1])
    assert all((x2 - x1, y2 - y1) == (wide, high) for x1, y1, x2, y2 in windows)
    for axis, (length, extent) in enumerate(((size[1], wide), (size[0], high))):
        starts = sorted({window[axis] for window in windows})
        assert (starts[0], starts[-1] + extent) == (0, length)
        assert all(b - a <= side - overlap * side for a, b in pairwise(starts))
    across, down = (len({window[axis] for window in windows}) for axis in (0, 1))
    assert len(windows) == across * down


@pytest.mark.parametrize("join", ["iou", "ios"])
def test_objects_at_seams_are_found_once_and_whole(join: Join) -> None:
    """A grid of boxes of up to the overlap's size, so that many are cut by one seam or by two, and touch each other."""
    size, tiling = (700, 900), Tiling(256, 0.25, join)
    boxes = [
        (float(x), float(y), x + 20.0 + (x * 7 + y) % 40, y + 20.0 + (x + y * 3) % 40)
        for y in range(3, 640, 62)
        for x in range(2, 840, 61)
    ]
    windows = tiling.windows(size)
    parts = seen(boxes, windows)
    assert sum(map(len, parts)) > 1.5 * len(boxes)
    found = join_windows(windows, parts, size, tiling)
    assert sorted(map(tuple, found.boxes.tolist())) == sorted(boxes)
    assert found.scores.tolist() == pytest.approx([0.9] * len(boxes))
    for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True):
        assert label == boxes.index(tuple(box)) % 2


@pytest.mark.parametrize("join", ["iou", "ios"])
def test_the_parts_of_a_large_object_become_one(join: Join) -> None:
    """Objects that are in no window as a whole, along one axis and along both; a small one before them stays."""
    size, tiling = (600, 1200), Tiling(256, 0.25, join)
    large: list[Box] = [(30.0, 40.0, 1100.0, 120.0), (100.0, 150.0, 900.0, 590.0)]
    windows = tiling.windows(size)
    found = join_windows(windows, seen([large[0], large[1]], windows, least=40), size, tiling)
    assert sorted(found.boxes.tolist()) == [list(box) for box in large]
    small = (320.0, 60.0, 340.0, 80.0)
    found = join_windows(windows, seen([large[0], large[1], small], windows, least=10), size, tiling)
    assert list(small) in found.boxes.tolist()
    assert list(large[0]) in found.boxes.tolist()


def test_detections_of_one_window_are_not_joined() -> None:
    """Its NMS was that of the model; and those of other classes never are."""
    tiling = Tiling(100, 0.2)
    windows = tiling.windows((100, 180))
    near = [(10.0, 10.0, 50.0, 50.0), (17.0, 10.0, 57.0, 50.0)]
    parts = [objects(near), objects([(120.0, 20.0, 160.0, 60.0), (121.0, 20.0, 161.0, 60.0)], labels=[0, 1])]
    assert len(join_windows(windows, parts, (100, 180), tiling)) == 4


DOUBLE = [(1244.3, 7248.0, 1349.2, 7345.5), (1214.2, 7228.0, 1365.4, 7364.6)]
"""An object, and a wider box of it with an IoU of 0.497, which NMS at 0.5 leaves."""


@pytest.mark.parametrize("join", ["iou", "ios"])
@pytest.mark.parametrize("windows_of", [(0, 0), (0, 1)])
def test_a_box_around_a_better_one_of_its_size_is_no_further_object(join: Join, windows_of: tuple[int, int]) -> None:
    """Whether one window has found both, or each has found one."""
    size, tiling = (8000, 1500), Tiling(1024, 0.75, join)
    windows = tiling.windows(size)
    seeing = [i for i, (x1, y1, x2, y2) in enumerate(windows) if x1 < 1150 and y1 < 7150 and x2 > 1430 and y2 > 7430]
    assert len(seeing) > 1
    for scores in ((0.99, 0.61), (0.61, 0.99)):
        parts = [objects([]) for _ in windows]
        for box, score, at in zip(DOUBLE, scores, windows_of, strict=True):
            parts[seeing[at]] = Objects.join([parts[seeing[at]], objects([box], [score])])
        found = join_windows(windows, parts, size, tiling)
        assert found.scores.tolist() == pytest.approx([0.99])
        assert found.boxes[0].tolist() == pytest.approx(DOUBLE[scores.index(0.99)])


@pytest.mark.parametrize(
    ("other", "label"),
    [
        ((42.0, 10.0, 122.0, 90.0), 0),  # beside, IoU 0.43
        ((10.0, 45.0, 90.0, 125.0), 0),  # below, IoU 0.39
        ((16.0, 10.0, 64.0, 58.0), 0),  # within, a bit more than a third of the area
        ((10.0, 10.0, 66.0, 63.0), 1),  # within, nearly half of the area, of another class
    ],
)
def test_neighbours_stay(other: Box, label: int) -> None:
    """In one window, and seen by two, which box them a little differently."""
    size, tiling = (200, 400), Tiling(200, 0.75)
    windows = tiling.windows(size)
    pair = [(110.0, 10.0, 190.0, 90.0), tuple(v + (100, 0)[i % 2] for i, v in enumerate(other))]
    assert [sum(x1 <= 100 and x2 >= 240 for x1, _, x2, _ in windows)] >= [2]
    parts = []
    for number, (x1, _, x2, _) in enumerate(windows):
        sees = x1 <= 100 and x2 >= 240
        moved = [tuple(v + number % 2 for v in box) for box in pair]
        parts.append(objects(moved, [0.9, 0.8], [0, label]) if sees else objects([]))
    assert len(join_windows(windows, parts, size, tiling)) == 2


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.75])
def test_windows_that_overlap_are_compared_and_no_others(overlap: float) -> None:
    for size in ((60, 300), (300, 60), (250, 310), (64, 64)):
        windows = np.array(Tiling(64, overlap).windows(size), np.float64)
        low, high = (
            np.stack([f(windows[:, None, k], windows[None, :, k]) for k in axes])
            for f, axes in ((np.maximum, (0, 1)), (np.minimum, (2, 3)))
        )
        expected = np.argwhere(np.triu((low < high).all(0)))
        assert sorted(_neighbours(windows)) == sorted(map(tuple, expected.tolist()))


def test_cut_boxes_are_redundant_where_another_window_sees_them_whole() -> None:
    """Compared window by window and box by box."""
    size, tiling = (230, 310), Tiling(100, 0.3)
    windows = tiling.windows(size)
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(len(windows)), 60)
    regions = np.array(windows, np.float64)
    corner = regions[owner, :2] + rng.uniform(0, 95, (len(owner), 2))
    boxes = np.concatenate((corner, np.minimum(corner + rng.uniform(2, 90, corner.shape), regions[owner, 2:])), 1)

    def whole(box: Sequence[float], window: Sequence[int]) -> bool:
        margins = [max(3.0, 0.04 * (box[k + 2] - box[k])) for k in (0, 1)]
        low = all(window[k] == 0 or box[k] >= window[k] + margins[k] for k in (0, 1))
        ends = (size[1], size[0])
        return low and all(window[k + 2] == ends[k] or box[k + 2] <= window[k + 2] - margins[k] for k in (0, 1))

    cut, redundant = _cut(boxes, regions, owner, size)
    assert cut.tolist() == [not whole(box, windows[own]) for box, own in zip(boxes.tolist(), owner, strict=True)]
    expected = [c and any(whole(box, window) for window in windows) for c, box in zip(cut, boxes.tolist(), strict=True)]
    assert redundant.tolist() == expected
    assert 50 < redundant.sum() < cut.sum() - 50 < len(boxes) - 100


def test_many_small_windows_are_joined_in_little_memory() -> None:
    """40,000 windows: nothing is made of all pairs of them."""
    size, tiling = (6432, 6432), Tiling(64, 0.5)
    windows = tiling.windows(size)
    assert len(windows) == 40_000
    parts = seen([], windows)
    spots = [3, 20_000, 39_999]
    for i in spots:
        x, y = windows[i][:2]
        parts[i] = objects([(x + 22.0, y + 22.0, x + 30.0, y + 30.0)])
    tracemalloc.start()
    found = join_windows(windows, parts, size, tiling)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == len(spots)
    assert peak < 100e6


def test_the_best_of_several_views_is_kept_and_the_order_is_by_score() -> None:
    tiling = Tiling(100, 0.5)
    windows = tiling.windows((100, 150))
    parts = [objects([(55.0, 20, 80, 60), (5.0, 5, 20, 20)], [0.7, 0.3]), objects([(56.0, 20, 81, 60)], [0.8])]
    found = join_windows(windows, parts, (100, 150), tiling)
    assert found.boxes.tolist() == [[56.0, 20, 81, 60], [5.0, 5, 20, 20]]
    assert found.scores.tolist() == pytest.approx([0.8, 0.3])


def test_ios_joins_a_part_with_the_whole_and_iou_does_not() -> None:
    """A part whose box ends before the edge that cuts the object."""
    windows = Tiling(100, 0.5).windows((100, 150))
    parts = [objects([(60.0, 20, 85, 60)], [0.9]), objects([(60.0, 20, 125, 60)], [0.8])]
    for join, count in (("iou", 2), ("ios", 1)):
        assert len(join_windows(windows, parts, (100, 150), Tiling(100, 0.5, join))) == count  # type: ignore[arg-type]


def with_masks(found: Objects, grids: Tensor) -> Objects:
    found.masks = grids
    return found


def test_masks_tell_what_boxes_do_not() -> None:
    """Two crossing diagonals have nearly the same box, and few pixels in common."""
    windows = Tiling(100, 0.5).windows((100, 150))
    down = torch.eye(28)[None]
    box = [(60.0, 20.0, 90.0, 50.0)]
    for other, count in ((down.flip(1), 2), (down, 1)):
        parts = [with_masks(objects(box), down), with_masks(objects(box), other)]
        assert len(join_windows(windows, parts, (100, 150), Tiling(100, 0.5, "mask"))) == count
        assert len(join_windows(windows, parts, (100, 150), Tiling(100, 0.5, "iou"))) == 1
    with pytest.raises(ValueError, match="join=mask: the detector has no masks"):
        join_windows(windows, [objects(box), objects(box)], (100, 150), Tiling(100, 0.5, "mask"))


def test_the_mask_of_joined_parts_is_their_union() -> None:
    """A ramp's mask, whole in no window, from the grids of its three parts."""
    size, tiling = (100, 400), Tiling(160, 0.25)
    windows = tiling.windows(size)
    assert len(windows) == 3
    whole = (20.0, 10.0, 380.0, 90.0)
    parts = []
    for (part,) in (found.boxes.tolist() for found in seen([whole], windows)):
        x = part[0] + (torch.arange(28) + 0.5) / 28 * (part[2] - part[0])
        y = 10 + (torch.arange(28) + 0.5) / 28 * 80
        grid = (y[:, None] > 90 - 80 * (x - 20) / 360).float()
        parts.append(with_masks(objects([part]), grid[None]))
    found = join_windows(windows, parts, size, tiling)
    assert found.boxes.tolist() == [list(whole)]
    assert found.masks is not None
    mask = paste(found.masks, found.boxes, size).dense(0)
    x, y = torch.arange(400) + 0.5, torch.arange(100)[:, None] + 0.5
    expected = (y > 90 - 80 * (x - 20) / 360) & (x > 20) & (x < 380) & (y > 10) & (y < 90)
    assert (mask & expected).sum() / (mask | expected).sum() > 0.95


def test_windows_are_read_in_batches_and_detections_moved_to_the_image() -> None:
    image = torch.zeros(3, 120, 200, dtype=torch.uint8)
    places = [(10, 10), (150, 80), (85, 50)]  # the last is in two windows
    for x, y in places:
        image[:, y : y + 10, x : x + 12] = 255
    calls: list[int] = []

    def detect(windows: Sequence[Tensor]) -> list[Objects]:
        calls.append(len(windows))
        found = []
        for window in windows:
            assert window.shape[0] == 3
            rows, columns = window[0].nonzero(as_tuple=True)
            corners = {(x, y) for x, y in zip(columns.tolist(), rows.tolist(), strict=True)}
            starts = [(x, y) for x, y in corners if (x - 1, y) not in corners and (x, y - 1) not in corners]
            found.append(objects([(x, y, x + 12, y + 10) for x, y in starts if (x + 11, y + 9) in corners]))
        return found

    tiling = Tiling(110, 0.2)
    windows = tiling.windows((120, 200))
    found = detect_tiles(lambda at: image[:, at[1] : at[3], at[0] : at[2]], (120, 200), tiling, detect, batch=3)
    assert calls == [3, 3]
    assert len(windows) == 6
    assert sorted(found.boxes.tolist()) == sorted([x, y, x + 12, y + 10] for x, y in places)
    alone = detect_tiles(lambda at: image[:, at[1] : at[3], at[0] : at[2]], (120, 200), Tiling(200), detect)
    assert sorted(alone.boxes.tolist()) == sorted(found.boxes.tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((31,), "tiles must be the side of a window in whole pixels, at least 32, not 31"),
        ((64.5,), "tiles"),
        ((64, 0.8), r"overlap must be a share of a window's side from 0 to 0\.75, not 0\.8"),
        ((64, "a"), "overlap"),
        ((64, 0.2, "nms"), "join must be one of iou, ios, mask, not 'nms'"),
        ((64, 0.2, "iou", 0), "join_thresh must be above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(*arguments)  # type: ignore[arg-type]
