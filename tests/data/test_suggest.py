"""Settings that are suggested for generated distributions of objects."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detector.data.page.numbers import Numbers
from detector.data.suggest.anchors import AnchorSet, Boxes, best_ious, recalls, weighted_quantiles
from detector.data.suggest.fit import ENOUGH, Coverage, better, fit
from detector.data.suggest.rules import suggest
from detector.data.suggest.settings import Present, Suggestion
from detector.data.suggest.sizes import InputSize, choose_size, class_weights
from detector.models.anchors import Anchors

FPN = AnchorSet((4, 8, 16, 32, 64), ((16,), (32,), (64,), (128,), (256,)), (0.5, 1.0, 2.0))
PRESENT = Present(
    size=InputSize(480, 800),
    train_short_sizes=(480,),
    train_longest=800,
    anchors=FPN,
    canonical_size=134,
    canonical_level=4,
    strides=(4, 8, 16, 32, 64),
    roi_strides=(4, 8, 16, 32),
    divisibility=32,
    detections=100,
    rois=256,
    positive_fraction=0.25,
    train_topk=(1000, 500),
    test_topk=(1000, 500),
    size_bins=(32, 96),
    batch_size=4,
    val_batch_size=10,
    crop=None,
)

WITHOUT_RPN = replace(PRESENT, anchors=None)
"""Where anchors do not matter, since to fit them takes long."""


def numbers(
    widths: np.ndarray,
    heights: np.ndarray,
    image: tuple[int, int] = (640, 480),
    per_image: int = 10,
    labels: np.ndarray | None = None,
) -> Numbers:
    """Objects of these sides at random places, in images of one size (width, height)."""
    sides = np.stack((widths, heights), 1).astype(float)
    generator = np.random.default_rng(0)
    corner = generator.random(sides.shape) * (np.array(image) - sides)
    image_of = np.arange(len(sides)) // per_image
    count = int(image_of.max()) + 1 if len(sides) else 1
    found = np.zeros(len(sides), np.int64) if labels is None else labels
    return Numbers(
        widths=np.full(count, float(image[0])),
        heights=np.full(count, float(image[1])),
        per_image=np.bincount(image_of, minlength=count),
        labels=found,
        image_of=image_of,
        boxes=np.concatenate((corner, corner + sides), 1),
        areas=sides.prod(1),
        classes=[str(i) for i in range(int(found.max()) + 1 if len(found) else 1)],
    )


def spread(low: float, high: float, count: int = 400, ratio: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Sides between two limits, evenly in their logarithms; of one ratio of height to width."""
    sides = np.exp(np.linspace(np.log(low), np.log(high), count))
    np.random.default_rng(1).shuffle(sides)
    return sides / ratio**0.5, sides * ratio**0.5


def by_key(found: list[Suggestion]) -> dict[str, Suggestion]:
    return {key: item for item in found for key in item.keys}


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


def test_classes_count_alike() -> None:
    labels = np.array([0] * 900 + [1] * 100 + [2] * 5)
    weights = class_weights(numbers(np.full(1005, 9.0), np.full(1005, 9.0), labels=labels))
    sums = np.bincount(labels, weights)
    assert sums[0] == pytest.approx(sums[1])
    assert sums[2] == pytest.approx(sums[0] / 2)  # of fewer than ten objects
    assert sums.sum() == pytest.approx(1)


@pytest.mark.parametrize(("low", "high"), [(20, 200), (30, 90), (14, 400)])
def test_the_input_size_is_the_least_at_which_objects_are_well_seen(low: float, high: float) -> None:
    data = numbers(*spread(low, high))
    size, why = choose_size(data, 4)
    assert size.short is not None

    def seen(short: int) -> bool:
        scale = short / 480
        sides = data.sides * scale
        return bool(np.quantile(sides, 0.1) >= 15.9 and np.median(sides) >= 63.5)

    assert size.short % 32 == 0
    assert seen(size.short)
    assert size.short == 256 or not seen(size.short - 32)
    assert size.longest == round(size.short * 4 / 3)
    assert "px" in why


def test_small_objects_ask_for_larger_images_within_limits() -> None:
    found = [choose_size(numbers(*spread(side, 3 * side), image=(640, 480)), 4) for side in (100, 40, 20, 8, 4)]
    shorts = [size.short or 0 for size, _ in found]
    assert shorts == sorted(shorts)
    assert shorts[0] == 256
    assert shorts[-1] == 960  # twice the size of the files
    assert "2 times the stored size" in found[-1][1]
    size, why = choose_size(numbers(*spread(8, 30), image=(4000, 3000)), 4)
    assert (size.short, size.longest) == (992, 1323)
    assert "needs too much memory" in why
    # Ten larger images, in which most objects are, do not let the other thirty be enlarged further.
    data = numbers(*spread(4, 12))
    image_of = np.concatenate((np.arange(240) // 24, 10 + np.arange(160) * 30 // 160))
    heights, widths = data.heights.copy(), data.widths.copy()
    heights[:10], widths[:10] = 900, 1200
    mixed = replace(data, heights=heights, widths=widths, image_of=image_of, per_image=np.bincount(image_of))
    assert choose_size(mixed, 4)[0].short == 960


def test_objects_of_a_rare_class_decide_the_input_size_as_those_of_others() -> None:
    large, small = spread(100, 300, 900), spread(10, 20, 100)
    sides = [np.concatenate(pair) for pair in zip(large, small, strict=True)]
    labels = np.array([0] * 900 + [1] * 100)
    one, two = (choose_size(numbers(*sides, labels=found), 4)[0].short or 0 for found in (labels * 0, labels))
    assert two > 1.5 * one


def test_coarser_levels_ask_for_larger_objects() -> None:
    data = numbers(*spread(20, 200))
    assert (choose_size(data, 16)[0].short or 0) > (choose_size(data, 4)[0].short or 0)


def test_tiny_objects_in_large_images_are_trained_on_crops_and_cut_into_tiles() -> None:
    found, advice = suggest(numbers(*spread(5, 12), image=(4000, 3000), per_image=200), PRESENT)
    settings = by_key(found)
    assert settings["dataset.train_augment.short_sizes"].value == [992]
    assert settings["dataset.train_augment.fixed_size"].value == [576, 576]  # 640 x 480 pixels, as now
    assert not settings["schedule.batch_size"].changes
    assert settings["dataset.detections"].value == 300
    assert settings["dataset.rois"].value == 448  # 8 for each of 51 objects: of 200 in an image four times as large
    assert settings["dataset.rpn.test.post_nms_topk"].value == 800
    (sentence,) = advice
    assert "tiles of 640 px that overlap by 12 px" in sentence  # twice as large they fill 1333 px


def test_large_objects_are_seen_in_smaller_images_and_larger_batches() -> None:
    found, advice = suggest(numbers(*spread(100, 300), per_image=3), PRESENT)
    settings = by_key(found)
    assert settings["dataset.val_augment.short_sizes"].value == [256]
    assert settings["dataset.train_augment.short_sizes"].value == [256]
    assert "dataset.train_augment.fixed_size" not in settings
    batch = settings["schedule.batch_size"].value
    assert batch == 14  # (480 / 256)² = 3.5 times as many
    assert "multiply it by 3.5" in settings["schedule.batch_size"].reason
    assert settings["dataset.rois"].value == 128
    assert settings["dataset.detections"].value == 100
    assert settings["dataset.rpn.train.post_nms_topk"].value == 500
    assert not settings["schedule.val_batch_size"].changes  # one size
    assert advice == []


def test_smaller_batches_where_crops_would_cut_the_objects() -> None:
    settings = by_key(suggest(numbers(*spread(10, 200), per_image=3), WITHOUT_RPN)[0])
    assert "dataset.train_augment.fixed_size" not in settings
    assert settings["dataset.train_augment.short_sizes"].value == [704]
    assert settings["schedule.batch_size"].value == 2


def test_crops_of_the_user_stay() -> None:
    found, _ = suggest(numbers(*spread(5, 12), image=(4000, 3000)), replace(WITHOUT_RPN, crop=(400, 400)))
    assert "dataset.train_augment.fixed_size" not in by_key(found)
    assert not by_key(found)["schedule.batch_size"].changes


def test_a_batch_of_nearly_as_many_pixels_stays() -> None:
    settings = by_key(suggest(numbers(*spread(30, 90)), replace(WITHOUT_RPN, size=InputSize(576, None)))[0])
    assert settings["dataset.val_augment.short_sizes"].value == [608]
    assert not settings["schedule.batch_size"].changes


@pytest.mark.parametrize(("low", "high", "cells"), [(8, 24, 7.0), (20, 300, 0.0), (150, 400, 14.0)])
def test_the_canonical_size_leaves_seven_to_fourteen_cells(low: float, high: float, cells: float) -> None:
    data = numbers(*spread(low, high))
    settings = by_key(suggest(data, WITHOUT_RPN)[0])
    value = settings["dataset.canonical_size"].value
    assert isinstance(value, int)
    assert 7 * 16 <= value <= 14 * 16
    short = settings["dataset.val_augment.short_sizes"].value
    if cells:
        assert value == cells * 16
    else:  # half of the objects from P2
        assert isinstance(short, list)
        assert value == pytest.approx(2 * np.median(data.sides) * float(short[0]) / 480, abs=1.5)


def test_size_bins_are_thirds_where_one_is_nearly_empty() -> None:
    kept = by_key(suggest(numbers(*spread(10, 300)), WITHOUT_RPN)[0])["dataset.size_bins"]
    assert not kept.changes
    found = by_key(suggest(numbers(*spread(100, 270)), WITHOUT_RPN)[0])["dataset.size_bins"]
    assert found.value == pytest.approx([100 * 2.7 ** (1 / 3), 100 * 2.7 ** (2 / 3)], abs=1)
    same = by_key(suggest(numbers(np.full(40, 9.0), np.full(40, 9.0)), WITHOUT_RPN)[0])["dataset.size_bins"]
    assert not same.changes
    assert same.reason.endswith("they are too alike for three sizes")


def test_images_of_several_sizes_are_validated_one_by_one() -> None:
    data = numbers(*spread(20, 60))
    mixed = replace(data, widths=data.widths + np.arange(len(data.widths)))
    found = by_key(suggest(mixed, WITHOUT_RPN)[0])["schedule.val_batch_size"]
    assert (found.present, found.value) == (10, 1)


def test_a_detector_without_rpn_or_levels_gets_no_settings_of_them() -> None:
    settings = by_key(suggest(numbers(*spread(20, 60)), replace(PRESENT, anchors=None, roi_strides=(16,)))[0])
    assert not {"dataset.anchor_sizes", "backbone.anchors", "dataset.canonical_size"} & set(settings)
    assert not [key for key in settings if key.startswith("dataset.rpn")]


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


def test_a_training_set_without_objects_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dataset\.train has no objects"):
        suggest(numbers(np.zeros(0), np.zeros(0)), PRESENT)


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


def test_objects_longer_than_half_a_tile_are_named() -> None:
    cars, stadiums = spread(10, 14, 2000), spread(1200, 1600, 20)
    objects = numbers(*(np.r_[few, many] for few, many in zip(stadiums, cars, strict=True)), (8000, 6000), 20)
    advice, large = suggest(objects, WITHOUT_RPN)[1]
    tile, overlap = (int(number) for number in re.findall(r"of (\d+) px that overlap by (\d+) px", advice)[0])
    assert 14 <= overlap <= tile / 2
    assert "1% are longer than half such a tile" in large


def test_a_large_set_is_measured_on_a_sample() -> None:
    settings = by_key(suggest(numbers(*spread(20, 60, count=30000), per_image=100), PRESENT)[0])
    assert "20000 drawn at random" in settings["dataset.anchor_sizes"].reason


def test_long_thin_objects_are_measured_by_their_length() -> None:
    cracks = numbers(np.full(50, 590.0), np.full(50, 3.0), image=(600, 400))
    found, _ = suggest(cracks, WITHOUT_RPN)
    assert "dataset.train_augment.fixed_size" not in by_key(found)  # each crop would cut each of them
    lines = numbers(np.full(400, 60.0), np.full(400, 4.0), image=(4000, 3000))
    _, (sentence,) = suggest(lines, replace(WITHOUT_RPN, crop=(400, 400)))
    assert "overlap by 60 px" in sentence


def test_the_sizes_of_training_keep_their_proportion_to_validations() -> None:
    jitter = replace(WITHOUT_RPN, train_short_sizes=(400, 480, 560), train_longest=960)
    found = by_key(suggest(numbers(*spread(16, 120)), jitter)[0])
    (short,) = found["dataset.val_augment.short_sizes"].value
    train = found["dataset.train_augment.short_sizes"]
    assert train.present == [400, 480, 560]
    assert train.value == [round(side * short / 480) for side in (400, 480, 560)]
    assert found["dataset.val_augment.short_sizes"].present == [480]
    assert found["dataset.train_augment.max_size"].value == round(960 * short / 480)
    whole = replace(WITHOUT_RPN, size=InputSize(None, None), train_short_sizes=None, train_longest=None)
    found = by_key(suggest(numbers(*spread(16, 120)), whole)[0])
    assert found["dataset.train_augment.short_sizes"].value == [short]


def test_a_batch_has_no_more_images_than_there_are() -> None:
    found = by_key(suggest(numbers(np.full(3, 200.0), np.full(3, 200.0), per_image=1), WITHOUT_RPN)[0])
    assert found["schedule.batch_size"].value == 4  # the present one: 3 images are fewer
    found = by_key(suggest(numbers(np.full(9, 200.0), np.full(9, 200.0), per_image=1), WITHOUT_RPN)[0])
    assert found["schedule.batch_size"].value == 9


def test_the_share_of_images_that_keep_their_shorter_side_is_said() -> None:
    long = numbers(np.full(20, 30.0), np.full(20, 20.0), image=(4000, 40))
    reason = by_key(suggest(long, WITHOUT_RPN)[0])["dataset.val_augment.max_size"].reason
    assert reason.startswith("0% of the images")
