"""The records of a study: a folder of CSV files, from which its report is made.

The files are UTF-8 in long form with a header; AP and IoU are fractions in 0..1. An empty cell is an absent number.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from detector.ablation.description import StudyInfo, as_plain, check_names, parse_description


@dataclass(frozen=True)
class Run:
    """One finished run."""

    study: str
    arm: str
    dataset: str
    seed: int
    command: str
    commit: str
    date: str
    seconds: float
    steps: int | None
    """of the training; None of predictions that another program has made"""
    images: int
    """number of validation images"""
    params: int | None
    """number of parameters; likewise"""


@dataclass(frozen=True)
class MetricRow:
    """One metric of one run, with the 95 % interval of the image bootstrap where there is one."""

    study: str
    arm: str
    dataset: str
    seed: int
    kind: str
    """box or mask, or the first part of the name of another metric (`radius` of `radius/error`)"""
    metric: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Gain:
    """One metric's difference from the baseline with the same dataset and seed, with the paired bootstrap interval."""

    study: str
    arm: str
    baseline: str
    dataset: str
    seed: int
    kind: str
    metric: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CurvePoint:
    """One point of a run's training curves."""

    study: str
    arm: str
    dataset: str
    seed: int
    step: int
    name: str
    value: float


@dataclass(frozen=True)
class Records:
    """All records of a study."""

    study: StudyInfo
    runs: list[Run] = field(default_factory=list)
    metrics: list[MetricRow] = field(default_factory=list)
    differences: list[Gain] = field(default_factory=list)
    curves: list[CurvePoint] = field(default_factory=list)


Row = TypeVar("Row", Run, MetricRow, Gain, CurvePoint)
STUDY, RUNS, METRICS = "study.yaml", "runs.csv", "metrics.csv"
DIFFERENCES, CURVES = "differences.csv", "curves.csv"
ROUNDING = 1e-9


def read_records(folder: str | Path) -> Records:
    """Read the records in a folder: `study.yaml`, `runs.csv`, `metrics.csv`, `differences.csv`, `curves.csv`.

    Raises:
        ValueError: a file is missing or has another header, a cell has the wrong type, a number lies outside of its
            metric's range, a row names another study, an unknown arm, dataset or seed or a run that `runs.csv` lacks,
            or two rows have the same key.
    """
    folder = Path(folder)
    study = read_description(folder / STUDY)
    records = Records(
        study,
        _rows(folder / RUNS, Run),
        _rows(folder / METRICS, MetricRow),
        _rows(folder / DIFFERENCES, Gain),
        _rows(folder / CURVES, CurvePoint),
    )
    _check(records, folder)
    return records


def write_records(folder: str | Path, records: Records) -> None:
    """Write records into a folder, which is made if need be; each file is replaced atomically.

    Raises:
        ValueError: `read_records` would refuse them.
    """
    folder = Path(folder)
    check_names(records.study, str(folder / STUDY))
    _check(records, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / STUDY, OmegaConf.to_yaml(OmegaConf.create(as_plain(records.study))))
    _write(folder / RUNS, Run, records.runs)
    _write(folder / METRICS, MetricRow, records.metrics)
    _write(folder / DIFFERENCES, Gain, records.differences)
    _write(folder / CURVES, CurvePoint, records.curves)


def read_description(path: str | Path) -> StudyInfo:
    """Read a study's description (`study.yaml` of its records); unknown keys are ignored.

    Raises:
        ValueError: the file is missing or is no YAML, or a key is missing or has a wrong value.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; records are made by scripts/ablate.py")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))  # unresolved: ${...} belong to the runs
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold keys and values, not {type(content).__name__}")
    return parse_description(content, str(path))


def _rows(path: Path, row: type[Row]) -> list[Row]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; records are made by scripts/ablate.py")
    kinds = get_type_hints(row)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if header != list(kinds):
                raise ValueError(f"{path}: the header must be {','.join(kinds)}, but is {','.join(header)}")
            return [_parse(cells, row, kinds, f"{path}, line {lines.line_num}") for cells in lines if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not readable as CSV in UTF-8: {error}") from error


def _parse(cells: list[str], row: type[Row], kinds: dict[str, Any], where: str) -> Row:
    if len(cells) != len(kinds):
        raise ValueError(f"{where}: {len(cells)} cells, but the header has {len(kinds)}")
    values = {
        name: _cell(cell, kind, f"{where}: {name}") for cell, (name, kind) in zip(cells, kinds.items(), strict=True)
    }
    return row(**values)


def _cell(cell: str, kind: Any, where: str) -> Any:
    if kind is str:
        return cell
    if isinstance(kind, UnionType) and not cell:  # float | None, int | None
        return None
    whole = kind in (int, int | None)
    try:
        value = int(cell) if whole else float(cell)
    except ValueError as error:
        raise ValueError(f"{where} must be a {'whole ' if whole else ''}number, not {cell!r}") from error
    if not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, not {cell!r}")
    return value


def _key(row: Run | MetricRow | Gain | CurvePoint) -> tuple[Any, ...]:
    """Return what identifies a row; a second row with the same key would be counted twice."""
    place = row.arm, row.dataset, row.seed
    if isinstance(row, Run):
        return place
    return (*place, row.step, row.name) if isinstance(row, CurvePoint) else (*place, row.kind, row.metric)


def _check(records: Records, folder: Path) -> None:
    study = records.study
    parts: dict[str, Sequence[Run | MetricRow | Gain | CurvePoint]] = {
        RUNS: records.runs,
        METRICS: records.metrics,
        DIFFERENCES: records.differences,
        CURVES: records.curves,
    }
    runs = {_key(run) for run in records.runs}
    for name, rows in parts.items():
        seen = set()
        for row in rows:
            for what, value, known in (
                ("study", row.study, [study.name]),
                ("arm", row.arm, list(study.arms)),
                ("dataset", row.dataset, study.datasets),
                ("seed", row.seed, study.seeds),
            ):
                if value not in known:
                    raise ValueError(f"{folder / name}: {what} {value!r} is not in {STUDY}, which has {known}")
            if (row.arm, row.dataset, row.seed) not in runs:
                raise ValueError(f"{folder / name}: {row.arm}, {row.dataset}, seed {row.seed}: no such run in {RUNS}")
            if _key(row) in seen:
                raise ValueError(f"{folder / name}: two rows with the key {_key(row)}; remove one")
            seen.add(_key(row))
            _check_numbers(row, str(folder / name))


def _check_numbers(row: Run | MetricRow | Gain | CurvePoint, where: str) -> None:
    if isinstance(row, Run):
        return
    ends = [] if isinstance(row, CurvePoint) else [end for end in (row.low, row.high) if end is not None]
    if not all(math.isfinite(number) for number in (row.value, *ends)):
        raise ValueError(f"{where}: {_key(row)} must have finite numbers, not {(row.value, *ends)}")
    least = {MetricRow: 0.0, Gain: -1.0}.get(type(row), -math.inf)
    most = math.inf if isinstance(row, CurvePoint) else 1.0
    if not all(least - ROUNDING <= number <= most + ROUNDING for number in (row.value, *ends)):
        raise ValueError(f"{where}: {_key(row)} must be a fraction in {least:g}..1, not {(row.value, *ends)}")
    if ends != sorted(ends):
        raise ValueError(f"{where}: {_key(row)} has an interval that ends before it begins: {ends}")


def _write(path: Path, row: type[Row], rows: Sequence[Row]) -> None:
    lines = [[f.name for f in fields(row)], *(list(asdict(r).values()) for r in rows)]
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    temporary.replace(path)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
