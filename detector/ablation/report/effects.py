"""Differences between a study's arms, with intervals over seeds or, with a single seed, over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from detector.ablation.commands import chosen_overrides
from detector.ablation.description import KINDS, StudyInfo
from detector.ablation.records import Gain, Records
from detector.ablation.report.statistics import Difference, difference_of_gains, paired, summary

Values = dict[int, float]
"""A metric by seed."""


@dataclass(frozen=True)
class Effect:
    """A difference in fractions, with its 95 % interval."""

    value: float
    n: int
    """number of seeds"""
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """of Student's t-test paired by seed"""
    by: Literal["seeds", "images"] | None = None
    """what the interval is over: seeds (other trainings) or images; None without an interval"""
    difference: Difference | None = None
    """the result of the paired t-test"""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def _effect(difference: Difference) -> Effect:
    d = difference
    by: Literal["seeds"] | None = None if d.low is None or d.high is None else "seeds"
    return Effect(d.mean, d.n, d.low, d.high, d.p, by, d)


def paired_effect(a: Mapping[int, float], b: Mapping[int, float]) -> Effect | None:
    """Compute a minus b, paired by seed; None if they have no seed in common."""
    return _effect(paired(a, b)) if set(a) & set(b) else None


def gain_effect(
    a: Mapping[int, float], b: Mapping[int, float], c: Mapping[int, float], d: Mapping[int, float]
) -> Effect | None:
    """Compute (a - b) - (c - d), paired by seed; None if they have no seed in common."""
    return _effect(difference_of_gains(a, b, c, d)) if set(a) & set(b) & set(c) & set(d) else None


class Numbers:
    """The metrics of a study, indexed by arm, dataset, kind, metric and seed.

    Args:
        records: of one study.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self._values: dict[tuple[str, str, str, str], Values] = {}
        self._intervals: dict[tuple[str, str, str, str, int], tuple[float | None, float | None]] = {}
        self._gains: dict[tuple[str, str, str, str], list[Gain]] = {}
        for m in records.metrics:
            self._values.setdefault((m.arm, m.dataset, m.kind, m.metric), {})[m.seed] = m.value
            self._intervals[m.arm, m.dataset, m.kind, m.metric, m.seed] = m.low, m.high
        for gain in records.differences:
            self._gains.setdefault((gain.arm, gain.dataset, gain.kind, gain.metric), []).append(gain)

    @property
    def study(self) -> StudyInfo:
        """The study's description."""
        return self.records.study

    def values(self, arm: str, dataset: str, kind: str, metric: str) -> Values:
        """Return a metric by seed; empty if it was not measured."""
        return dict(self._values.get((arm, dataset, kind, metric), {}))

    def image_interval(self, arm: str, dataset: str, kind: str, metric: str) -> tuple[float, float] | None:
        """Return the interval of the image bootstrap if there is a single seed, else None."""
        values = self.values(arm, dataset, kind, metric)
        if len(values) != 1:
            return None
        low, high = self._intervals[arm, dataset, kind, metric, next(iter(values))]
        return None if low is None or high is None else (low, high)

    def mean(self, arm: str, dataset: str, kind: str, metric: str) -> float | None:
        """Return a metric's mean over seeds; None if it was not measured."""
        values = list(self.values(arm, dataset, kind, metric).values())
        return summary(values).mean if values else None

    def metrics(self, dataset: str, kind: str) -> list[str]:
        """List the metrics measured of any arm, in the order of the records."""
        return list(dict.fromkeys(key[3] for key in self._values if key[1:3] == (dataset, kind)))

    def kinds(self, dataset: str) -> list[str]:
        """List the kinds measured on a dataset: box, mask, then those of other metrics in the order of the records."""
        found = dict.fromkeys(key[2] for key in self._values if key[1] == dataset)
        return [*(kind for kind in KINDS if kind in found), *(kind for kind in found if kind not in KINDS)]

    def datasets(self) -> list[str]:
        """List the study's datasets that have measurements."""
        found = {key[1] for key in self._values}
        return [dataset for dataset in self.study.datasets if dataset in found]

    def arms(self, dataset: str, kind: str) -> list[str]:
        """List the study's arms that have measurements."""
        found = {key[0] for key in self._values if key[1:3] == (dataset, kind)}
        return [arm for arm in self.study.arms if arm in found]

    def overrides(self, arms: Sequence[str], datasets: Sequence[str]) -> frozenset[frozenset[str]]:
        """Return the overrides of each run of these arms on these datasets, to recognise runs that studies share."""
        runs = self.records.runs
        return frozenset(chosen_overrides(run.command) for run in runs if run.arm in arms and run.dataset in datasets)

    def effect(self, arm: str, other: str, dataset: str, kind: str, metric: str) -> Effect | None:
        """Compute `arm` minus `other`, paired by seed; with a single seed the interval is the image bootstrap's."""
        found = paired_effect(self.values(arm, dataset, kind, metric), self.values(other, dataset, kind, metric))
        if found is None or found.by is not None or found.n != 1:
            return found
        forward = self._paired_images(arm, other, dataset, kind, metric)
        if forward is not None:
            return replace(found, low=forward[0], high=forward[1], by="images")
        backward = self._paired_images(other, arm, dataset, kind, metric)
        if backward is not None:
            return replace(found, low=-backward[1], high=-backward[0], by="images")
        return found

    def _paired_images(self, arm: str, other: str, dataset: str, kind: str, metric: str) -> tuple[float, float] | None:
        both = self.values(arm, dataset, kind, metric).keys() & self.values(other, dataset, kind, metric).keys()
        for gain in self._gains.get((arm, dataset, kind, metric), []):
            if gain.baseline != other or gain.seed not in both or gain.low is None or gain.high is None:
                continue
            if gain.low < gain.high:  # an empty interval means that no resample differed, not that the value is certain
                return gain.low, gain.high
        return None


def missing_runs(numbers: Sequence[Numbers]) -> list[str]:
    """Name, in sentences, the runs of each study that are missing from its records."""
    sentences = []
    for study in numbers:
        info, done = study.study, {(run.arm, run.dataset, run.seed) for run in study.records.runs}
        for dataset in info.datasets:
            missing = {arm: [s for s in info.seeds if (arm, dataset, s) not in done] for arm in info.arms}
            missing = {arm: seeds for arm, seeds in missing.items() if seeds}
            if all(len(missing.get(arm, [])) == len(info.seeds) for arm in info.arms):
                sentences.append(f"Study {info.name}: nothing was run on {dataset}.")
            elif missing:
                runs = "; ".join(f"{arm}, seeds {', '.join(map(str, seeds))}" for arm, seeds in missing.items())
                sentences.append(f"Study {info.name} on {dataset}: these runs are missing: {runs}.")
    return sentences
