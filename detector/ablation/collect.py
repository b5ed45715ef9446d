"""From the folders of runs to their records."""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from detector.ablation.description import StudyInfo
from detector.ablation.records import CurvePoint, Gain, Metric, Records, Run
from detector.ablation.study import Job
from detector.config import build
from detector.evaluation.coco import Kind
from detector.evaluation.measure import Measured, difference, measure
from detector.evaluation.predictions import read_predictions
from detector.training.folder import configuration

KINDS: tuple[Kind, ...] = ("box", "mask")
VOC = "voc/mAP"
"""What VOC's metric has written; it has no image bootstrap."""
POINTS = 30
"""of a training curve that are kept, each the mean of what lies between it and the one before"""


@dataclass(frozen=True)
class Finished:
    """A run that is done, and its place in a study."""

    arm: str
    dataset: str
    seed: int
    folder: Path
    command: str


def measured(folder: Path) -> dict[str, Measured]:
    """The measurements of a finished run by kind, `box` and `mask`: those predicted, and known of objects that count.

    They take a while, and are kept beside the predictions that they are of.

    Raises:
        ValueError: the folder holds no finished run, or there is nothing to measure it by.
    """
    config = configuration(folder)
    found: dict[str, Measured] = {}
    truth = None
    for kind in KINDS:
        file = folder / "predictions" / f"{kind}.json"
        if not file.is_file():
            continue
        kept = folder / f"measured-{kind}.npz"
        if not kept.is_file() or kept.stat().st_mtime_ns < file.stat().st_mtime_ns:
            truth = truth or build.build_dataset(config, "val").ground_truth()
            bins = config.dataset.size_bins[0], config.dataset.size_bins[1]
            numbers = measure(truth, read_predictions(file), kind, bins)
            if not numbers.values:
                continue  # objects without masks, say
            _keep(kept, numbers)
        found[kind] = _kept(kept)
    if truth is not None and not found:
        raise ValueError(
            f"{folder}: nothing can be measured on {config.dataset.name}: no object of its val part counts"
        )
    if not found:
        raise ValueError(f"{folder}: no predictions; give the folder of a finished run")
    return found


def _keep(path: Path, measured: Measured) -> None:
    facts = {"kind": measured.kind, "images": measured.images, "seed": measured.seed, "values": measured.values}
    samples = np.stack([measured.samples[name] for name in measured.values])
    with path.with_suffix(".tmp").open("wb") as file:
        np.savez_compressed(file, facts=np.array(json.dumps(facts)), samples=samples)
    path.with_suffix(".tmp").replace(path)


def _kept(path: Path) -> Measured:
    try:
        with np.load(path, allow_pickle=False) as content:
            facts, samples = json.loads(content["facts"].item()), content["samples"]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, and it is made again") from error
    by_name = dict(zip(facts["values"], samples, strict=True))
    return Measured(facts["kind"], tuple(facts["images"]), facts["seed"], facts["values"], by_name)


def collect(study: StudyInfo, runs: Sequence[Finished]) -> Records:
    """The records of finished runs: their numbers, and their differences from the baseline of the same data and seed.

    Raises:
        ValueError: a folder does not hold what a finished run leaves.
    """
    found = {(run.arm, run.dataset, run.seed): measured(run.folder) for run in runs}
    places = {run.dataset: run.folder for run in runs}
    bins = {name: [float(side) for side in configuration(place).dataset.size_bins] for name, place in places.items()}
    records = Records(replace(study, size_bins=bins))
    for run in runs:
        place = (study.name, run.arm, run.dataset, run.seed)
        mine = found[run.arm, run.dataset, run.seed]
        images = len(next(iter(mine.values())).images)
        written = _metrics(run.folder)
        records.runs.append(_run(study.name, run, images, written))
        records.curves.extend(CurvePoint(*place, *point) for point in _curves(run.folder / "metrics.csv"))
        base = found.get((study.baseline, run.dataset, run.seed), {})
        for kind, numbers in mine.items():
            for name, e in numbers.estimates().items():
                records.metrics.append(Metric(*place, kind, name, e.value, e.low, e.high))
            if run.arm == study.baseline or kind not in base:
                continue
            for name, e in difference(numbers, base[kind]).items():
                gain = (study.name, run.arm, study.baseline, run.dataset, run.seed, kind, name)
                records.differences.append(Gain(*gain, e.value, e.low, e.high))
        if VOC in written:
            records.metrics.append(Metric(*place, "box", "mAP", written[VOC], None, None))
    return records


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    try:
        metrics: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); give the folder of a finished run") from error
    if "env/parameters" not in metrics:
        raise ValueError(f"{path} does not say how many parameters there are: evaluate the run again (evaluate.py)")
    return metrics


def _run(study: str, run: Finished, images: int, metrics: Mapping[str, Any]) -> Run:
    path = run.folder / "metrics.json"
    return Run(
        study=study,
        arm=run.arm,
        dataset=run.dataset,
        seed=run.seed,
        command=run.command,
        commit=str(metrics.get("env/commit", "")),
        date=datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M"),
        seconds=round(metrics.get("time/total", metrics.get("time/evaluation", 0.0)), 1),
        steps=int(configuration(run.folder).schedule.steps),
        images=images,
        params=int(metrics["env/parameters"]),
    )


def _curves(path: Path) -> list[tuple[int, str, float]]:
    """Steps, names and values: losses thinned to the means of stretches, metrics as they are."""
    if not path.is_file():
        return []
    points: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if name.startswith(("loss", "box/AP", "mask/AP")) and name.count("/") <= 1 and text:
                    points.setdefault(name, []).append((int(row["step"]), float(text)))
    thin: list[tuple[int, str, float]] = []
    for name, series in points.items():
        length = math.ceil(len(series) / POINTS)
        for start in range(0, len(series), length):
            stretch = series[start : start + length]
            thin.append((stretch[-1][0], name, sum(value for _, value in stretch) / len(stretch)))
    return thin


def of_jobs(jobs: Sequence[Job], runs: Path) -> list[Finished]:
    """A study's jobs that are done."""
    return [Finished(job.arm, job.dataset, job.seed, runs / job.folder, job.command) for job in jobs]
