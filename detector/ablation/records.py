"""What is kept of a study: one folder of CSV files, from which the report can be made again at any time.

All are UTF-8 with a header and in long form; APs and IoUs are fractions in 0..1. An empty cell is a number that is
absent.
"""

from __future__ import annotations

import csv
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError


@dataclass(frozen=True)
class Arm:
    """One side of a study."""

    label: str
    """as the report names it"""
    overrides: list[str]
    """of `train.py`'s configuration"""
    stride: int | None = None
    """of the map that is pooled from, in pixels, where a study varies it"""


@dataclass(frozen=True)
class PublishedRow:
    """What a paper gives for one arm."""

    arm: str
    dataset: str
    kind: str
    """box or mask"""
    values: dict[str, float]
    """in %, by metric, such as AP or mAP"""
    source: str
    """paper and table"""


@dataclass(frozen=True)
class StudyInfo:
    """What was asked."""

    name: str
    title: str
    question: str
    baseline: str
    """the arm that the others are compared with"""
    arms: dict[str, Arm]
    datasets: list[str]
    seeds: list[int]
    published: list[PublishedRow] = field(default_factory=list)
    size_bins: dict[str, list[float]] = field(default_factory=dict)
    """by dataset that was measured: the sides in pixels whose squares part small, medium and large"""


@dataclass(frozen=True)
class Run:
    """One run that is done."""

    study: str
    arm: str
    dataset: str
    seed: int
    command: str
    commit: str
    date: str
    seconds: float
    steps: int
    images: int
    """validation images that it was measured on"""
    params: int


@dataclass(frozen=True)
class Metric:
    """One number of one run, with the image bootstrap's 95 % interval where there is one."""

    study: str
    arm: str
    dataset: str
    seed: int
    kind: str
    """box or mask"""
    metric: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Gain:
    """An arm's number less the baseline's of the same dataset and seed, with the paired image bootstrap's interval."""

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
    """One value of a run's training curves."""

    study: str
    arm: str
    dataset: str
    seed: int
    step: int
    name: str
    value: float


@dataclass(frozen=True)
class Records:
    """All that is kept of a study."""

    study: StudyInfo
    runs: list[Run] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    differences: list[Gain] = field(default_factory=list)
    curves: list[CurvePoint] = field(default_factory=list)


def identity(command: str) -> frozenset[str]:
    """What a command of a run chooses, in whatever order; runs with the same are the same run.

    Of overrides of one key the last counts, which has Hydra's last word. Where one brings several keys (`{...}`), the
    order may have a meaning, and the command is the same as itself alone.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # no command that a shell would read
        words = ["{", command]
    if any("{" in word for word in words):
        return frozenset([command.strip()])
    return frozenset({word.partition("=")[0].lstrip("+~"): word for word in words}.values())


MAIN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "mAP")
"""The metrics of tables: COCO's, and VOC 2007's mAP where it was measured."""
Row = TypeVar("Row", Run, Metric, Gain, CurvePoint)
STUDY, RUNS, METRICS = "study.yaml", "runs.csv", "metrics.csv"
DIFFERENCES, CURVES = "differences.csv", "curves.csv"
ROUNDING = 1e-9


def read(folder: str | Path) -> Records:
    """The records that lie in a folder: `study.yaml`, `runs.csv`, `metrics.csv`, `differences.csv`, `curves.csv`.

    Raises:
        ValueError: a file is missing or has another header, a cell is not what its column holds, a number is none that
            a metric can have, a row speaks of another study, of an unknown arm, dataset or seed or of a run that
            `runs.csv` lacks, or two rows are about the same thing.
    """
    folder = Path(folder)
    study = read_study(folder / STUDY)
    records = Records(
        study,
        _rows(folder / RUNS, Run),
        _rows(folder / METRICS, Metric),
        _rows(folder / DIFFERENCES, Gain),
        _rows(folder / CURVES, CurvePoint),
    )
    _check(records, folder)
    return records


def write(folder: str | Path, records: Records) -> None:
    """Write records as `read` reads them; the folder is made, and each file replaced in one stroke.

    Raises:
        ValueError: the records contradict themselves, as `read` would find.
    """
    folder = Path(folder)
    _check(records, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / STUDY, OmegaConf.to_yaml(OmegaConf.create(_plain(records.study))))
    _write(folder / RUNS, Run, records.runs)
    _write(folder / METRICS, Metric, records.metrics)
    _write(folder / DIFFERENCES, Gain, records.differences)
    _write(folder / CURVES, CurvePoint, records.curves)


def read_study(path: str | Path) -> StudyInfo:
    """A study's description. Keys that are not known here are left alone.

    Raises:
        ValueError: the file is missing, is no YAML, or a key is missing or is not what it should be.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; records are made by scripts/ablate.py")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))  # ${...} are the runs' own
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold keys and values, not {type(content).__name__}")
    return parse_study(content, str(path))


def parse_study(content: Mapping[str, Any], where: str) -> StudyInfo:
    """A study's description from plain data; `where` it came from is said in errors.

    Raises:
        ValueError: a key is missing or is not what it should be.
    """
    wanted = ["name", "title", "question", "baseline", "arms", "datasets", "seeds"]
    if missing := [name for name in wanted if name not in content]:
        raise ValueError(f"{where}: lacks {', '.join(missing)}")
    arms = content["arms"]
    if not isinstance(arms, dict) or not arms:
        raise ValueError(f"{where}: arms must be names with label and overrides, not {arms!r}")
    texts = {name: str(content[name]) for name in ("name", "title", "question", "baseline")}
    datasets, seeds = (_list(content[name], f"{where}: {name}") for name in ("datasets", "seeds"))
    if not all(isinstance(seed, int) for seed in seeds):
        raise ValueError(f"{where}: seeds must be whole numbers, not {seeds}")
    info = StudyInfo(
        arms={str(name): _arm(arm, f"{where}: arm {name!r}") for name, arm in arms.items()},
        datasets=[str(dataset) for dataset in datasets],
        seeds=seeds,
        published=[_published(row, where) for row in _list(content.get("published", []), f"{where}: published")],
        size_bins=_size_bins(content.get("size_bins", {}), where),
        **texts,
    )
    check_names(info, where)
    if info.baseline not in info.arms:
        raise ValueError(f"{where}: baseline {info.baseline!r} is none of the arms {', '.join(info.arms)}")
    for row in info.published:
        if row.arm not in info.arms or row.dataset not in info.datasets:
            raise ValueError(f"{where}: published: there is no arm {row.arm!r} on a dataset {row.dataset!r}")
    return info


def check_names(info: StudyInfo, where: str) -> None:
    """Refuse names of a study, its arms and datasets that could not be those of files and folders.

    Raises:
        ValueError: naming it.
    """
    for name in (info.name, *info.arms, *info.datasets):
        if not re.fullmatch(r"\w[\w. -]*", name):
            raise ValueError(
                f"{where}: {name!r} is to be the name of files and folders: letters, digits, and . - between them"
            )


def _published(row: Any, where: str) -> PublishedRow:
    keys = {"arm", "dataset", "kind", "source"}
    if not isinstance(row, dict) or not keys <= set(row) or row["kind"] not in ("box", "mask"):
        raise ValueError(
            f"{where}: published must have arm, dataset, kind (box or mask), source and metrics, not {row!r}"
        )
    values = row.get("values", {name: value for name, value in row.items() if name not in keys})
    fits = isinstance(values, dict) and bool(values) and set(values) <= set(MAIN)
    if not fits or not all(isinstance(value, int | float) and 0 <= value <= 100 for value in values.values()):
        raise ValueError(f"{where}: published: metrics must be some of {', '.join(MAIN)}, in %, not {values}")
    return PublishedRow(str(row["arm"]), str(row["dataset"]), row["kind"], values, str(row["source"]))


def _size_bins(bins: Any, where: str) -> dict[str, list[float]]:
    if not isinstance(bins, dict) or not all(isinstance(pair, list) and len(pair) == 2 for pair in bins.values()):
        raise ValueError(f"{where}: size_bins must be two sides for each dataset, not {bins!r}")
    if not all(isinstance(side, int | float) for pair in bins.values() for side in pair):
        raise ValueError(f"{where}: size_bins must be numbers of pixels, not {bins!r}")
    return {str(name): [float(side) for side in pair] for name, pair in bins.items()}


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, not {value!r}")
    return value


def _arm(arm: Any, where: str) -> Arm:
    if not isinstance(arm, dict) or not {"label", "overrides"} <= set(arm):
        raise ValueError(f"{where} must have label and overrides, not {arm!r}")
    stride = arm.get("stride")
    if stride is not None and (isinstance(stride, bool) or not isinstance(stride, int) or stride < 1):
        raise ValueError(f"{where}: stride must be a whole number of pixels, not {stride!r}")
    if isinstance(arm["label"], bool) or not isinstance(arm["label"], str | int | float):
        raise ValueError(f"{where}: label must be text, not {arm['label']!r}")
    return Arm(str(arm["label"]), [str(o) for o in _list(arm["overrides"], f"{where}: overrides")], stride)


def _plain(study: StudyInfo) -> dict[str, Any]:
    content = asdict(study)
    for arm in content["arms"].values():
        if arm["stride"] is None:
            del arm["stride"]
    return {key: value for key, value in content.items() if value or key not in ("published", "size_bins")}


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
    if isinstance(kind, UnionType) and not cell:  # float | None
        return None
    try:
        value = int(cell) if kind is int else float(cell)
    except ValueError as error:
        raise ValueError(f"{where} must be a {'whole ' if kind is int else ''}number, not {cell!r}") from error
    if not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, not {cell!r}")
    return value


def _key(row: Run | Metric | Gain | CurvePoint) -> tuple[Any, ...]:
    """What a row is about; a second row about the same would be counted twice."""
    place = row.arm, row.dataset, row.seed
    if isinstance(row, Run):
        return place
    return (*place, row.step, row.name) if isinstance(row, CurvePoint) else (*place, row.kind, row.metric)


def _check(records: Records, folder: Path) -> None:
    study = records.study
    check_names(study, str(folder / STUDY))
    parts: dict[str, Sequence[Run | Metric | Gain | CurvePoint]] = {
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
                raise ValueError(f"{folder / name}: two rows about {_key(row)}; leave one out")
            seen.add(_key(row))
            _check_numbers(row, str(folder / name))


def _check_numbers(row: Run | Metric | Gain | CurvePoint, where: str) -> None:
    if isinstance(row, Run):
        return
    ends = [] if isinstance(row, CurvePoint) else [end for end in (row.low, row.high) if end is not None]
    if not all(math.isfinite(number) for number in (row.value, *ends)):
        raise ValueError(f"{where}: {_key(row)} must have finite numbers, not {(row.value, *ends)}")
    least = {Metric: 0.0, Gain: -1.0}.get(type(row), -math.inf)
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
