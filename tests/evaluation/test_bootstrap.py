import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from detector.evaluation.bootstrap import average_precision, resample


def test_resamples_follow_seed_and_number_of_images_only() -> None:
    one = resample(40, 3, 50)
    assert one.shape == (50, 40)
    assert np.array_equal(one, resample(40, 3, 50))
    assert (one.sum(1) == 40).all()
    assert not np.array_equal(one, resample(40, 4, 50))
    drawn = resample(40, 0, 5000)
    assert drawn.mean() == 1.0
    assert drawn.var() == pytest.approx(39 / 40, abs=0.02)  # that of the binomial distribution; 0.02 is 5 sd
    with pytest.raises(ValueError, match="images=0"):
        resample(0, 0, 10)
    with pytest.raises(ValueError, match="resamples=1"):
        resample(3, 0, 1)


def simulated(rng: np.random.Generator, truths: Any, chance: Any) -> tuple[Any, Any]:
    """Detections of objects that are found with an image's `chance`, and false ones below them all."""
    images = len(truths)
    found, false = rng.binomial(truths, chance), rng.poisson(1, images)
    ranked = np.concatenate([rng.permutation(np.repeat(np.arange(images), n)) for n in (found, false)])
    return ranked, np.arange(len(ranked)) < found.sum()


def within(hits: int, trials: int, chance: float) -> bool:
    """Whether a count is one that a true chance gives, but for once in 10,000 times."""
    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], trials, chance)
    return bool(low <= hits <= high)


def test_intervals_cover_the_truth() -> None:
    # Objects of an image are found together or not at all, so that objects resampled one by one would cover too rarely.
    rng = np.random.default_rng(7)
    images, draws = 100, 400
    repeats = resample(images, 0, 400)
    covered = naive = zero = 0
    for _ in range(draws):
        truths = rng.integers(1, 5, images).astype(np.int32)
        hard = rng.random(images) < 0.5
        chance = np.where(hard, 0.2, 0.9)  # 0.55 of all objects are found: 55 or 56 of the 101 levels
        a, b = (average_precision(*simulated(rng, truths, chance), truths, repeats) for _ in range(2))
        low, high = np.quantile(a, [0.025, 0.975])
        covered += low <= 55.5 / 101 <= high
        half = 1.96 * math.sqrt(0.55 * 0.45 / truths.sum())
        value = average_precision(*simulated(rng, truths, chance), truths, np.ones((1, images), dtype=np.int32))[0]
        naive += abs(value - 55.5 / 101) <= half
        low, high = np.quantile(a - b, [0.025, 0.975])
        zero += low <= 0 <= high
    assert within(covered, draws, 0.95)
    assert within(zero, draws, 0.95)
    assert not within(naive, draws, 0.95)
