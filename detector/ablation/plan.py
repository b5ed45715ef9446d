"""Plan a study: how many seeds it takes to see a difference, and how long they take, from the records at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from detector.ablation.description import KINDS, StudyInfo
from detector.ablation.records import STUDY, Records
from detector.ablation.report.effects import Numbers
from detector.ablation.report.statistics import MOST, paired, seeds_needed, spread_bounds
from detector.ablation.study import Job

CHANCE = 0.8
"""The power of the paired t-test that is planned for."""
RESULTS = Path("data") / "results"
"""The folder of the records that are kept."""


@dataclass(frozen=True)
class Need:
    """How many seeds it takes to see a difference between an arm and the baseline."""

    arm: str
    dataset: str
    kind: str
    sd: float | None
    """of the differences of AP paired by seed, a fraction; None with one seed, or where all are equal"""
    measured: int
    """seeds that both arms have"""
    seeds: int | None
    """for the power `CHANCE`; None if the spread is not known, or if even `MOST` are too few"""


@dataclass(frozen=True)
class Plan:
    """What a study takes."""

    source: Path
    """the records that it is planned from"""
    needs: list[Need]
    seconds: float | None
    """of a run, the mean of those that were measured; None if none was"""
    pending: int
    """runs of the study that are not done"""


def find_records(study: StudyInfo, folder: Path, given: Sequence[str] | None) -> list[Path]:
    """List the folders of records to plan from: those given, else the study's own, else those that are kept of it.

    Args:
        study: the study.
        folder: its folder, with `records/` if it has begun.
        given: folders of records, also of another study with arms of the same names; None: look for them.

    Raises:
        ValueError: a given folder has no records.
    """
    if given is not None:
        if wrong := [name for name in given if not (Path(name) / STUDY).is_file()]:
            raise ValueError(f"plan_from: {', '.join(wrong)} holds no {STUDY}; give folders of records")
        return [Path(name) for name in given]
    return [path for path in (folder / "records", RESULTS / study.name) if (path / STUDY).is_file()][:1]


def plan(study: StudyInfo, records: Records, source: Path, difference: float, pending: Sequence[Job]) -> Plan:
    """Compute the seeds that it takes to see a difference of AP between each arm and the baseline, and a run's time.

    Args:
        study: what is planned; arms and datasets that the records lack are left out.
        records: measured runs.
        source: the folder that they come from.
        difference: of AP, a fraction above 0.
        pending: the runs that are not done.
    """
    numbers = Numbers(records)
    needs = []
    for dataset in study.datasets:
        for arm in (name for name in study.arms if name != study.baseline):
            for kind in KINDS:
                values = (numbers.values(name, dataset, kind, "AP") for name in (arm, study.baseline))
                first, second = values
                if not set(first) & set(second):
                    continue
                found = paired(first, second)
                sd = found.sd or None
                seeds = None if sd is None else seeds_needed(difference, sd, CHANCE)
                needs.append(Need(arm, dataset, kind, sd, found.n, seeds))
    times = [run.seconds for run in records.runs if run.arm in study.arms and run.dataset in study.datasets]
    return Plan(source, needs, sum(times) / len(times) if times else None, len(pending))


def render(found: Plan, study: StudyInfo, difference: float) -> list[Table | str]:
    """Render a plan: a table of the seeds by arm, then sentences on the most of them and on the hours."""
    if not found.needs:
        return [f"{found.source} has no seed of the baseline and another arm of study {study.name}."]
    table = Table(title=f"Seeds to see {100 * difference:g} AP, from {found.source}", title_justify="left")
    for heading in ("dataset", "arm", "kind"):
        table.add_column(heading, overflow="fold")
    for heading in ("measured", "spread", "needed"):
        table.add_column(heading, justify="right")
    for need in found.needs:
        spread = "not known" if need.sd is None else f"{100 * need.sd:.2f} AP"
        seeds = "-" if need.sd is None else f"more than {MOST:,}" if need.seeds is None else f"{max(need.seeds, 2):,}"
        table.add_row(need.dataset, need.arm, need.kind, str(need.measured), spread, seeds)
    lines: list[Table | str] = [
        table,
        "Of the seeds measured, the standard deviation of the difference of AP from the baseline's, and the seeds "
        f"needed for a power of {100 * CHANCE:.0f} %.",
    ]
    if fewest := min((need.measured for need in found.needs if need.sd is not None), default=0):
        low, high = spread_bounds(fewest)
        lines.append(
            f"The true spread may be {low:.2g} to {high:.2g} times that of {fewest} seeds (95 %); the seeds "
            "needed grow with its square."
        )
    known = [need.seeds for need in found.needs if need.seeds is not None]
    runs = {"The runs that are to be done": found.pending}
    if len(known) == len(found.needs):
        most = max(2, *known)
        lines.append(f"{most} seeds show {100 * difference:g} AP in each row; the study has {len(study.seeds)}.")
        runs[f"All runs with {most} seeds"] = most * len(study.arms) * len(study.datasets)
    elif any(need.sd is None for need in found.needs):
        lines.append("Where the spread is not known, two pilot seeds tell it: study.seeds=[0,1].")
    else:
        lines.append(f"Give a larger difference: {100 * difference:g} AP takes more than {MOST:,} seeds in some rows.")
    if found.seconds is not None:
        for what, number in runs.items():
            hours = number * found.seconds / 3600
            lines.append(f"{what}: {number}, {hours:.1f} hours one after the other.")
        lines.append(f"A run took {found.seconds / 60:.1f} minutes where it was measured.")
    return lines
