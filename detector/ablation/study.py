"""Studies: arms × datasets × seeds, and the jobs (single runs) they consist of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detector.ablation import contrasts
from detector.ablation.commands import chosen_overrides
from detector.ablation.description import Arm, StudyInfo, parse_description
from detector.config.compose import override
from detector.config.conventions import STUDY_DEFAULTS
from detector.config.overrides import key_of
from detector.training.folder import COMMAND, command_of, is_finished, train_command


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    arm: str
    dataset: str
    seed: int
    overrides: tuple[str, ...]
    """of `configs/train.yaml`, with the seed's"""

    @property
    def folder(self) -> str:
        """The run's folder, relative to the study's `runs/`."""
        return f"{self.arm}/{self.dataset}/{self.seed}"

    @property
    def command(self) -> str:
        """The shell command that makes the same run."""
        return train_command(self.overrides)


@dataclass(frozen=True)
class Study:
    """A study with the overrides of its runs."""

    info: StudyInfo
    datasets: Mapping[str, Sequence[str]]
    """overrides of each dataset"""
    overrides: Sequence[str] = ()
    """of every run"""
    proposals: Mapping[str, str] = field(default_factory=dict)
    """by arm with given proposals: the arm whose RPN they come from, on the same dataset with the same seed"""
    of_data: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """overrides of each dataset that come after those of every run"""

    def with_dataset(self, overrides: Sequence[str]) -> tuple[Study, list[str], str | None]:
        """Add the dataset that `dataset=` on the command line chooses.

        An `experiment=` that all of the study's own datasets have is added to it as well.

        Args:
            overrides: of every run.

        Returns:
            the study, the overrides without those of the dataset, and the dataset's name (`dataset.name`, or else the
            choice itself); None if no override chooses a dataset.

        Raises:
            ValueError: the name is no folder's, or the study's own datasets have different experiments.
        """
        chosen = [o for o in overrides if key_of(o) == "dataset"]
        if not chosen:
            return self, list(overrides), None
        own = [o for o in overrides if key_of(o).startswith("dataset.")]
        names = [o for o in own if key_of(o) == "dataset.name"] or chosen
        name = names[-1].partition("=")[2]
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{names[-1]}: not usable as the name of a folder for its runs; give dataset.name=NAME")
        settings = {tuple(o for o in data if key_of(o) == "experiment") for data in self.datasets.values()}
        if len(settings) > 1 and not any(key_of(o) == "experiment" for o in overrides):
            known = ", ".join(sorted(o for setting in settings for o in setting))
            raise ValueError(
                f"{chosen[-1]}: the datasets of study {self.info.name} have different experiments ({known}); give "
                "experiment=... too, or take a study whose datasets have none, such as pooler"
            )
        setting = settings.pop() if len(settings) == 1 else ()
        info = replace(self.info, datasets=list(dict.fromkeys([*self.info.datasets, name])))
        datasets, of_data = {**self.datasets, name: [*setting, *chosen]}, {**self.of_data, name: own}
        left = [o for o in overrides if o not in chosen and o not in own]
        return replace(self, info=info, datasets=datasets, of_data=of_data), left, name

    def jobs(self, runs: Path, more: Sequence[str] = ()) -> list[Job]:
        """List all runs, one seed after the other, so that an interrupted sweep leaves complete comparisons.

        Args:
            runs: parent of the runs' folders.
            more: further overrides of every run, which come last. `experiment=` is added to the study's own.

        Raises:
            ValueError: they override keys in which the arms differ, or the seed.
        """
        everyone = (*self.overrides, *(o for data in self.of_data.values() for o in data), *more)
        for name, own in self._choices().items():
            if clash := [o for o in everyone if key_of(o) in own]:
                raise ValueError(f"{' '.join(clash)}: arm {name!r} of the study chooses that; leave it out")
        if seeds := [o for o in everyone if key_of(o) == "seed"]:
            raise ValueError(f"{' '.join(seeds)}: a study has its own seeds; give study.seeds=[...]")
        return [
            Job(arm, dataset, seed, tuple(self._overrides(arm, dataset, seed, runs, more)))
            for seed in self.info.seeds
            for dataset in self.info.datasets
            for arm in self.info.arms
        ]

    def _choices(self) -> dict[str, set[str]]:
        """Return by arm the keys that it overrides, and those in which its pooler's file differs from other arms'."""
        variants = {name: contrasts.settings_of(arm.overrides) for name, arm in self.info.arms.items()}
        chosen = {
            name: {key_of(o) for o in arm.overrides}
            | {k for k, value in variants[name].items() if any(value != v.get(k, value) for v in variants.values())}
            for name, arm in self.info.arms.items()
        }
        return {name: keys - {"experiment"} for name, keys in chosen.items()}  # experiments add up

    def _overrides(self, arm: str, dataset: str, seed: int, runs: Path, more: Sequence[str]) -> Iterator[str]:
        chosen = [*self.datasets[dataset], *self.info.arms[arm].overrides, *self.overrides]
        chosen = [f"experiment={STUDY_DEFAULTS}", *chosen, *self.of_data.get(dataset, []), *more]
        yield from _join(chosen, "experiment=")
        if arm in self.proposals:
            source = runs / self.proposals[arm] / dataset / str(seed)
            yield override("proposals", source / "checkpoints" / "last.ckpt")
        yield f"seed={seed}"

    def waves(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Group the jobs so that each group depends only on those before it."""
        first = [job for job in jobs if job.arm not in self.proposals]
        return [wave for wave in (first, [job for job in jobs if job.arm in self.proposals]) if wave]


def pending_jobs(jobs: Sequence[Job], runs: Path) -> list[Job]:
    """Return the jobs that are not done: unfinished, not measured, or made by another command."""
    return [job for job in jobs if not _is_done(job, runs / job.folder)]


def _is_done(job: Job, folder: Path) -> bool:
    return _is_measured(folder) and _overrides_of(folder) == chosen_overrides(job.command)


def write_command(job: Job, folder: Path) -> None:
    """Write a job's command into its run's folder, in place of an equivalent one such as that of `torchrun`."""
    (folder / COMMAND).write_text(job.command + "\n", encoding="utf-8")


def _is_measured(folder: Path) -> bool:
    """Whether a run is finished and measured."""
    return is_finished(folder) and any(folder.glob("measured-*.npz"))


def _overrides_of(folder: Path) -> frozenset[str]:
    command = command_of(folder)
    return frozenset() if command is None else chosen_overrides(command)


def find_reusable(jobs: Sequence[Job], studies: Sequence[Path]) -> dict[Job, Path]:
    """Find finished runs of other studies that were made by the same overrides, in any order.

    Args:
        jobs: the runs to look for.
        studies: folders of other studies, such as `multirun/pooler`.

    Returns:
        the folder of each run that was found.

    Raises:
        ValueError: a folder is not a study's.
    """
    if wrong := [str(folder) for folder in studies if not (folder / "runs").is_dir()]:
        raise ValueError(f"reuse: {', '.join(wrong)} holds no runs/; give folders of studies, such as multirun/pooler")
    runs = [file.parent for folder in studies for file in sorted(folder.glob(f"runs/*/*/*/{COMMAND}"))]
    measured = [run for run in runs if run.name.isdigit() and _is_measured(run)]
    found = {_overrides_of(run): run for run in reversed(measured)}
    return {job: found[chosen] for job in jobs if (chosen := chosen_overrides(job.command)) in found}


def parse_study(content: Mapping[str, Any], where: str = "study") -> Study:
    """Parse the content of a file of `configs/study/`.

    Raises:
        ValueError: a key is missing or unknown, or has a wrong value.
    """
    known = {"name", "title", "question", "baseline", "arms", "datasets", "seeds", "overrides", "published"}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"{where}: unknown keys {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    datasets = content.get("datasets")
    if not isinstance(datasets, Mapping) or not datasets:
        raise ValueError(f"{where}.datasets must be names with lists of overrides, not {datasets!r}")
    info = parse_description({**content, "datasets": list(datasets)}, where)
    for name, arm in content["arms"].items():
        if unknown := sorted(set(arm) - {"label", "overrides", "stride", "proposals"}):
            raise ValueError(f"{where}: arm {name!r}: unknown keys {', '.join(map(str, unknown))}")
    for names in (list(info.arms), info.datasets):
        if twice := [name for name in names if [other.lower() for other in names].count(name.lower()) > 1]:
            raise ValueError(f"{where}: {' and '.join(twice)} are one folder on disks that ignore the case of letters")
    lists = {f"datasets.{name}": overrides for name, overrides in datasets.items()}
    lists |= {f"arms.{name}.overrides": arm["overrides"] for name, arm in content["arms"].items()}
    for name, overrides in [*lists.items(), ("overrides", content.get("overrides"))]:
        if not isinstance(overrides, list) or not all(isinstance(o, str) and o for o in overrides):
            raise ValueError(f"{where}: {name} must be a list of overrides such as [key=value], not {overrides!r}")
    if unnamed := [name for name in (*datasets, *content["arms"], content["name"]) if not isinstance(name, str)]:
        raise ValueError(f"{where}: names must be text, in quotes if need be, not {unnamed}")
    seeds = content["seeds"]
    if not seeds or len(set(seeds)) < len(seeds) or any(isinstance(s, bool) or s < 0 for s in seeds):
        raise ValueError(f"{where}.seeds must be whole numbers >= 0, each once, not {seeds}")
    proposals = {name: str(arm["proposals"]) for name, arm in content["arms"].items() if arm.get("proposals")}
    for name, source in proposals.items():
        if source not in info.arms or source in proposals:
            raise ValueError(f"{where}: arm {name!r} takes proposals of {source!r}, which is no arm with an RPN")
    return Study(info, datasets, content["overrides"], proposals)


def select(study: Study, arms: Sequence[str] | None, datasets: Sequence[str] | None) -> Study:
    """Return the part of a study with these arms and datasets; None keeps all.

    Raises:
        ValueError: it has no such arm or dataset, or the baseline or an arm that gives proposals would be missing.
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
    """Merge several overrides of `key` into one list, in order."""
    chosen = [name for o in overrides if o.startswith(key) for name in o.removeprefix(key).strip("[]").split(",")]
    if len(chosen) < 2:
        return list(overrides)
    return [f"{key}[{','.join(chosen)}]", *(o for o in overrides if not o.startswith(key))]
