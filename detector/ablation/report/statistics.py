"""Statistics over runs that differ in their seed: intervals, p-values and the number of seeds needed.

Metrics are fractions in 0..1; sentences give them in points (hundredths).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

ENOUGH = 3
"""The fewest seeds from which a standard deviation is estimated without a warning."""

MOST = 10_000
"""The most seeds that `seeds_needed` considers."""


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1; None for a single value) of n values."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A mean difference over seeds, with Student's interval and two-sided p-value.

    `sd` is None with one seed. Interval and p are None with one seed and where all differences are equal, which
    suggests that a run was counted twice.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    confidence: float
    left_out: tuple[int, ...]
    """seeds that only one side has, or that are NaN"""


def summary(values: Sequence[float]) -> Summary:
    """Compute mean and standard deviation; NaN values are left out.

    Raises:
        ValueError: there is no value.
    """
    known = np.array([v for v in values if not math.isnan(v)], dtype=np.float64)
    if not len(known):
        raise ValueError(f"there is nothing to summarise in {list(values)}")
    return Summary(float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else None, len(known))


def paired(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> Difference:
    """Compare `a` with `b` by Student's t-test paired by seed (`scipy.stats.ttest_rel`).

    Args:
        a: a metric of one arm by seed.
        b: the same of the arm it is compared with. Seeds that only one has are left out, and named in the result.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: no seed is in both, or `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95, but is {confidence}")
    seeds = sorted(seed for seed in set(a) & set(b) if not (math.isnan(a[seed]) or math.isnan(b[seed])))
    left_out = tuple(sorted((set(a) | set(b)) - set(seeds)))
    if not seeds:
        raise ValueError(f"no seed is in both arms: one has {sorted(a)}, the other {sorted(b)}; run a seed of both")
    one, other = np.array([a[s] for s in seeds]), np.array([b[s] for s in seeds])
    values = one - other
    own = summary(values.tolist())
    rounding = 8 * np.finfo(np.float64).eps * max(np.abs(one).max(), np.abs(other).max())
    if own.sd is None or own.sd <= rounding:
        sd = None if own.sd is None else 0.0
        return Difference(own.mean, sd, None, None, None, own.n, confidence, left_out)
    test = stats.ttest_rel(one, other)
    low, high = test.confidence_interval(confidence)
    return Difference(own.mean, own.sd, float(low), float(high), float(test.pvalue), own.n, confidence, left_out)


def difference_of_gains(
    a: Mapping[int, float],
    b: Mapping[int, float],
    other_a: Mapping[int, float],
    other_b: Mapping[int, float],
    confidence: float = 0.95,
) -> Difference:
    """Test whether a gain is larger in one group than in another: (a - b) - (other_a - other_b), paired by seed.

    For instance the gain in AP of small objects (`a` the arm's, `b` the baseline's) against that of large ones. Seeds
    that any of the four lacks are left out. Errors are those of `paired`.
    """
    gain = {seed: a[seed] - b[seed] for seed in set(a) & set(b)}
    other = {seed: other_a[seed] - other_b[seed] for seed in set(other_a) & set(other_b)}
    result = paired(gain, other, confidence)
    missing = (set(a) ^ set(b)) | (set(other_a) ^ set(other_b))
    return replace(result, left_out=tuple(sorted(missing | set(result.left_out))))


def power(effect: float, sd: float, n: int, confidence: float = 0.95) -> float:
    """Compute the power of the paired t-test: the probability that p is below 1 - confidence.

    Source: the noncentral t distribution (Cohen, Statistical Power Analysis, 2nd edition, 1988, chapter 2), computed by
    its square, a noncentral F, since SciPy's noncentral t is NaN for some arguments.

    Args:
        effect: the true difference.
        sd: the true standard deviation of the differences, above 0.
        n: number of seeds, at least 2.
        confidence: of the interval that excludes zero.
    """
    away = n * (effect / sd) ** 2
    if away < 1e-12:  # SciPy's noncentral F is wrong at 0
        return 1 - confidence
    edge = stats.t.ppf((1 + confidence) / 2, n - 1) ** 2
    return float(stats.ncf.sf(edge, 1, n - 1, away))


def seeds_needed(effect: float, sd: float, chance: float = 0.8, confidence: float = 0.95) -> int | None:
    """Find the smallest number of seeds with which the power of the paired t-test reaches `chance`.

    None if even 10,000 are too few. The other arguments are those of `power`.

    Raises:
        ValueError: `sd` is not above 0, or `chance` not in (0, 1).
    """
    if not (sd > 0 and 0 < chance < 1):
        raise ValueError(f"sd must be above 0 and chance between 0 and 1, but they are {sd} and {chance}")
    if power(effect, sd, MOST, confidence) < chance:
        return None
    low, high = 1, MOST  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, sd, middle, confidence) >= chance else (middle, high)
    return high


def spread_bounds(n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute how far a standard deviation of n values may be off: the true one lies between these multiples of it.

    Source: the chi-square interval of a normal distribution's variance. `n` is at least 2.
    """
    tail = (1 - confidence) / 2
    high, low = ((n - 1) / stats.chi2.ppf([tail, 1 - tail], n - 1)) ** 0.5
    return float(low), float(high)


def warning(difference: Difference) -> str | None:
    """Warn, in a sentence, if the seeds are too few to tell a difference from chance; else None."""
    d = difference
    if d.n == 1:
        return "One seed cannot show how much of a difference is chance; run 3 seeds or more."
    if d.low is None or d.high is None or d.sd is None:
        return (
            f"All {d.n} seeds differ by the same {_points(d.mean)}, so their spread is not known: check that the runs "
            "are not copies of each other."
        )
    if not d.low <= 0 <= d.high:
        return None if d.n >= ENOUGH else f"{d.n} seeds are too few to estimate a spread; run 3 seeds or more."
    needed = seeds_needed(d.mean, d.sd, confidence=d.confidence)
    number = f"more than {MOST:,}" if needed is None else f"about {max(needed, ENOUGH):,}"
    return (
        f"Differences below {_points((d.high - d.low) / 2)} cannot be told apart from zero with {d.n} seeds. If the "
        f"true difference and spread are as measured, a power of 0.8 takes {number} seeds."
    )


def _points(value: float) -> str:
    return f"{100 * value:.2g} points"


def adjust(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of several arms against one baseline by Holm's method; the order is kept.

    If no arm differs, the probability that any adjusted p is below 0.05 is at most 0.05. None (no test) stays None and
    does not count. Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[place] = least
    return adjusted
