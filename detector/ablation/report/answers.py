"""Answer a study's question in sentences on the data at hand."""

from __future__ import annotations

import re

from detector.ablation.description import KINDS
from detector.ablation.report.effects import Effect, Numbers

MOST = 3
"""Arms that are named for each dataset and kind; tables have all of them."""
THRESHOLD = re.compile(r"AP@(0\.\d\d)")


def answers(numbers: Numbers) -> list[str]:
    """Say by how much the best arms of a study differ from its baseline, on each dataset, of boxes and of masks."""
    found = []
    for dataset in numbers.datasets():
        more = False
        for kind in (kind for kind in KINDS if kind in numbers.kinds(dataset)):
            effects = {
                arm: effect
                for arm in numbers.arms(dataset, kind)
                if arm != numbers.study.baseline
                and (effect := numbers.effect(arm, numbers.study.baseline, dataset, kind, "AP")) is not None
            }
            best = sorted(effects, key=lambda arm: -effects[arm].value)
            found += [_sentence(numbers, arm, dataset, kind, effects[arm]) for arm in best[:MOST]]
            more = more or len(best) > MOST
        if more:
            found.append(f"All arms on {dataset} are in the tables below.")
    return found


def _sentence(numbers: Numbers, arm: str, dataset: str, kind: str, effect: Effect) -> str:
    arms, base = numbers.study.arms, numbers.study.baseline
    name, other = arms[arm].label, arms[base].label
    metric = "AP" if kind == "box" else "mask AP"
    ends = effect.interval
    seeds = "one seed" if effect.n == 1 else f"{effect.n} seeds"
    if ends is None:
        return (
            f"On {dataset} {name} has {100 * effect.value:+.1f} {metric} against {other}; {seeds} cannot say how much "
            "of that is chance."
        )
    low, high = ends
    images = " over images" if effect.by == "images" else ""
    spread = f"95 %{images} {100 * low:.1f} to {100 * high:.1f}"
    if low <= 0 <= high:
        return (
            f"On {dataset} {name} and {other} cannot be told apart by {metric} with {seeds}: "
            f"{100 * effect.value:+.1f}, {spread}."
        )
    if effect.value < 0:
        spread = f"95 %{images} {-100 * high:.1f} to {-100 * low:.1f}"
    way = "better" if effect.value > 0 else "worse"
    where = _most(numbers, arm, dataset, kind, effect.value)
    return f"On {dataset} {name} is {abs(100 * effect.value):.1f} {metric} {way} than {other}, {spread}{where}."


def _most(numbers: Numbers, arm: str, dataset: str, kind: str, value: float) -> str:
    """Say at which IoU threshold a difference is largest; empty if that was not measured."""
    gains: dict[str, float] = {}
    for metric in numbers.metrics(dataset, kind):
        if match := THRESHOLD.fullmatch(metric):
            effect = numbers.effect(arm, numbers.study.baseline, dataset, kind, metric)
            if effect is not None:
                gains[match[1]] = effect.value if value > 0 else -effect.value
    if not gains:
        return ""
    most = max(gains, key=lambda threshold: gains[threshold])
    return f", most at IoU {most} ({100 * (gains[most] if value > 0 else -gains[most]):+.1f})"
