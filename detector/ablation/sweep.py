"""Carries a study out, by Hydra's launchers."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from omegaconf import DictConfig

from detector.ablation import collect
from detector.ablation.records import Records
from detector.ablation.report.showcase import showcases
from detector.ablation.study import Job, Study, made_elsewhere, missing, only, sign
from detector.config.cli import command, console
from detector.config.compose import current_job, launch, override
from detector.config.conventions import check_additions
from detector.training.run import train


@dataclass
class Task:
    """What a launcher calls for each of the jobs that it is given."""

    jobs: Sequence[Job]
    before: int
    """runs of the study that were done before these"""
    whole: int
    """all runs of the study"""
    began: float = field(default_factory=time.time)

    def __call__(self, config: DictConfig) -> None:
        """One run, and what is measured of it; what goes wrong in it is said, and the other runs go on."""
        place, folder, overrides = current_job()
        job = self.jobs[place]
        left = ""
        if place:
            each = (time.time() - self.began) / place
            left = f", about {timedelta(seconds=round(each * (len(self.jobs) - place)))} left"
        console.rule(
            f"run {self.before + place + 1} of {self.whole}{left}: {job.arm} on {job.dataset}, seed {job.seed}"
        )

        def run(config: DictConfig) -> None:
            check_additions("train", overrides)
            train(config, overrides, folder, console)
            collect.measured(folder)
            sign(job, folder)  # a run that was done before, or elsewhere, may say it otherwise

        try:
            command(run)(config)
        except Exception:  # that of one run, be it a GPU's memory, takes nothing from the others
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            traceback.print_exc()


class Sweep:
    """A study in a folder: `runs/ARM/DATASET/SEED/`, of which those that are done are not done again.

    Args:
        study: the whole of it.
        folder: where.
        overrides: further ones, of every run.
        arms, datasets: of the runs that are to be done; None: all.
        reuse: folders of other studies, whose finished runs by the same command are copied, not done again.

    Raises:
        ValueError: the study has no such arms or datasets, the overrides are what its arms differ in, or a folder of
            `reuse` is no study's.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        overrides: Sequence[str],
        arms: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        reuse: Sequence[str] = (),
    ) -> None:
        asked = only(study, arms, datasets).info
        self.study = study
        self.runs = folder / "runs"
        self.whole = study.jobs(self.runs, overrides)
        self.jobs = [job for job in self.whole if job.arm in asked.arms and job.dataset in asked.datasets]
        self.elsewhere = made_elsewhere(self.jobs, [Path(other) for other in reuse])

    def show(self) -> None:
        """Print the commands, those marked that are done, and those whose runs are copied from another study."""
        waiting = missing(self.jobs, self.runs)
        for job in self.jobs:
            mark = "done " if job not in waiting else "copy " if job in self._copied(waiting) else "     "
            console.print(f"{mark}{job.command}", soft_wrap=True, highlight=False)

    def run(self, launcher: Sequence[str] = ()) -> list[Job]:
        """Do what is not done; a run that was stopped goes on.

        Args:
            launcher: overrides that choose Hydra's launcher, such as `hydra/launcher=joblib`; the basic one does one
                run after the other.

        Returns:
            the runs that failed, and those that need what these were to give.
        """
        for job, source in self._copied(missing(self.jobs, self.runs)).items():
            console.print(f"{job.folder}: as {source}", soft_wrap=True)
            target = self.runs / job.folder
            half = target.with_name(f"{target.name}.copy")
            if half.exists():
                shutil.rmtree(half)
            shutil.copytree(source, half)
            half.rename(target)
        for wave in self.study.waves(self.jobs):
            waiting = [job for job in missing(wave, self.runs) if self._startable(job)]
            if waiting:
                jobs = [[*job.overrides, "resume=auto", override("hydra.sweep.subdir", job.folder)] for job in waiting]
                before = len(self.jobs) - len(missing(self.jobs, self.runs))
                launch(Task(waiting, before, len(self.jobs)), jobs, self.runs, launcher)
        return missing(self.jobs, self.runs)

    def _startable(self, job: Job) -> bool:
        """Whether the run that gives the job's proposals, if any does, is done."""
        lender = self.study.proposals.get(job.arm)
        place = (lender, job.dataset, job.seed)
        return not missing([other for other in self.jobs if (other.arm, other.dataset, other.seed) == place], self.runs)

    def _copied(self, waiting: Sequence[Job]) -> dict[Job, Path]:
        """Runs of other studies that take the place of waiting ones; one that was begun here goes on by itself."""
        found = self.elsewhere.items()
        return {job: source for job, source in found if job in waiting and not (self.runs / job.folder).exists()}

    def records(self) -> Records:
        """Of the runs that are done, those of earlier parts of the study among them; what failed is a gap in them."""
        waiting = missing(self.whole, self.runs)
        done = [job for job in self.whole if job not in waiting]
        arms, datasets = ({getattr(job, name) for job in (*done, *self.jobs)} for name in ("arm", "dataset"))
        info = self.study.info
        part = only(self.study, [a for a in info.arms if a in arms], [d for d in info.datasets if d in datasets])
        return collect.collect(part.info, collect.of_jobs(done, self.runs))

    def showcases(self, folder: Path) -> dict[str, Path]:
        """For each dataset the images on which an arm differs most from the baseline, by caption.

        The arm whose AP differs most, of masks where there are any, at the first seed that the baseline has; of what
        was asked for. Nothing where no object counts.
        """
        info = self.study.info
        found: dict[str, Path] = {}
        waiting = missing(self.jobs, self.runs)
        done = [job for job in self.jobs if job not in waiting]
        for dataset in dict.fromkeys(job.dataset for job in done):
            seeds = [job.seed for job in done if (job.arm, job.dataset) == (info.baseline, dataset)]
            if not seeds:
                continue
            place = f"{dataset}/{seeds[0]}"
            arms = [job.arm for job in done if (job.dataset, job.seed) == (dataset, seeds[0])]
            numbers = {arm: collect.measured(self.runs / arm / place) for arm in arms}
            kind = "mask" if all("mask" in kinds for kinds in numbers.values()) else "box"
            scores = {arm: kinds[kind].values["AP"] for arm, kinds in numbers.items() if "AP" in kinds[kind].values}
            base = scores.pop(info.baseline, None)
            if base is None or not scores:
                continue
            arm = max(scores, key=lambda name: abs(scores[name] - base))
            runs = (self.runs / info.baseline / place, self.runs / arm / place)
            labels = (info.arms[info.baseline].label, info.arms[arm].label)
            pictures = showcases(*runs, folder / dataset, labels)
            found |= {f"Where it matters, {dataset}: {caption}": path for caption, path in pictures.items()}
        return found
