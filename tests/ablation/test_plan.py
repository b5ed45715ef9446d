"""Plans: seeds from the spread of planted runs, and hours from their times."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table

from detector.ablation.description import Arm, StudyInfo
from detector.ablation.plan import RESULTS, find_records, plan, render
from detector.ablation.records import MetricRow, Records, Run, write_records
from detector.ablation.report.statistics import power, seeds_needed
from detector.ablation.study import Job

INFO = StudyInfo(
    "s", "t", "q", "base", {a: Arm(a, [f"pooler={a}"]) for a in ("base", "other", "same")}, ["d"], [0, 1, 2]
)


def records(differences: dict[int, float], seconds: float = 90.0) -> Records:
    """Plant runs: `other` exceeds `base` by a difference for each seed, `same` by one for all."""
    made = Records(INFO)
    for seed, difference in differences.items():
        for arm, value in (("base", 0.5), ("other", 0.5 + difference), ("same", 0.5625)):
            made.runs.append(Run("s", arm, "d", seed, f"train {arm} {seed}", "", "2026-01-01 00:00", seconds, 1, 1, 1))
            made.metrics.append(MetricRow("s", arm, "d", seed, "box", "AP", value, None, None))
    return made


def test_seeds_follow_from_the_spread_of_the_differences() -> None:
    differences = {0: 0.02, 1: 0.05, 2: 0.035}
    sd = float(np.std(list(differences.values()), ddof=1))
    pending = [Job("other", "d", seed, ()) for seed in (3, 4)]
    found = plan(INFO, records(differences), Path("from"), 0.01, pending)
    other, same = found.needs
    assert (other.arm, other.kind, other.measured) == ("other", "box", 3)
    assert other.sd == pytest.approx(sd)
    assert other.seeds == seeds_needed(0.01, sd)
    assert power(0.01, sd, other.seeds) >= 0.8 > power(0.01, sd, other.seeds - 1)
    assert (same.sd, same.seeds) == (None, None)  # all differences are equal
    assert (found.seconds, found.pending) == (90.0, 2)
    fewer = plan(INFO, records(differences), Path("from"), 0.03, pending).needs[0].seeds
    assert fewer is not None
    assert fewer < other.seeds


def test_one_seed_does_not_tell_the_spread() -> None:
    found = plan(INFO, records({0: 0.02}), Path("from"), 0.01, [])
    assert [need.sd for need in found.needs] == [None, None]
    table, _, *sentences = render(found, INFO, 0.01)
    assert isinstance(table, Table)
    assert table.row_count == 2
    assert sentences[0] == "Where the spread is not known, two pilot seeds tell it: study.seeds=[0,1]."


def test_a_difference_that_no_number_of_seeds_shows() -> None:
    info = replace(INFO, arms={name: INFO.arms[name] for name in ("base", "other")})
    found = plan(info, records({0: 0.1, 1: -0.1}), Path("from"), 0.001, [])
    assert (found.needs[0].seeds, found.needs[0].measured) == (None, 2)
    assert render(found, info, 0.001)[2:4] == [
        "The true spread may be 0.45 to 32 times that of 2 seeds (95 %); the seeds needed grow with its square.",
        "Give a larger difference: 0.1 AP takes more than 10,000 seeds in some rows.",
    ]


def test_hours_of_the_runs_that_it_takes() -> None:
    info = replace(INFO, arms={name: INFO.arms[name] for name in ("base", "other")})
    found = plan(
        info, records({0: 0.02, 1: 0.05, 2: 0.035}, seconds=720.0), Path("from"), 0.05, [Job("other", "d", 3, ())] * 5
    )
    seeds = found.needs[0].seeds
    assert render(found, info, 0.05)[2:] == [
        "The true spread may be 0.52 to 6.3 times that of 3 seeds (95 %); the seeds needed grow with its square.",
        f"{seeds} seeds show 5 AP in each row; the study has 3.",
        "The runs that are to be done: 5, 1.0 hours one after the other.",
        f"All runs with {seeds} seeds: {2 * seeds}, {2 * seeds * 0.2:.1f} hours one after the other.",
        "A run took 12.0 minutes where it was measured.",
    ]


def test_records_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_records(INFO, Path("s"), None) == []
    write_records(RESULTS / "s", records({0: 0.1}))
    assert find_records(INFO, Path("s"), None) == [RESULTS / "s"]
    write_records(Path("s/records"), records({0: 0.1}))
    assert find_records(INFO, Path("s"), None) == [Path("s/records")]
    assert find_records(INFO, Path("s"), [str(RESULTS / "s")]) == [RESULTS / "s"]
    with pytest.raises(ValueError, match=r"plan_from: nowhere holds no study\.yaml"):
        find_records(INFO, Path("s"), ["nowhere"])
