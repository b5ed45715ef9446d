"""The description of a study: question, arms, datasets, seeds and published numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from detector.evaluation.records import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What is measured of a run: every kind of prediction that COCO's AP is defined for, boxes first."""
MAIN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "mAP")
"""The metrics of COCO and VOC shown in tables."""


@dataclass(frozen=True)
class Arm:
    """One arm of a study: a set of overrides that is compared with the others."""

    label: str
    """name in the report"""
    overrides: list[str]
    """of `configs/train.yaml`"""
    stride: int | None = None
    """of the feature map that RoIs are pooled from, in pixels, where a study varies it"""


@dataclass(frozen=True)
class PublishedRow:
    """Published metrics of one arm."""

    arm: str
    dataset: str
    kind: str
    """one of `KINDS`"""
    values: dict[str, float]
    """in %, by metric, such as AP or mAP"""
    source: str
    """paper and table"""


@dataclass(frozen=True)
class StudyInfo:
    """A study's description, without the overrides of its datasets."""

    name: str
    title: str
    question: str
    baseline: str
    """name of the arm that the others are compared with"""
    arms: dict[str, Arm]
    datasets: list[str]
    seeds: list[int]
    published: list[PublishedRow] = field(default_factory=list)
    size_bins: dict[str, list[float]] = field(default_factory=dict)
    """by measured dataset: two sides in pixels, whose squares separate small, medium and large objects"""


def parse_description(content: Mapping[str, Any], where: str) -> StudyInfo:
    """Parse a study's description from plain data.

    Args:
        content: as `as_plain` returns it; other keys are ignored.
        where: the file it comes from, for messages.

    Raises:
        ValueError: a key is missing or has a wrong value.
    """
    required = ["name", "title", "question", "baseline", "arms", "datasets", "seeds"]
    if missing := [name for name in required if name not in content]:
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
    """Check that the names of a study, its arms and its datasets can be names of files and folders.

    Raises:
        ValueError: naming it.
    """
    for name in (info.name, *info.arms, *info.datasets):
        if not re.fullmatch(r"\w[\w. -]*", name):
            raise ValueError(
                f"{where}: {name!r} is used as a file name: use letters, digits, _ . - and blanks, beginning with a "
                "letter, digit or _"
            )


def _published(row: Any, where: str) -> PublishedRow:
    keys = {f.name for f in fields(PublishedRow)}
    if not isinstance(row, dict) or set(row) != keys or row["kind"] not in KINDS:
        kinds = " or ".join(KINDS)
        raise ValueError(f"{where}: published must have {', '.join(sorted(keys))}, of kind {kinds}, not {row!r}")
    values = row["values"]
    fits = isinstance(values, dict) and bool(values) and set(values) <= set(MAIN)
    if not fits or not all(isinstance(value, int | float) and 0 <= value <= 100 for value in values.values()):
        raise ValueError(f"{where}: published: values must be of {', '.join(MAIN)}, in %, not {values}")
    return PublishedRow(**row)


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


def as_plain(study: StudyInfo) -> dict[str, Any]:
    """Return a description as plain data, which `parse_description` reads."""
    content = asdict(study)
    for arm in content["arms"].values():
        if arm["stride"] is None:
            del arm["stride"]
    return {key: value for key, value in content.items() if value or key not in ("published", "size_bins")}
