"""From a study's description to the runs that it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detector.ablation import contrasts
from detector.ablation.description import Arm, StudyInfo, parse_study
from detector.ablation.records import identity
from detector.config.compose import override
from detector.training.folder import COMMAND, command_of, finished, train_command


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    arm: str
    dataset: str
    seed: int
    overrides: tuple[str, ...]
    """of `train.py`'s configuration, the seed's among them"""

    @property
    def folder(self) -> str:
        """The run's place among the study's runs."""
        return f"{self.arm}/{self.dataset}/{self.seed}"

    @property
    def command(self) -> str:
        """What makes the same run again."""
        return train_command(self.overrides)


@dataclass(frozen=True)
class Study:
    """Arms × datasets × seeds, with what each choice overrides."""

    info: StudyInfo
    datasets: Mapping[str, Sequence[str]]
    """the overrides of each dataset"""
    overrides: Sequence[str] = ()
    """of every run"""
    proposals: Mapping[str, str] = field(default_factory=dict)
    """for arms with given proposals: the arm whose RPN gives them, on the same dataset and with the same seed"""
    of_data: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """further overrides of every run on a dataset, which come after the study's"""

    def on(self, overrides: Sequence[str]) -> tuple[Study, list[str], str | None]:
        """The study with the dataset that `dataset=` among overrides chooses, in place of running on its own.

        A setting (`experiment=`) that all of the study's datasets bring is the new one's, too.

        Args:
            overrides: of every run.

        Returns:
            the study, the overrides without those of the dataset, and its name: `dataset.name`, or the choice itself;
            None where no override chooses one.

        Raises:
            ValueError: the name cannot be a folder's, or the study's datasets bring different settings.
        """
        chosen = [o for o in overrides if _key(o) == "dataset"]
        if not chosen:
            return self, list(overrides), None
        own = [o for o in overrides if _key(o).startswith("dataset.")]
        names = [o for o in own if _key(o) == "dataset.name"] or chosen
        name = names[-1].partition("=")[2]
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{names[-1]}: its runs need a folder's name; give dataset.name=NAME")
        settings = {tuple(o for o in data if _key(o) == "experiment") for data in self.datasets.values()}
        if len(settings) > 1 and not any(_key(o) == "experiment" for o in overrides):
            known = ", ".join(sorted(o for setting in settings for o in setting))
            raise ValueError(
                f"{chosen[-1]}: the datasets of study {self.info.name} bring settings of their own ({known}); give "
                "experiment=... too, or take a study whose datasets bring none, such as pooler"
            )
        setting = settings.pop() if len(settings) == 1 else ()
        info = replace(self.info, datasets=list(dict.fromkeys([*self.info.datasets, name])))
        datasets, of_data = {**self.datasets, name: [*setting, *chosen]}, {**self.of_data, name: own}
        left = [o for o in overrides if o not in chosen and o not in own]
        return replace(self, info=info, datasets=datasets, of_data=of_data), left, name

    def jobs(self, runs: Path, more: Sequence[str] = ()) -> list[Job]:
        """All runs, a seed after the other, so that a sweep that is stopped leaves whole comparisons.

        Args:
            runs: the folder where their folders lie.
            more: further overrides of every run; they have the last word. `experiment=` adds to the study's own.

        Raises:
            ValueError: they override what the arms differ in.
        """
        everyone = (*self.overrides, *(o for data in self.of_data.values() for o in data), *more)
        for name, own in self._choices().items():
            if clash := [o for o in everyone if _key(o) in own]:
                raise ValueError(f"{' '.join(clash)}: arm {name!r} of the study chooses that; leave it out")
        if seeds := [o for o in everyone if _key(o) == "seed"]:
            raise ValueError(f"{' '.join(seeds)}: a study has seeds of its own; give study.seeds=[...]")
        return [
            Job(arm, dataset, seed, tuple(self._overrides(arm, dataset, seed, runs, more)))
            for seed in self.info.seeds
            for dataset in self.info.datasets
            for arm in self.info.arms
        ]

    def _choices(self) -> dict[str, set[str]]:
        """By arm the keys that it chooses, and those in which the variants of what it chooses differ from others'."""
        variants = {name: contrasts.settings(arm.overrides) for name, arm in self.info.arms.items()}
        chosen = {
            name: {_key(o) for o in arm.overrides}
            | {k for k, value in variants[name].items() if any(value != v.get(k, value) for v in variants.values())}
            for name, arm in self.info.arms.items()
        }
        return {name: keys - {"experiment"} for name, keys in chosen.items()}  # which others are added to

    def _overrides(self, arm: str, dataset: str, seed: int, runs: Path, more: Sequence[str]) -> Iterator[str]:
        chosen = [*self.datasets[dataset], *self.info.arms[arm].overrides, *self.overrides]
        yield from _join([*chosen, *self.of_data.get(dataset, []), *more], "experiment=")
        if arm in self.proposals:
            lender = runs / self.proposals[arm] / dataset / str(seed)
            yield override("proposals", lender / "checkpoints" / "last.ckpt")
        yield f"seed={seed}"

    def waves(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """The jobs in groups, each of which needs only the groups before it."""
        first = [job for job in jobs if job.arm not in self.proposals]
        return [wave for wave in (first, [job for job in jobs if job.arm in self.proposals]) if wave]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0].split("@")[0]


def missing(jobs: Sequence[Job], runs: Path) -> list[Job]:
    """Those that are not done, or were done otherwise."""
    return [job for job in jobs if not _done(job, runs / job.folder)]


def _done(job: Job, folder: Path) -> bool:
    return _whole(folder) and _made_by(folder) == identity(job.command)


def sign(job: Job, folder: Path) -> None:
    """Note in a run's folder that the job's command makes what is in it."""
    (folder / COMMAND).write_text(job.command + "\n", encoding="utf-8")


def _whole(folder: Path) -> bool:
    """Whether a run is finished, and was measured."""
    return finished(folder) and any(folder.glob("measured-*.npz"))


def _made_by(folder: Path) -> frozenset[str]:
    made = command_of(folder)
    return frozenset() if made is None else identity(made)


def made_elsewhere(jobs: Sequence[Job], studies: Sequence[Path]) -> dict[Job, Path]:
    """The folders of finished runs of other studies that the same command, in whatever order, has made.

    Args:
        jobs: of which runs are looked for.
        studies: folders of other studies, such as `multirun/pooler`.

    Raises:
        ValueError: a folder is not a study's.
    """
    if wrong := [str(folder) for folder in studies if not (folder / "runs").is_dir()]:
        raise ValueError(f"reuse: {', '.join(wrong)} holds no runs/; give folders of studies, such as multirun/pooler")
    runs = [file.parent for folder in studies for file in sorted(folder.glob(f"runs/*/*/*/{COMMAND}"))]
    whole = [run for run in runs if run.name.isdigit() and _whole(run)]
    found = {_made_by(run): run for run in reversed(whole)}
    return {job: found[asked] for job in jobs if (asked := identity(job.command)) in found}


def read(content: Mapping[str, Any], where: str = "study") -> Study:
    """A study from what a file of `configs/study/` holds.

    Raises:
        ValueError: a key is missing, unknown or not what it should be.
    """
    known = {"name", "title", "question", "baseline", "arms", "datasets", "seeds", "overrides", "published"}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"{where}: unknown keys {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    datasets = content.get("datasets")
    if not isinstance(datasets, Mapping) or not datasets:
        raise ValueError(f"{where}.datasets must be names with lists of overrides, not {datasets!r}")
    info = parse_study({**content, "datasets": list(datasets)}, where)
    for name, arm in content["arms"].items():
        if unknown := sorted(set(arm) - {"label", "overrides", "stride", "proposals"}):
            raise ValueError(f"{where}: arm {name!r}: unknown keys {', '.join(map(str, unknown))}")
    for names in (list(info.arms), info.datasets):
        if twice := [name for name in names if [other.lower() for other in names].count(name.lower()) > 1]:
            raise ValueError(f"{where}: {' and '.join(twice)} are one folder where disks do not tell letters' case")
    lists = {f"datasets.{name}": overrides for name, overrides in datasets.items()}
    lists |= {f"arms.{name}.overrides": arm["overrides"] for name, arm in content["arms"].items()}
    for name, overrides in [*lists.items(), ("overrides", content.get("overrides"))]:
        if not isinstance(overrides, list) or not all(isinstance(o, str) and o for o in overrides):
            raise ValueError(f"{where}: {name} must be a list of overrides such as [key=value], not {overrides!r}")
    if unnamed := [name for name in (*datasets, *content["arms"], content["name"]) if not isinstance(name, str)]:
        raise ValueError(f"{where}: names must be text, in quotes if need be, not {unnamed}")
    seeds = content["seeds"]
    if not seeds or len(set(seeds)) < len(seeds) or any(isinstance(s, bool) or s < 0 for s in seeds):
        raise ValueError(f"{where}.seeds must be whole numbers from 0 on, each once, not {seeds}")
    proposals = {name: str(arm["proposals"]) for name, arm in content["arms"].items() if arm.get("proposals")}
    for name, source in proposals.items():
        if source not in info.arms or source in proposals:
            raise ValueError(f"{where}: arm {name!r} takes proposals of {source!r}, which is no arm with an RPN")
    return Study(info, datasets, content["overrides"], proposals)


def only(study: Study, arms: Sequence[str] | None, datasets: Sequence[str] | None) -> Study:
    """The study with these arms and datasets alone; None: with all.

    Raises:
        ValueError: it has no such arm or dataset, or its baseline would be missing.
    """
    chosen: dict[str, Arm] = _chosen("arms", study.info.arms, arms)
    kept = _chosen("datasets", study.datasets, datasets)
    if study.info.baseline not in chosen:
        raise ValueError(f"arms={list(chosen)}: the baseline, {study.info.baseline}, must be among them")
    if lost := sorted({source for arm, source in study.proposals.items() if arm in chosen} - set(chosen)):
        raise ValueError(f"arms={list(chosen)}: {', '.join(lost)} must be among them, whose proposals they take")
    published = [row for row in study.info.published if row.arm in chosen and row.dataset in kept]
    info = replace(study.info, arms=chosen, datasets=list(kept), published=published)
    proposals = {arm: source for arm, source in study.proposals.items() if arm in chosen}
    return replace(study, info=info, datasets=kept, proposals=proposals)


def _chosen(what: str, known: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    if names is None:
        return dict(known)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{what}={list(names)}: the study has no {', '.join(unknown)}; it has {', '.join(known)}")
    return {name: known[name] for name in names}


def _join(overrides: Sequence[str], key: str) -> list[str]:
    """Where several overrides choose `key`, one list of all that they choose, of which the last has the last word."""
    chosen = [name for o in overrides if o.startswith(key) for name in o.removeprefix(key).strip("[]").split(",")]
    if len(chosen) < 2:
        return list(overrides)
    return [f"{key}[{','.join(chosen)}]", *(o for o in overrides if not o.startswith(key))]
