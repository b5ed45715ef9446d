import pytest
import torch

from detector.matching import IGNORED, BalancedSampler, Matcher, Matches, hardest, sample, take_all
from detector.types import Target


def target(boxes: list[list[float]], crowd: list[bool] | None = None) -> Target:
    flags = torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool)
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64), flags, ~flags & False)


REFERENCES = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],  # is the first object
        [0.0, 0.0, 10.0, 6.0],  # IoU 0.6 with it
        [0.0, 0.0, 10.0, 2.0],  # IoU 0.2
        [30.0, 30.0, 32.0, 32.0],  # IoU 0.04 with the second object, the nearest to it
        [80.0, 80.0, 90.0, 90.0],  # alone
    ]
)


def test_thresholds_and_the_band_between() -> None:
    matches = Matcher(0.7, 0.3)(REFERENCES, target([[0, 0, 10, 10], [30, 30, 40, 40]]))
    assert matches.positive.tolist() == [True, False, False, False, False]
    assert matches.negative.tolist() == [False, False, True, True, True]
    assert matches.index[:4].tolist() == [0, 0, 0, 1]


def test_low_quality_matches_keep_the_nearest_of_each_object() -> None:
    matches = Matcher(0.7, 0.3, allow_low_quality_matches=True)(REFERENCES, target([[0, 0, 10, 10], [30, 30, 40, 40]]))
    assert matches.positive.tolist() == [True, False, False, True, False]
    assert matches.negative.tolist() == [False, False, True, False, True]


def test_an_object_that_touches_nothing_forces_nothing() -> None:
    matches = Matcher(0.7, 0.3, allow_low_quality_matches=True)(REFERENCES, target([[50, 50, 60, 60]]))
    assert not matches.positive.any()
    assert matches.negative.all()


def test_threshold_is_inclusive_above_and_exclusive_below() -> None:
    reference = torch.tensor([[0.0, 0.0, 8.0, 4.0]])  # IoU exactly 0.5 with the object
    assert Matcher(0.5, 0.5)(reference, target([[0, 0, 8, 8]])).positive.tolist() == [True]


def test_crowds_are_neither_learnt_nor_background() -> None:
    crowd = target([[0, 0, 20, 20], [30, 30, 40, 40]], [True, False])
    matches = Matcher(0.5, 0.5, allow_low_quality_matches=True)(REFERENCES, crowd)
    assert matches.positive.tolist() == [False, False, False, True, False]
    assert matches.negative.tolist() == [False, False, False, False, True]
    only = Matcher(0.5, 0.5)(REFERENCES, target([[0, 0, 20, 20]], [True]))
    assert only.negative.tolist() == [False, False, False, True, True]
    assert not only.positive.any()


def test_no_object_makes_all_background() -> None:
    matches = Matcher(0.5, 0.5)(REFERENCES, target([]))
    assert matches.negative.all()
    assert not matches.positive.any()


def test_bad_thresholds() -> None:
    with pytest.raises(ValueError, match=r"0\.3"):
        Matcher(0.3, 0.7)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(10, 100, (4, 12)), (2, 100, (2, 14)), (10, 3, (4, 3)), (0, 100, (0, 16)), (10, 0, (4, 0)), (0, 0, (0, 0))],
)
def test_sampler_counts(positives: int, negatives: int, expected: tuple[int, int]) -> None:
    torch.manual_seed(1)
    kind = torch.tensor([1] * positives + [0] * negatives + [2] * 7)[torch.randperm(positives + negatives + 7)]
    positive, negative = kind == 1, kind == 0
    chosen = BalancedSampler(16, 0.25)(positive, negative)
    index = chosen.index[chosen.valid]
    assert len(index.unique()) == len(index)
    assert (int(positive[index].sum()), int(negative[index].sum())) == expected
    assert torch.equal(positive[index], chosen.positive[chosen.valid])
    assert not chosen.positive[~chosen.valid].any()
    assert len(chosen.index) == min(16, len(kind))


def test_sampler_is_random_and_even() -> None:
    torch.manual_seed(0)
    positive = torch.arange(40) < 20
    drawn = torch.zeros(40)
    for _ in range(2000):
        chosen = BalancedSampler(8, 0.5)(positive, ~positive)
        drawn[chosen.index] += 1
    expected = 2000 * 4 / 20
    assert ((drawn - expected).abs() < 5 * expected**0.5).all()


def test_take_all_leaves_nothing_out() -> None:
    positive, negative = torch.tensor([False, True, False]), torch.tensor([True, False, False])
    chosen = take_all(positive, negative)
    assert chosen.index.tolist() == [0, 1, 2]
    assert torch.equal(chosen.positive, positive)
    assert chosen.valid.tolist() == [True, True, False]


def test_the_hardest_learn() -> None:
    labels = torch.tensor([3, 2, 3, IGNORED, 1, 3])  # the background is 3
    losses = torch.tensor([0.1, 0.5, 0.3, 9.0, 0.4, 0.2])
    assert hardest(labels, losses, 3).tolist() == [IGNORED, 2, 3, IGNORED, 1, IGNORED]
    assert torch.equal(hardest(labels, losses, 5), labels)
    assert torch.equal(hardest(labels, losses, 100), labels)
    assert hardest(labels[:0], losses[:0], 3).shape == (0,)


def test_the_sample_of_an_image_depends_on_its_seed_alone() -> None:
    image = target([])
    matches = Matches(torch.zeros(100, dtype=torch.int64), torch.arange(100) < 40, torch.arange(100) >= 40)
    sampler = BalancedSampler(16, 0.25)

    def drawn(seed: int | None, choice: int = 0) -> list[int]:
        image.seed = seed
        return sample(sampler, matches, image, choice).index.tolist()

    torch.manual_seed(0)
    first, other, second = drawn(7), drawn(20), drawn(7, 1)
    assert len({tuple(first), tuple(other), tuple(second)}) == 3
    torch.manual_seed(5)
    assert drawn(7) == first
    torch.manual_seed(5)
    free = drawn(None)
    torch.manual_seed(5)
    assert drawn(None) == free
    assert drawn(None) != free
