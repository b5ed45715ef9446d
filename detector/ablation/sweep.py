"""Carries a study out, by Hydra's launchers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from omegaconf import DictConfig

from detector import build, runs
from detector.ablation import collect
from detector.ablation.records import Records
from detector.ablation.showcase import showcase
from detector.ablation.study import Job, Study, missing, sign
from detector.cli import command, console


@dataclass
class Task:
    """What a launcher calls for each of the jobs that it is given."""

    jobs: Sequence[Job]
    folder: Path
    """where the folders of the runs lie"""
    whole: int
    """all runs of the study, those that were done before among them"""
    began: float = field(default_factory=time.monotonic)

    def __call__(self, config: DictConfig) -> None:
        """One run, and what is measured of it; a fault of its input is said, and the other runs go on."""
        place, folder, overrides = build.job()
        job = self.jobs[place]
        done = self.whole - len(self.jobs) + place
        left = ""
        if place:
            each = (time.monotonic() - self.began) / place
            left = f", about {timedelta(seconds=round(each * (len(self.jobs) - place)))} left"
        console.rule(f"run {done + 1} of {self.whole}{left}: {job.arm} on {job.dataset}, seed {job.seed}")

        def run(config: DictConfig) -> None:
            build.check_additions("train", overrides)
            runs.train(config, overrides, folder, console)
            collect.measured(folder)
            sign(job, self.folder)

        command(run)(config)


class Sweep:
    """A study in a folder: `runs/ARM/DATASET/SEED/`, of which those that are done are not done again.

    Args:
        study: what is to be run.
        folder: where.
        overrides: further ones, of every run.
    """

    def __init__(self, study: Study, folder: Path, overrides: Sequence[str]) -> None:
        self.study = study
        self.runs = folder / "runs"
        self.jobs = study.jobs(self.runs, overrides)

    def show(self) -> None:
        """Print the commands, those that are done marked."""
        waiting = missing(self.jobs, self.runs)
        for job in self.jobs:
            mark = "     " if job in waiting else "done "
            console.print(f"{mark}{job.command}", soft_wrap=True, highlight=False)

    def run(self, launcher: Sequence[str] = ()) -> None:
        """Do what is not done; a run that was stopped goes on.

        Args:
            launcher: overrides that choose Hydra's launcher, such as `hydra/launcher=joblib`; the basic one does one
                run after the other.

        Raises:
            ValueError: some runs failed; the message says which.
        """
        for wave in self.study.waves(self.jobs):
            waiting = missing(wave, self.runs)
            if waiting:
                jobs = [[*job.overrides, "resume=auto", f"hydra.sweep.subdir={job.folder}"] for job in waiting]
                build.launch(Task(waiting, self.runs, len(self.jobs)), jobs, self.runs, launcher)
            if failed := missing(wave, self.runs):
                names = ", ".join(job.folder for job in failed[:5])
                raise ValueError(
                    f"{len(failed)} of {len(self.jobs)} runs failed ({names}): the reason stands above; "
                    "the same command tries them again"
                )

    def records(self) -> Records:
        """Of all runs, which must be done."""
        return collect.collect(self.study.info, collect.of_jobs(self.jobs, self.runs))

    def showcases(self, folder: Path) -> dict[str, Path]:
        """For each dataset the images on which an arm differs most from the baseline, by caption.

        The arm whose AP differs most, at the first seed.
        """
        info, found = self.study.info, {}
        for dataset in info.datasets:
            place = f"{dataset}/{info.seeds[0]}"
            scores = {arm: collect.measured(self.runs / arm / place)["box"].values.get("AP", 0.0) for arm in info.arms}
            base = scores.pop(info.baseline)
            if not scores:
                continue
            arm = max(scores, key=lambda name: abs(scores[name] - base))
            runs = (self.runs / info.baseline / place, self.runs / arm / place)
            labels = (info.arms[info.baseline].label, info.arms[arm].label)
            showcase(*runs, folder / dataset, labels)
            caption = f"Where it matters: the images of {dataset} on which {' and '.join(labels)} differ most"
            found[caption] = folder / dataset / "showcase.png"
        return found
