"""Anchors that are fitted to generated distributions of objects, and the recalls that they reach."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detector.data.suggest.anchors import AnchorSet, Boxes, best_ious, recalls, weighted_quantiles
from detector.data.suggest.fit import ENOUGH, Coverage, better, fit
from detector.data.suggest.rules import suggest
from detector.data.suggest.sizes import InputSize
from detector.models.anchors import Anchors
from tests.data.suggest_cases import FPN, PRESENT, by_key, numbers, spread


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_best_ious_are_those_of_all_anchors(offset: float) -> None:
    height, width = 96, 160
    generator = np.random.default_rng(3)
    corner = generator.random((200, 2)) * np.array([width - 1, height - 1])
    high = np.minimum(corner + 1 + generator.random((200, 2)) ** 3 * 150, np.array([width, height]))
    boxes = Boxes(np.concatenate((corner, high), 1), np.tile((height, width), (200, 1)), np.full(200, 1 / 200))
    anchors = AnchorSet((4, 16, 64), ((9, 14), (30, 50), (100, 220)), (0.4, 1.0, 3.0), offset)
    module = Anchors(anchors.sizes, anchors.ratios, anchors.strides, offset)
    cells = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in anchors.strides]
    every = torch.cat(module(cells, (height, width))).double()
    expected = box_iou(torch.from_numpy(boxes.corners), every).amax(1).numpy()
    np.testing.assert_allclose(best_ious(boxes, anchors), expected, atol=1e-5)  # the module's are float32
    assert anchors.per_cell == module.per_cell
    assert len(set(expected.round(3))) > 100


def test_recalls_and_quantiles_are_weighted() -> None:
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    assert recalls(np.array([0.49, 0.5, 0.69, 0.7]), weights) == pytest.approx((0.9, 0.4))
    assert weighted_quantiles(np.array([4.0, 3.0, 2.0, 1.0]), weights, (0.1, 0.4, 0.5, 1.0)) == [1.0, 1.0, 2.0, 4.0]


def test_a_sample_is_seeded_and_keeps_the_sum_of_weights() -> None:
    boxes = InputSize(480, 800).resize(numbers(*spread(10, 100)), 32)
    few = boxes.sample(50)
    assert len(few.corners) == len(few.image_sizes) == 50
    assert few.weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(few.corners, boxes.sample(50).corners)
    assert boxes.sample(400) is boxes


def test_boxes_are_those_of_the_resized_and_padded_images() -> None:
    one = replace(numbers(np.array([20.0]), np.array([10.0])), boxes=np.array([[100.0, 50.0, 120.0, 60.0]]))
    boxes = InputSize(240, 300).resize(one, 32)  # 640 x 480 is limited to 300 x 225
    np.testing.assert_allclose(boxes.corners, [[46.875, 23.4375, 56.25, 28.125]])
    np.testing.assert_array_equal(boxes.image_sizes, [[256, 320]])
    assert InputSize(None, None).pixels(one) == 640 * 480
    assert InputSize(240, None).pixels(one) == 320 * 240


def test_fitted_anchors_overlap_objects_that_the_present_ones_miss() -> None:
    boxes = InputSize(480, 800).resize(numbers(*spread(20, 60, ratio=4.0)), 32)
    fitted = fit(boxes, FPN)
    before, after = (recalls(best_ious(boxes, a), boxes.weights) for a in (FPN, fitted))
    assert before[0] < 0.8
    assert after[0] > 0.98
    assert after[1] > before[1] + 0.5
    assert 3 < max(fitted.ratios) < 5
    assert len(fitted.ratios) == 1  # all objects have one
    sizes = [size for level in fitted.sizes for size in level]
    assert sizes == sorted(sizes)
    assert len(fitted.sizes) == 5


def test_further_anchors_of_a_cell_must_pay() -> None:
    boxes = InputSize(480, 800).resize(numbers(*spread(20, 200)), 32)
    fitted = fit(boxes, FPN)
    coverage = Coverage(boxes, FPN.strides, FPN.offset)
    low, high = recalls(best_ious(boxes, fitted), boxes.weights)
    assert coverage.score(fitted) == pytest.approx((2 * low + high) / 3)
    assert coverage.score(fitted) - ENOUGH * fitted.per_cell >= coverage.score(FPN) - ENOUGH * FPN.per_cell
    assert fitted.ratios == (1.0,)  # squares need no others


def test_anchors_that_fit_stay() -> None:
    boxes = InputSize(480, 800).resize(numbers(*spread(20, 60)), 32)
    fitted = fit(boxes, FPN)
    assert fit(boxes, fitted) == fitted


def test_anchors_of_a_single_level_stay_on_it() -> None:
    boxes = InputSize(480, 800).resize(numbers(*spread(20, 200)), 32)
    c4 = AnchorSet((16,), ((32, 64, 128, 256, 512),), (0.5, 1.0, 2.0))
    fitted = fit(boxes, c4)
    assert len(fitted.sizes) == 1
    assert len(fitted.sizes[0]) in (5, 10)
    before, after = (recalls(best_ious(boxes, a), boxes.weights) for a in (c4, fitted))
    assert after[0] >= before[0]
    assert after[1] > before[1]


def test_reasons_state_the_recalls_before_and_after() -> None:
    data = numbers(*spread(20, 60, ratio=4.0))
    settings = by_key(suggest(data, PRESENT)[0])
    short = settings["dataset.val_augment.short_sizes"].value
    longest = settings["dataset.val_augment.max_size"].value
    assert isinstance(short, list)
    assert isinstance(longest, int)
    boxes = InputSize(int(short[0]), longest).resize(data, 32)
    before = [f"{share:.0%}" for share in recalls(best_ious(boxes, FPN), boxes.weights)]
    assert settings["dataset.anchor_sizes"].reason.endswith(f"with the present sizes and ratios {' and '.join(before)}")
    assert settings["backbone.anchors"].value == len(settings["model.proposer.anchors.ratios"].value) * len(
        settings["dataset.anchor_sizes"].value[0]
    )


def test_a_rare_class_counts_in_the_sample_as_in_the_score() -> None:
    """Uniformly drawn, none of its 50 objects would be among the 2000 that anchors are fitted to."""
    sides = np.random.default_rng(0).uniform(18, 24, (100_050, 2))
    tall = np.random.default_rng(1).uniform(60, 150, 50)
    sides[:50] = np.stack((tall / 2, tall * 2), 1)
    labels = np.r_[np.ones(50, np.int64), np.zeros(100_000, np.int64)]
    order = np.random.default_rng(2).permutation(len(sides))
    objects = numbers(sides[order, 0], sides[order, 1], per_image=100, labels=labels[order])
    boxes = InputSize(480, 800).resize(objects, 32)
    few = boxes.sample(2000)
    rare = few.weights == few.weights.max()
    assert rare.sum() == 50
    assert few.weights[rare].sum() == pytest.approx(0.5)
    assert len(few.weights) == 2000
    ious = best_ious(boxes, fit(few, FPN))
    assert (ious[boxes.weights == boxes.weights.max()] >= 0.5).mean() > 0.95
    assert recalls(ious, boxes.weights)[0] > 0.97


def test_large_classes_count_alike_in_the_sample() -> None:
    """Twice sampled, classes whose weights have become nearly equal would be drawn as one."""
    generator = np.random.default_rng(0)
    counts = [300, 310, 320, 330, 340, 20_000, 25_000, 31_000, 47_000, 90_000]
    labels = np.repeat(np.arange(10), counts)
    sides = 10 * 1.3 ** labels[:, None] * generator.uniform(0.9, 1.1, (len(labels), 2))
    order = generator.permutation(len(labels))
    objects = numbers(sides[order, 0], sides[order, 1], per_image=100, labels=labels[order])
    drawn = InputSize(480, 800).resize(objects, 32).sample(2000)
    assert np.unique(drawn.weights.round(9)).tolist() == [0.0005]
    settings = by_key(suggest(objects, PRESENT)[0])
    assert settings["dataset.anchor_sizes"].reason.startswith("recall at IoU 0.5 and 0.7: 100%")


def test_present_anchors_stay_where_more_boxes_show_others_to_be_worse() -> None:
    boxes = InputSize(480, 800).resize(numbers(*spread(12, 200)), 32)
    tiny = FPN.spread((4, 5, 6, 7, 8))
    assert better(boxes, FPN, tiny) is FPN
    assert better(boxes, tiny, FPN) is FPN


def test_a_large_set_is_measured_on_a_sample() -> None:
    settings = by_key(suggest(numbers(*spread(20, 60, count=30000), per_image=100), PRESENT)[0])
    assert "20000 drawn at random" in settings["dataset.anchor_sizes"].reason
