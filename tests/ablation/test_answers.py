"""The sentences that a report begins with follow from the numbers."""

from dataclasses import replace

from detector.ablation.description import Arm, StudyInfo
from detector.ablation.records import MetricRow, Records, Run
from detector.ablation.report.answers import answers
from detector.ablation.report.effects import Numbers

LABELS = {"base": "RoIPool", "one": "RoIAlign", "two": "RoIWarp", "three": "RoICrop", "four": "Nearest"}


def planted(gains: dict[str, list[float]], thresholds: dict[str, float] | None = None) -> Numbers:
    """Plant AP of arms that exceed the baseline's by a gain for each seed; at a threshold by that times a factor."""
    arms = {name: Arm(LABELS[name], [f"pooler={name}"]) for name in ("base", *gains)}
    seeds = list(range(max(map(len, gains.values()))))
    records = Records(StudyInfo("s", "t", "q", "base", arms, ["nuclei"], seeds))
    for arm, values in {"base": [0.0] * len(seeds), **gains}.items():
        for seed, gain in enumerate(values):
            records.runs.append(Run("s", arm, "nuclei", seed, "train", "", "2026-01-01 00:00", 1.0, 1, 1, 1))
            for metric, factor in {"AP": 1.0, **(thresholds or {})}.items():
                value = 0.5 + factor * gain + 0.01 * seed
                records.metrics.append(MetricRow("s", arm, "nuclei", seed, "box", metric, value, None, None))
    return Numbers(records)


def test_what_is_better_and_where() -> None:
    numbers = planted({"one": [0.05, 0.052, 0.054]}, {"AP@0.50": 0.2, "AP@0.75": 2.0, "AP@0.95": 1.0})
    (sentence,) = answers(numbers)
    # Student's interval of 3 values with a deviation of 0.2 points: ± 4.303 * 0.2 / sqrt(3).
    assert sentence == ("On nuclei RoIAlign is 5.2 AP better than RoIPool, 95 % 4.7 to 5.7, most at IoU 0.75 (+10.4).")
    (sentence,) = answers(planted({"one": [-0.05, -0.052, -0.054]}, {"AP@0.50": 0.2, "AP@0.75": 2.0}))
    assert sentence == "On nuclei RoIAlign is 5.2 AP worse than RoIPool, 95 % 4.7 to 5.7, most at IoU 0.75 (-10.4)."


def test_what_cannot_be_told() -> None:
    (sentence,) = answers(planted({"one": [0.05, -0.04, 0.01]}))
    assert sentence.startswith("On nuclei RoIAlign and RoIPool cannot be told apart by AP with 3 seeds: +0.7, 95 % -10")
    (sentence,) = answers(planted({"one": [0.05]}))
    assert sentence == (
        "On nuclei RoIAlign has +5.0 AP against RoIPool; one seed cannot say how much of that is chance."
    )


def test_the_best_arms_come_first_and_are_few() -> None:
    gains = {
        name: [gain, gain + 0.001, gain + 0.002]
        for name, gain in (("one", 0.02), ("two", 0.04), ("three", 0.01), ("four", 0.03))
    }
    found = answers(planted(gains))
    assert [sentence.split(" is ")[0] for sentence in found[:3]] == [
        f"On nuclei {n}" for n in ("RoIWarp", "Nearest", "RoIAlign")
    ]
    assert found[3:] == ["All arms on nuclei are in the tables below."]
    numbers = planted(gains)
    masks = [replace(row, kind="mask") for row in numbers.records.metrics]
    both = answers(Numbers(replace(numbers.records, metrics=[*numbers.records.metrics, *masks])))
    assert [sentence.startswith("All arms") for sentence in both] == [False] * 6 + [True]
