"""Input sizes, crops, batch sizes and other settings that are suggested for generated distributions of objects."""

import re
from dataclasses import replace

import numpy as np
import pytest

from detector.data.suggest.rules import suggest
from detector.data.suggest.sizes import InputSize, choose_size, class_weights
from tests.data.suggest_cases import PRESENT, WITHOUT_RPN, by_key, numbers, spread


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


def test_a_training_set_without_objects_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dataset\.train has no objects"):
        suggest(numbers(np.zeros(0), np.zeros(0)), PRESENT)


def test_objects_longer_than_half_a_tile_are_named() -> None:
    cars, stadiums = spread(10, 14, 2000), spread(1200, 1600, 20)
    objects = numbers(*(np.r_[few, many] for few, many in zip(stadiums, cars, strict=True)), (8000, 6000), 20)
    advice, large = suggest(objects, WITHOUT_RPN)[1]
    tile, overlap = (int(number) for number in re.findall(r"of (\d+) px that overlap by (\d+) px", advice)[0])
    assert 14 <= overlap <= tile / 2
    assert "1% are longer than half such a tile" in large


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
