"""The command line of `scripts/ablate.py`: run a study, make a report of records, compare two runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from detector.ablation.compare import compare
from detector.ablation.plan import RESULTS, find_records, plan, render
from detector.ablation.records import read_records, write_records
from detector.ablation.report.report import write_report
from detector.ablation.study import parse_study
from detector.ablation.sweep import Sweep
from detector.config.cli import console
from detector.config.compose import launcher, override, search_path
from detector.weights.trust import trust_packages

LISTS = {"arms": "names", "datasets": "names", "reuse": "folders", "report": "folders", "trust": "packages"}
"""The keys that hold lists, and of what."""


def ablate(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Run what is pending of a study, then write its records and its report; called inside `hydra.main`.

    Args:
        config: composed from `configs/ablate.yaml`. With `report`, only a report is made; with `dry_run`, only the
            commands are printed; with `plan`, how many seeds and hours it takes.
        overrides: not used; see `detector.config.cli.Work`.
        folder: the study's.
        console: where progress is printed.

    Raises:
        ValueError, OSError: the study or the command line is at fault, or runs have failed.
    """
    del overrides
    for key, items in LISTS.items():
        if not isinstance(config[key], ListConfig | None):
            raise ValueError(f"{key}={config[key]}: give a list of {items}, such as {key}=[{config[key]}]")
    if config.report is not None:
        _print_report(write_report(list(config.report), folder / "report"), console)
        return
    sweep = _sweep(config, folder)
    if config.dry_run:
        sweep.print_commands()
        return
    if config.plan:
        for part in _plan(sweep, config, folder):
            console.print(part, soft_wrap=isinstance(part, str), highlight=False)
        return
    failed = sweep.run(launcher())
    records = sweep.records()
    if records.metrics:
        write_records(folder / "records", records)
        pictures = sweep.showcases(folder / "showcases")
        _print_report(write_report([folder / "records"], folder / "report", pictures), console)
    if failed:
        names = ", ".join(job.folder for job in failed[:5])
        raise ValueError(
            f"{len(failed)} of {len(sweep.jobs)} runs failed ({names}{', ...' if len(failed) > 5 else ''}): the reason "
            "is printed above; the same command tries them again"
        )


def _sweep(config: DictConfig, folder: Path) -> Sweep:
    """Make the sweep of a composed configuration."""
    trust = [f"trust=[{','.join(config.trust)}]"] if config.trust else []
    shared = [*search_path(), *trust, override("data_dir", config.data_dir), *config.overrides]
    content: Any = OmegaConf.to_container(config.study, resolve=True)
    study = parse_study(content)
    study, overrides, dataset = study.with_dataset(shared)
    datasets = [dataset] if dataset is not None and config.datasets is None else config.datasets
    if dataset is not None and dataset not in datasets:
        raise ValueError(f"datasets={list(datasets)} leaves out {dataset}, which dataset= chooses; give one of the two")
    return Sweep(study, Path(os.path.relpath(folder)), overrides, config.arms, datasets, config.reuse or ())


def _plan(sweep: Sweep, config: DictConfig, folder: Path) -> list[Table | str]:
    """Say how many seeds the study takes, and how long its pending runs."""
    difference = config.difference
    if isinstance(difference, bool) or not isinstance(difference, int | float) or not 0 < difference <= 100:
        raise ValueError(f"difference={difference}: give the AP to see, in points above 0, such as difference=1")
    if not isinstance(config.plan_from, ListConfig | None):
        raise ValueError(
            f"plan_from={config.plan_from}: give a list of folders, such as plan_from=[{config.plan_from}]"
        )
    study = sweep.part
    given = None if config.plan_from is None else list(config.plan_from)
    sources = find_records(study, folder, given)
    if not sources:
        return [
            f"There are no records of study {study.name} in {folder / 'records'} or {RESULTS / study.name}: run two "
            "pilot seeds, study.seeds=[0,1], or name other records by plan_from=[FOLDER]."
        ]
    parts: list[Table | str] = []
    for source in sources:
        found = plan(study, read_records(source), source, difference / 100, sweep.pending())
        parts += render(found, study, difference / 100)
    return parts


def compare_runs(arguments: Sequence[str]) -> int:
    """Compare two runs, as `scripts/ablate.py --compare RUN RUN` does; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python scripts/ablate.py", description="Compare two runs, and report how they differ."
    )
    parser.add_argument("--compare", nargs=2, type=Path, required=True, metavar="RUN", help="folders of runs")
    parser.add_argument("--output", type=Path, default=Path("outputs/compare"), help="folder for records and report")
    parser.add_argument(
        "--trust", nargs="+", default=[], metavar="PACKAGE", help="packages that the runs' configurations may use"
    )
    options = parser.parse_args(arguments)
    try:
        trust_packages(options.trust)
        first, second = options.compare
        _print_report(compare(first, second, options.output), console)
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _print_report(path: Path, console: Console) -> None:
    console.print(f"Report: {path}", soft_wrap=True, markup=False)
