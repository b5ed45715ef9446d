"""The regions, errors and gradients that are drawn and measured are those of the operators."""

import csv
import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import ops
from detector.alignment import costs, errors, example, gradients
from detector.alignment.regions import (
    EXAMPLE_BOX,
    EXAMPLE_SIZE,
    Reading,
    Region,
    Sampled,
    Snapped,
    format_offset,
    pooled_regions,
)
from detector.training.folder import short_names

READINGS: dict[str, Reading] = {"floor": Snapped("floor"), "round": Snapped("round"), "align": Sampled()}


def random_boxes(count: int, size: tuple[int, int], seed: int = 0) -> list[list[float]]:
    """Draw boxes inside an image of (height, width), some with edges on whole pixels."""
    rng = np.random.default_rng(seed)
    boxes = []
    for i in range(count):
        x, y = (np.sort(rng.uniform(0, side, 2)) for side in size[::-1])
        box = [x[0], y[0], max(x[1], x[0] + 1), max(y[1], y[0] + 1)]
        box = [math.floor(v) for v in box] if i % 3 == 0 else box
        boxes.append([min(v, size[(k + 1) % 2]) for k, v in enumerate(box)])
    return [box for box in boxes if box[0] < box[2] and box[1] < box[3]]


def reads(operator, box: list[float], cells: tuple[int, int], stride: float, bins: int) -> torch.Tensor:
    """Compute the weights of all cells in each bin, [bins, bins, H, W], by pooling maps that are 1 in a single cell."""
    height, width = cells
    maps = torch.eye(height * width, dtype=torch.float64).reshape(1, -1, height, width)
    rois = torch.tensor([[0, *box]], dtype=torch.float64)
    return operator(maps, rois, bins, 1 / stride)[0].permute(1, 2, 0).reshape(bins, bins, height, width)


def test_the_example_of_the_textbooks() -> None:
    found = pooled_regions(EXAMPLE_BOX, EXAMPLE_SIZE, 32, 7, READINGS)
    assert found["floor"].edges == (0, 0, 640, 640)
    assert found["floor"].offsets == (0, 0, -25, -25)
    assert found["round"].edges == (0, 0, 704, 704)
    assert found["round"].offsets == (0, 0, 39, 39)
    assert found["align"].edges == pytest.approx((0, 0, 665, 665), abs=1e-9)
    assert [format_offset(found[name].worst) for name in READINGS] == ["25 px short", "39 px too far", "0 px off"]
    assert found["align"].x.cells == pytest.approx(20.78125)
    widths = [high - low for low, high in found["align"].x.bins]
    assert widths == pytest.approx([95] * 7)  # 2.97 cells
    assert found["floor"].x.cells / 7 == pytest.approx(2.857, abs=1e-3)


@pytest.mark.parametrize("quantization", ["round", "floor"])
@pytest.mark.parametrize("stride", [4, 16, 32])
def test_snapped_bins_are_the_cells_that_roi_pool_reads(quantization: str, stride: int) -> None:
    size, bins = (70, 100), 3
    cells = tuple(math.ceil(side / stride) for side in size)
    operator = partial(ops.roi_pool, quantization=quantization)
    for box in random_boxes(40, size, seed=stride):
        region = pooled_regions(box, size, stride, bins, {"": Snapped(quantization)})[""]
        touched = reads(operator, box, cells, stride, bins) > 0
        for i, (y1, y2) in enumerate(region.y.bins):
            for j, (x1, x2) in enumerate(region.x.bins):
                claimed = torch.zeros(cells, dtype=torch.bool)
                claimed[round(y1 / stride) : round(y2 / stride), round(x1 / stride) : round(x2 / stride)] = True
                assert torch.equal(touched[i, j], claimed), (box, i, j)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [1, 2, 0])
def test_sampled_bins_are_where_roi_align_reads(sampling_ratio: int, aligned: bool) -> None:
    stride, bins, size = 8, 3, (80, 96)
    cells = (10, 12)
    operator = partial(ops.roi_align, sampling_ratio=sampling_ratio, aligned=aligned)
    y, x = ((torch.arange(count) + 0.5) * stride for count in cells)
    for box in random_boxes(20, (64, 80), seed=3):
        box = [edge + stride for edge in box]  # away from the border, whose cells are also read for points beyond it
        if min(box[2] - box[0], box[3] - box[1]) < stride or max(box[2] / 96, box[3] / 80) > 0.85:
            continue
        region = pooled_regions(box, size, stride, bins, {"": Sampled(sampling_ratio, aligned)})[""]
        weights = reads(operator, box, cells, stride, bins)
        per_x, per_y = (len(axis.points) // bins for axis in (region.x, region.y))
        for i, j in ((0, 0), (1, 2), (2, 1)):
            px, py = region.x.points[j * per_x : (j + 1) * per_x], region.y.points[i * per_y : (i + 1) * per_y]
            near_x = (torch.tensor(px)[:, None] - x).abs() < stride - 1e-6
            near_y = (torch.tensor(py)[:, None] - y).abs() < stride - 1e-6
            assert torch.equal(weights[i, j] > 1e-9, near_y.any(0)[:, None] & near_x.any(0))
            # the centre of mass of the weights is the bin's centre
            assert float((weights[i, j].sum(0) * x).sum()) == pytest.approx(sum(region.x.bins[j]) / 2, abs=1e-4)
            assert float((weights[i, j].sum(1) * y).sum()) == pytest.approx(sum(region.y.bins[i]) / 2, abs=1e-4)


def test_the_error_of_roi_align_is_0_and_half_a_cell_without_the_shift() -> None:
    for stride in (4, 7, 32):
        for box in random_boxes(30, (200, 300), seed=stride):
            if min(box[2] - box[0], box[3] - box[1]) < stride:
                continue  # without the shift, RoIs are made at least one cell wide
            found = pooled_regions(box, (200, 300), stride, 7, {"yes": Sampled(), "no": Sampled(aligned=False)})
            assert found["yes"].error < 1e-9
            assert found["no"].error == pytest.approx(stride / 2)


@pytest.mark.parametrize(
    ("box", "stride", "bins", "message"),
    [
        ([0, 0, 900, 10], 32, 7, "reaches out of the image"),
        ([-1, 0, 9, 10], 32, 7, "reaches out of the image"),
        ([50, 0, 10, 10], 32, 7, "no area"),
        ([10, 0, 10, 10], 32, 7, "no area"),
        ([0, 0, float("nan"), 10], 32, 7, "four finite numbers"),
        ([0, 0, float("inf"), 10], 32, 7, "four finite numbers"),
        ([0, 0, 10], 32, 7, "four finite numbers"),
        ([0, 0, "ten", 10], 32, 7, "four finite numbers"),
        ("0,0,1,1", 32, 7, "four finite numbers"),
        ([0, 0, 10, 10], 0, 7, "stride must be a positive"),
        ([0, 0, 10, 10], float("nan"), 7, "stride must be a positive"),
        ([0, 0, 10, 10], "16", 7, "stride must be a positive"),
        ([0, 0, 10, 10], 32, 0, "at least 1"),
        ([0, 0, 10, 10], 32, 1.5, "whole number"),
    ],
)
def test_bad_rois(box: list[float], stride: float, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pooled_regions(box, EXAMPLE_SIZE, stride, bins, READINGS)


def test_bad_operators() -> None:
    with pytest.raises(ValueError, match="quantization"):
        Snapped("ceil")
    with pytest.raises(ValueError, match="sampling_ratio"):
        Sampled(-1)


def test_gradients() -> None:
    map, box = gradients.random_map(10, 1).double(), [1.1, 0.9, 8.9, 8.9]
    pooled = gradients.output_gradient(ops.roi_pool, map, box, 2, [0, 1])
    assert int((pooled != 0).sum()) == 1
    inside = map[1:6, 5:10]
    assert float(map[pooled == 1]) == float(inside.max())
    region = pooled_regions(box, (10, 10), 1, 2, {"": Sampled()})[""]
    average = gradients.output_gradient(partial(ops.roi_align, sampling_ratio=2, aligned=True), map, box, 2, [0, 1])
    expected = torch.zeros(10, 10, dtype=torch.float64)
    for x in region.x.points[2:]:
        for y in region.y.points[:2]:
            for row in range(10):
                for column in range(10):
                    dx, dy = abs(column + 0.5 - x), abs(row + 0.5 - y)
                    expected[row, column] += max(1 - dx, 0) * max(1 - dy, 0) / 4
    assert torch.allclose(average, expected, atol=1e-12)
    one = gradients.output_gradient(
        partial(ops.roi_align, sampling_ratio=2, aligned=True, mode="max"), map, box, 2, [0, 1]
    )
    assert int((one != 0).sum()) == 4
    assert float(one.sum()) == pytest.approx(1)
    with pytest.raises(ValueError, match="bin must be"):
        gradients.output_gradient(ops.roi_pool, map, box, 2, [0, 2])


def test_the_drawn_house_fills_its_box() -> None:
    image = example.draw_house().float()
    assert tuple(image.shape[1:]) == EXAMPLE_SIZE
    right = int(EXAMPLE_BOX[2])
    wall = image[:, 400, right - 1]
    assert (wall - image[:, 400, right]).abs().max() > 20
    assert torch.equal(wall, image[:, 400, right - 25])  # the part that textbook RoIPool misses belongs to the house


def truth(*boxes: list[float], **flags: list[int]) -> dict:
    """Write boxes x1, y1, x2, y2 in one image of 100 x 80 in COCO's format."""
    annotations = [
        {
            "id": i,
            "image_id": 1,
            "category_id": 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            **{name: values[i] for name, values in flags.items()},
        }
        for i, box in enumerate(boxes)
    ]
    return {"images": [{"id": 1, "height": 80, "width": 100}], "annotations": annotations}


def test_crowds_and_ignored_objects_are_left_out() -> None:
    boxes = [[0, 0, 10, 10], [5, 5, 20, 30], [90, 70, 110, 90], [50, 50, 50, 60], [1, 1, 5, 5]]
    found = errors.ground_truth_boxes(truth(*boxes, iscrowd=[0, 1, 0, 0, 0], ignore=[0, 0, 0, 0, 1]))
    assert found.boxes.tolist() == [[0, 0, 10, 10], [90, 70, 100, 80]]
    assert found.sides.tolist() == [10, 10]
    assert found.sizes.tolist() == [[80, 100]] * 2
    with pytest.raises(ValueError, match="no objects"):
        errors.ground_truth_boxes(truth([5, 5, 5, 5]))


def test_errors_worked_by_hand() -> None:
    # On cells of 16 px: x from 10 to 42 is 0.625 to 2.625; y from 20 to 60 is 1.25 to 3.75.
    objects = errors.ground_truth_boxes(truth([10, 20, 42, 60]))
    strides = np.array([16.0])
    measured = {
        name: errors.quantisation_errors(reading, objects, strides, 7, lambda size: size)[0]
        for name, reading in READINGS.items()
    }
    # rounded: cells 1 to 3 (16 to 64) and 1 to 4 (16 to 80); floored: 0 to 1 (0 to 32) and 1 to 2 (16 to 48)
    assert measured["round"] == pytest.approx((6 + 22 + 4 + 20) / 4)
    assert measured["floor"] == pytest.approx((10 + 10 + 4 + 12) / 4)
    assert measured["align"] < 1e-12
    doubled = errors.quantisation_errors(READINGS["round"], objects, 2 * strides, 7, errors.make_resize([160], None))
    assert doubled[0] == pytest.approx(measured["round"])  # twice the image on twice the stride


def test_errors_are_how_far_the_operators_cells_reach() -> None:
    size, stride = (80, 100), 8
    boxes = random_boxes(30, size, seed=5)
    objects = errors.ground_truth_boxes(truth(*boxes))
    values = errors.quantisation_errors(READINGS["round"], objects, np.full(len(boxes), 8.0), 4, lambda s: s)
    for box, value in zip(boxes, values, strict=True):
        touched = (reads(ops.roi_pool, box, (10, 13), stride, 4) > 0).any(0).any(0)
        rows, columns = torch.nonzero(touched.any(1)), torch.nonzero(touched.any(0))
        if not len(rows):
            continue
        edges = [columns.min() * 8, rows.min() * 8, (columns.max() + 1) * 8, (rows.max() + 1) * 8]
        assert value == pytest.approx(sum(abs(float(e) - b) for e, b in zip(edges, box, strict=True)) / 4)


def test_levels_follow_the_resized_image() -> None:
    objects = errors.ground_truth_boxes(truth([0, 0, 50, 50], [0, 0, 10, 10]))
    assign = partial(ops.assign_levels, canonical_size=100)
    assert errors.assign_to_strides(objects, [4, 8, 16, 32], assign, lambda size: size).tolist() == [1, 0]
    assert errors.assign_to_strides(objects, [4, 8, 16, 32], assign, errors.make_resize([160], None)).tolist() == [2, 0]
    assert errors.level_names([4, 32]) == ["P2", "P5"]
    with pytest.raises(ValueError, match="one size"):
        errors.make_resize([480, 800], 1333)


def test_the_table(tmp_path: Path) -> None:
    objects = errors.ground_truth_boxes(truth(*random_boxes(60, (80, 100), seed=9)))
    level = errors.assign_to_strides(objects, [4, 8], partial(ops.assign_levels, canonical_size=100), lambda size: size)
    found = list(errors.measure_errors(READINGS, objects, [4, 8], level, 7, lambda size: size))
    assert [(e.operator, e.pooled_from) for e in found[:3]] == [
        ("floor", "stride 4"),
        ("floor", "stride 8"),
        ("floor", "FPN"),
    ]
    assert np.array_equal(found[2].values, np.where(level == 0, found[0].values, found[1].values))
    rows = errors.tabulate_errors(found, objects, errors.size_bins([16, 32]), level, ["P2", "P3"])
    own = {(row.pooled_from, row.size): row for row in rows if row.operator == "round"}
    assert sum(own["FPN", size].objects for size in ("[0,16)", "[16,32)", "[32,inf)")) == len(objects)
    assert own["P2", "all"].objects + own["P3", "all"].objects == len(objects)
    values = next(e.values for e in found if (e.operator, e.pooled_from) == ("round", "stride 8"))
    small = objects.areas < 16**2
    assert own["stride 8", "[0,16)"].q90_px == pytest.approx(np.quantile(values[small], 0.9))
    assert own["stride 8", "[0,16)"].median_share == pytest.approx(np.median((values / objects.sides)[small]))
    errors.write_csv(rows, tmp_path / "new" / "errors.csv")
    with (tmp_path / "new" / "errors.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    assert read[0]["size"] == "all"
    with pytest.raises(ValueError, match="increasing"):
        errors.size_bins([16, 8])


def planted(seed: int = 0) -> tuple[np.ndarray, list[int], dict[str, np.ndarray]]:
    """Draw errors of 600 objects in 60 images, and IoUs of two runs: only those of "pool" fall with the error."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0, 0.4, 600)
    noise = rng.normal(0, 0.02, 600)
    hurt = 0.95 - share + noise
    return share, [i // 10 for i in range(600)], {"pool": np.where(hurt < 0.5, np.nan, hurt), "align": 0.9 + noise}


def test_costs_find_a_planted_loss() -> None:
    share, images, ious = planted()
    parts = costs.measure_by_error(share, images, ious)
    assert [part.objects for part in parts] == [60] * 10
    assert all(a.high <= b.low for a, b in pairwise(parts))
    assert parts[0].recall["pool"].value == 1
    assert parts[-1].recall["pool"].value == 0
    for part in parts:
        chosen = (share >= part.low) & (share <= part.high)
        assert part.mean_iou["align"].value == pytest.approx(ious["align"][chosen].mean())
        assert part.recall["align"].value == 1
        estimate = part.mean_iou["pool"]
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
    middle = parts[4].mean_iou["pool"]
    expected = 0.95 - share[(share >= parts[4].low) & (share <= parts[4].high)].mean()
    assert middle.value == pytest.approx(expected, abs=0.02)


def test_objects_of_one_error_stay_together() -> None:
    share = np.array([0.1] * 8 + [0.2] * 4)
    parts = costs.measure_by_error(share, list(range(12)), {"a": np.full(12, 0.9)}, parts=4)
    assert [(part.low, part.high, part.objects) for part in parts] == [(0.1, 0.1, 8), (0.2, 0.2, 4)]


def test_costs_without_matches_and_bad_input() -> None:
    share, images, ious = planted()
    nothing = costs.measure_by_error(share, images, {"none": np.full(600, np.nan)}, parts=2)
    assert math.isnan(nothing[0].mean_iou["none"].value)
    assert nothing[0].mean_iou["none"].low is None
    assert nothing[0].recall["none"].value == 0
    with pytest.raises(ValueError, match="for each of 600"):
        costs.measure_by_error(share, images[:-1], ious)
    with pytest.raises(ValueError, match="cannot be sorted into 700"):
        costs.measure_by_error(share, images, ious, parts=700)


def test_runs_are_named_by_the_parts_of_their_paths_that_differ() -> None:
    paths = [Path(f"sweep/runs/{arm}/shapes/{seed}") for arm, seed in (("pool", 0), ("align", 1))]
    assert short_names(paths) == ["pool/0", "align/1"]
    assert short_names([Path("a"), Path("b/c")]) == ["a", "b/c"]
    assert short_names([Path("a/b")] * 2) == ["a/b", "a/b"]


def test_the_worst_offset_keeps_its_sign() -> None:
    region: Region = pooled_regions([10, 20, 42, 60], (80, 100), 16, 7, {"": Snapped()})[""]
    assert region.offsets == (-6, 4, 22, 20)
    assert region.worst == 22
