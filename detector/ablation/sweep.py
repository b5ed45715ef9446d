"""Run a study with Hydra's launchers."""

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
from rich.console import Console

from detector.ablation.collect import collect_records, finished_runs, measure_run
from detector.ablation.description import KINDS
from detector.ablation.records import Records
from detector.ablation.report.showcase import showcases
from detector.ablation.study import Job, Study, find_reusable, pending_jobs, select, write_command
from detector.config.cli import Command, JobError, console, reraise_ctrl_c
from detector.config.compose import current_job, launch, override
from detector.config.overrides import allow_new_keys, plain_keys
from detector.config.variables import FULL_ERROR
from detector.training.run import train


@dataclass
class Task:
    """The function that a launcher calls for each job."""

    jobs: Sequence[Job]
    before: int
    """number of the study's runs that were done before these"""
    total: int
    """number of all runs of the study"""
    began: float = field(default_factory=time.time)

    def __call__(self, config: DictConfig) -> None:
        """Train and measure one run; an error is printed, and the other runs go on."""
        with reraise_ctrl_c():
            self._run(config, current_job())

    def _run(self, config: DictConfig, number: int) -> None:
        job = self.jobs[number]
        left = ""
        if number:
            each = (time.time() - self.began) / number
            left = f", about {timedelta(seconds=round(each * (len(self.jobs) - number)))} left"
        console.rule(
            f"run {self.before + number + 1} of {self.total}{left}: {job.arm} on {job.dataset}, seed {job.seed}"
        )

        def run(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
            train(config, overrides, folder, console)
            measure_run(folder)
            write_command(job, folder)  # the run may have been made by an equivalent one

        try:
            Command(run, os.environ.get(FULL_ERROR), plain_keys(job.overrides))(config)
        except JobError:
            return  # its message is printed
        except Exception:  # such as a GPU out of memory, which the other runs may not be
            if os.environ.get(FULL_ERROR) == "1":
                raise
            traceback.print_exc()


class Sweep:
    """A study in a folder, with its runs in `runs/ARM/DATASET/SEED/`; finished runs are not repeated.

    Args:
        study: the whole study.
        folder: the study's folder.
        overrides: further overrides of every run.
        arms, datasets: the part of the study to run; None for all.
        reuse: folders of other studies; their finished runs with the same overrides are copied, not repeated.

    Raises:
        ValueError: the study has no such arms or datasets, the overrides set keys in which its arms differ, or a folder
            of `reuse` is not a study's.
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
        part = select(study, arms, datasets).info
        self.study, self.part = study, part
        self.runs = folder / "runs"
        self.all_jobs = study.jobs(self.runs, overrides)
        self.jobs = [job for job in self.all_jobs if job.arm in part.arms and job.dataset in part.datasets]
        self.reusable = find_reusable(self.jobs, [Path(other) for other in reuse])

    def pending(self) -> list[Job]:
        """Return the runs that are not done."""
        return self._pending(self.jobs)

    def print_commands(self) -> None:
        """Print the command of each run, marked `done`, or `copy` if the run is taken from another study."""
        pending = self._pending(self.jobs)
        copied = self._copied(pending)
        for job in self.jobs:
            mark = "done " if job not in pending else "copy " if job in copied else "     "
            console.print(f"{mark}{job.command}", soft_wrap=True, highlight=False, markup=False)  # [a,b] is no style

    def run(self, launcher: Sequence[str] = ()) -> list[Job]:
        """Do the pending runs; an interrupted run resumes from its last checkpoint.

        Args:
            launcher: overrides that choose Hydra's launcher, such as `hydra/launcher=joblib`; by default runs are
                done one after the other.

        Returns:
            the runs that failed, and those that need their proposals.
        """
        for job, source in self._copied(self._pending(self.jobs)).items():
            console.print(f"{job.folder}: copied from {source}", soft_wrap=True, markup=False)
            target = self.runs / job.folder
            half = target.with_name(f"{target.name}.copy")
            if half.exists():
                shutil.rmtree(half)
            shutil.copytree(source, half)
            half.rename(target)
        for wave in self.study.waves(self.jobs):
            pending = [job for job in self._pending(wave) if self._startable(job)]
            if pending:
                jobs = [
                    [*allow_new_keys(job.overrides), "resume=auto", override("hydra.sweep.subdir", job.folder)]
                    for job in pending
                ]
                before = len(self.jobs) - len(self._pending(self.jobs))
                launch(Task(pending, before, len(self.jobs)), jobs, self.runs, launcher)
        return self._pending(self.jobs)

    def _pending(self, jobs: Sequence[Job]) -> list[Job]:
        return pending_jobs(jobs, self.runs)

    def _startable(self, job: Job) -> bool:
        """Whether the run that the job's proposals come from, if any, is done."""
        source = (self.study.proposals.get(job.arm), job.dataset, job.seed)
        return not self._pending([other for other in self.jobs if (other.arm, other.dataset, other.seed) == source])

    def _copied(self, pending: Sequence[Job]) -> dict[Job, Path]:
        """Return the runs to copy for pending jobs; a run that was interrupted here is resumed instead."""
        found = self.reusable.items()
        return {job: source for job, source in found if job in pending and not (self.runs / job.folder).exists()}

    def records(self) -> Records:
        """Collect the records of all finished runs, also of arms and datasets left out this time."""
        pending = self._pending(self.all_jobs)
        done = [job for job in self.all_jobs if job not in pending]
        arms, datasets = ({getattr(job, name) for job in (*done, *self.jobs)} for name in ("arm", "dataset"))
        info = self.study.info
        part = select(self.study, [a for a in info.arms if a in arms], [d for d in info.datasets if d in datasets])
        return collect_records(part.info, finished_runs(done, self.runs))

    def showcases(self, folder: Path) -> dict[str, Path]:
        """For each dataset, compare the baseline with the arm of largest AP difference, on the images where the two
        differ most.

        Runs of the first seed that the baseline has are compared, by mask AP where all of them have masks.

        Returns:
            pictures by caption; none for a dataset without objects that count.
        """
        info = self.study.info
        found: dict[str, Path] = {}
        pending = self._pending(self.jobs)
        done = [job for job in self.jobs if job not in pending]
        for dataset in dict.fromkeys(job.dataset for job in done):
            seeds = [job.seed for job in done if (job.arm, job.dataset) == (info.baseline, dataset)]
            if not seeds:
                continue
            place = f"{dataset}/{seeds[0]}"
            arms = [job.arm for job in done if (job.dataset, job.seed) == (dataset, seeds[0])]
            numbers = {arm: measure_run(self.runs / arm / place) for arm in arms}
            kind = [kind for kind in KINDS if all(kind in kinds for kinds in numbers.values())][-1]
            scores = {arm: kinds[kind].values["AP"] for arm, kinds in numbers.items() if "AP" in kinds[kind].values}
            base = scores.pop(info.baseline, None)
            if base is None or not scores:
                continue
            arm = max(scores, key=lambda name: abs(scores[name] - base))
            runs = (self.runs / info.baseline / place, self.runs / arm / place)
            labels = (info.arms[info.baseline].label, info.arms[arm].label)
            pictures = showcases(*runs, folder / dataset, labels)
            found |= {f"{dataset}: {caption}": path for caption, path in pictures.items()}
        return found
