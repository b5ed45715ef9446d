import math
from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from scipy import stats

from detector.ablation.report.statistics import (
    Difference,
    adjust,
    difference_of_gains,
    paired,
    power,
    seeds_needed,
    spread_bounds,
    summary,
    warning,
)

SLEEP = ([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
"""Student's own example (1908): ten patients' gain in sleep under two drugs."""


def by_seed(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


def within(hits: int, trials: int, chance: float) -> bool:
    """Whether a count is one that a true chance gives, but for once in 10,000 times."""
    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], trials, chance)
    return bool(low <= hits <= high)


def test_summary_by_hand() -> None:
    found = summary([1.0, 2.0, math.nan, 4.0, 5.0])
    assert (found.mean, found.n) == (3.0, 4)
    assert found.sd == pytest.approx(math.sqrt(10 / 3))
    assert (summary([2.5]).mean, summary([2.5]).sd, summary([2.5]).n) == (2.5, None, 1)
    with pytest.raises(ValueError, match="nothing to summarise"):
        summary([math.nan])


def test_students_own_example() -> None:
    found = paired(by_seed(SLEEP[0]), by_seed(SLEEP[1]))
    assert found.mean == pytest.approx(-1.58)
    assert found.sd == pytest.approx(1.229995, abs=1e-6)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.low, found.high) == (pytest.approx(-2.459886, abs=1e-6), pytest.approx(-0.700114, abs=1e-6))
    test = stats.ttest_rel(*SLEEP)
    assert found.p == test.pvalue
    narrow = paired(by_seed(SLEEP[0]), by_seed(SLEEP[1]), confidence=0.8)
    assert (narrow.low, narrow.high) == tuple(test.confidence_interval(0.8))


def test_pairs_follow_the_seeds_not_their_order() -> None:
    a, b = {7: 0.5, 1: 0.3, 4: 0.2, 9: math.nan, 2: 1.0}, {1: 0.2, 4: 0.2, 7: 0.3, 9: 0.1, 3: 1.0}
    found = paired(a, b)
    assert (found.mean, found.n, found.left_out) == (pytest.approx(0.1), 3, (2, 3, 9))
    assert found.sd == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"no seed is in both arms: one has \[1\], the other \[2\]"):
        paired({1: 0.5}, {2: 0.5})
    with pytest.raises(ValueError, match="between 0 and 1"):
        paired(a, b, confidence=95)


def test_one_seed_and_equal_differences_have_no_interval() -> None:
    one = paired({3: 0.5}, {3: 0.4})
    assert (one.sd, one.low, one.high, one.p, one.n) == (None, None, None, None, 1)
    assert "One seed" in cast(str, warning(one))
    for gap in (0.0, 0.1):  # 0.1 is rounded differently in each of the differences
        equal = paired({0: 0.3 + gap, 1: 0.7 + gap, 2: 0.9 + gap}, {0: 0.3, 1: 0.7, 2: 0.9})
        assert equal.mean == pytest.approx(gap)
        assert (equal.sd, equal.low, equal.high, equal.p, equal.n) == (0.0, None, None, None, 3)
        assert "spread is not known" in cast(str, warning(equal))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_covers_zero_in_95_of_100_null_sweeps(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    covered = significant = 0
    for _ in range(1000):
        data = rng.normal(0.3, 0.05, seeds)  # what the seed does to both arms
        a, b = (by_seed((data + rng.normal(0, 0.01, seeds)).tolist()) for _ in range(2))
        found = paired(a, b)
        covered += cast(float, found.low) <= 0 <= cast(float, found.high)
        significant += cast(float, found.p) < 0.05
    assert within(covered, 1000, 0.95)
    assert significant == 1000 - covered


def test_a_planted_effect_is_found_as_often_as_theory_says() -> None:
    rng = np.random.default_rng(11)
    effect, sd, seeds = 0.02, 0.01 * math.sqrt(2), 5
    covered = found = 0
    for _ in range(1000):
        data = rng.normal(0.3, 0.05, seeds)
        a, b = (by_seed((data + gain + rng.normal(0, 0.01, seeds)).tolist()) for gain in (effect, 0.0))
        d = paired(a, b)
        covered += cast(float, d.low) <= effect <= cast(float, d.high)
        found += cast(float, d.p) < 0.05
    chance = power(effect, sd, seeds)
    assert 0.6 < chance < 0.8
    assert within(found, 1000, chance)
    assert within(covered, 1000, 0.95)


def test_power_of_known_designs() -> None:
    # R: power.t.test(delta=1, sd=1, power=0.8, type="paired") needs 9.94 pairs, with delta=0.5 33.37
    assert seeds_needed(1, 1) == 10
    assert seeds_needed(0.5, 1) == 34
    assert seeds_needed(-0.5, 1) == 34
    assert power(1, 1, 9) < 0.8 < power(1, 1, 10)
    assert power(0, 1, 7) == pytest.approx(0.05)
    assert power(1e-9, 1, 7) == pytest.approx(0.05)
    for effect, n in ((0.3, 8), (1, 4), (-2, 3)):
        edge, away = stats.t.ppf(0.975, n - 1), effect * math.sqrt(n)
        expected = stats.nct.sf(edge, n - 1, away) + stats.nct.cdf(-edge, n - 1, away)
        assert power(effect, 1, n) == pytest.approx(expected, rel=1e-9)
    grown = [power(0.1, 1, n) for n in range(2, 3000)]
    assert all(less < more for less, more in pairwise(grown[:1500]))
    assert power(1, 1, 500) == pytest.approx(1.0)  # SciPy's noncentral t gives NaN here
    assert power(0.2, 1, 7, confidence=0.9) > power(0.2, 1, 7)
    assert seeds_needed(50, 1) == 2
    assert seeds_needed(0, 1) is None
    assert cast(int, seeds_needed(0.5, 1, chance=0.9)) == 44  # power.t.test(..., power=0.9): 43.99
    for sd, chance in ((0, 0.8), (1, 1.0)):
        with pytest.raises(ValueError, match="sd must be above 0"):
            seeds_needed(1, sd, chance)


def test_how_far_a_spread_may_be_off() -> None:
    """Of many samples of n values as many true deviations lie within the bounds as they promise, half outside each."""
    for n in (2, 3, 10):
        low, high = spread_bounds(n)
        sd = np.random.default_rng(n).normal(size=(200_000, n)).std(axis=1, ddof=1)
        assert [(low * sd > 1).mean(), (high * sd < 1).mean()] == pytest.approx([0.025, 0.025], abs=0.002)


def planted(mean: float, spread: float, seeds: int) -> Difference:
    """A difference whose mean and interval follow from evenly spread values."""
    values = mean + np.linspace(-spread, spread, seeds)
    return paired(by_seed(values.tolist()), by_seed([0.0] * seeds))


def test_warnings() -> None:
    assert warning(planted(0.05, 0.01, 4)) is None
    two = warning(planted(0.05, 0.001, 2))
    assert two is not None
    assert two.startswith("2 seeds are too few")
    unclear = planted(0.01, 0.02, 3)  # sd 0.02, half width 4.303 * 0.02 / sqrt(3)
    half = stats.t.ppf(0.975, 2) * 0.02 / math.sqrt(3)
    said = cast(str, warning(unclear))
    assert f"Differences below {100 * half:.2g} points cannot be told apart from zero with 3 seeds" in said
    assert "about 34 seeds" in said
    assert "more than 10,000 seeds" in cast(str, warning(planted(0.0, 0.02, 3)))


def test_holm() -> None:
    # by hand: 4 * 0.01, 3 * 0.013, raised to the one before, 2 * 0.03, 0.2
    assert adjust([0.03, 0.01, 0.2, 0.013]) == pytest.approx([0.06, 0.04, 0.2, 0.04])
    assert adjust([0.6, 0.5, 0.7]) == [1.0, 1.0, 1.0]
    assert adjust([None, 0.04, 0.02, None]) == [None, 0.04, 0.04, None]
    assert adjust([0.04]) == [0.04]
    assert adjust([]) == []


def test_holm_keeps_false_alarms_rare() -> None:
    rng = np.random.default_rng(13)
    alarms = sum(min(cast("list[float]", adjust(rng.random(5).tolist()))) < 0.05 for _ in range(2000))
    # where nothing differs, its smallest p is Bonferroni's: of independent tests, 1 - 0.99^5 are false alarms
    assert within(alarms, 2000, 1 - 0.99**5)


def test_difference_of_gains() -> None:
    small: tuple[Mapping[int, float], Mapping[int, float]] = ({0: 0.30, 1: 0.34, 2: 0.31}, {0: 0.20, 1: 0.22, 2: 0.23})
    large: tuple[Mapping[int, float], Mapping[int, float]] = (
        {0: 0.51, 1: 0.52, 2: 0.50, 3: 1.0},
        {0: 0.50, 1: 0.51, 2: 0.50},
    )
    found = difference_of_gains(*small, *large)
    values = [0.09, 0.11, 0.08]
    assert (found.n, found.left_out) == (3, (3,))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval(0.95)))
