"""Measure finished runs and collect the records of a study."""

from __future__ import annotations

import csv
import json
import logging
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from detector.ablation.description import KINDS, MAIN, StudyInfo
from detector.ablation.records import ROUNDING, CurvePoint, Gain, MetricRow, Records, Run
from detector.ablation.study import Job
from detector.config import build
from detector.evaluation.measure import Measured, difference, measure
from detector.evaluation.predictions import read_predictions
from detector.evaluation.records import Kind
from detector.training.folder import read_config
from detector.types import DetectionDataset

log = logging.getLogger(__name__)

VOC = "voc"
"""The prefix of VOC's metrics in `metrics.json`, which are of boxes."""
RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's average recalls, which a study does not record."""
PARAMETERS, GIVEN = "env/parameters", "env/predictions"
"""Keys of `metrics.json`: the number of the detector's parameters, or the file of given predictions."""
POINTS = 30
"""Points kept of a training curve, each the mean of the values since the one before."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run and its place in a study."""

    arm: str
    dataset: str
    seed: int
    folder: Path
    command: str


def predictions_file(folder: Path, kind: Kind) -> Path:
    """Return the path of a run's predictions of one kind, in COCO's results format."""
    return folder / "predictions" / f"{kind}.json"


def predicted_kinds(folder: Path) -> list[Kind]:
    """List the kinds of predictions in a run's folder that can be measured, boxes first."""
    return [kind for kind in KINDS if predictions_file(folder, kind).is_file()]


def validation_set(folder: Path) -> DetectionDataset:
    """Build the validation set of a run from its `config.yaml`, with masks if the run predicts them.

    Only the dataset's part of the configuration is read, so that runs made before a model's keys were renamed can be
    measured.
    """
    node = read_config(folder).dataset.val
    unused = "masks" in node and "mask" not in predicted_kinds(folder)
    return build.instantiate_split(node, **({"masks": False} if unused else {}))


def measure_run(folder: Path) -> dict[Kind, Measured]:
    """Measure a finished run, by kind of prediction; kinds that no ground truth exists for are left out.

    Of an image as many detections count as the dataset keeps, `dataset.detections`, if these are more than COCO's 100.
    Measurements take a while and are kept beside the predictions, as `measured-KIND.npz`.

    Raises:
        ValueError: the folder holds no finished run, or no object of the validation set counts.
    """
    config = read_config(folder)
    found: dict[Kind, Measured] = {}
    truth = None
    for kind in predicted_kinds(folder):
        file = predictions_file(folder, kind)
        kept = folder / f"measured-{kind}.npz"
        if not kept.is_file() or kept.stat().st_mtime_ns < file.stat().st_mtime_ns:
            truth = truth or validation_set(folder).ground_truth()
            bins = config.dataset.size_bins[0], config.dataset.size_bins[1]
            most = OmegaConf.select(config, "dataset.detections") or 0
            numbers = measure(truth, read_predictions(file), kind, bins, limit=most)
            if not numbers.values:
                continue  # such as masks of objects without ground-truth masks
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


def collect_records(study: StudyInfo, runs: Sequence[FinishedRun]) -> Records:
    """Collect the records of finished runs: metrics, differences from the baseline, and training curves.

    COCO's metrics are measured again, with the image bootstrap. Other metrics with one `/` in their names, such as
    `voc/mAP` or those of the user's own, are taken from `metrics.json`, without intervals. Those that are no fractions
    are left out, with a warning.

    Raises:
        ValueError: a folder lacks files of a finished run.
    """
    found = {(run.arm, run.dataset, run.seed): measure_run(run.folder) for run in runs}
    places = {run.dataset: run.folder for run in runs}
    bins = {name: [float(side) for side in read_config(place).dataset.size_bins] for name, place in places.items()}
    records = Records(replace(study, size_bins=bins))
    refused: dict[str, str] = {}
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
                records.metrics.append(MetricRow(*place, kind, name, e.value, e.low, e.high))
            if run.arm == study.baseline or kind not in base:
                continue
            for name, e in difference(numbers, base[kind]).items():
                gain = (study.name, run.arm, study.baseline, run.dataset, run.seed, kind, name)
                records.differences.append(Gain(*gain, e.value, e.low, e.high))
        for name, value in _other_metrics(written, mine).items():
            if _is_fraction(value):
                kind_of, _, metric = name.partition("/")
                kind_of = "box" if kind_of == VOC else kind_of
                records.metrics.append(MetricRow(*place, kind_of, metric, float(value), None, None))
            else:
                refused.setdefault(name, f"{value} in {run.folder}/metrics.json")
    for name, example in refused.items():
        log.warning("%s is left out of the records where it is no fraction in 0..1: %s", name, example)
    return records


def _other_metrics(metrics: Mapping[str, Any], measured: Mapping[Kind, Measured]) -> dict[str, Any]:
    """Return the metrics of `metrics.json` with one `/` in their names, without COCO's and those that were measured."""
    known = {"env", "time"}
    coco = {f"{kind}/{name}" for kind in KINDS for name in (*MAIN, *RECALLS)}
    coco |= {f"{kind}/{name}" for kind, numbers in measured.items() for name in numbers.values}
    found = {}
    for name, value in metrics.items():
        prefix, _, rest = name.partition("/")
        if prefix and rest and "/" not in rest and prefix not in known and name not in coco:
            found[name] = value
    return found


def _is_fraction(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -ROUNDING <= value <= 1 + ROUNDING


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    try:
        metrics: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); give the folder of a finished run") from error
    if PARAMETERS not in metrics and GIVEN not in metrics:
        raise ValueError(f"{path} has no {PARAMETERS} (the number of parameters): evaluate the run again")
    return metrics


def _run(study: str, run: FinishedRun, images: int, metrics: Mapping[str, Any]) -> Run:
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
        steps=OmegaConf.select(read_config(run.folder), "schedule.steps"),
        images=images,
        params=int(metrics[PARAMETERS]) if PARAMETERS in metrics else None,
    )


def _curves(path: Path) -> list[tuple[int, str, float]]:
    """Read (step, name, value) of losses and AP, thinned to at most `POINTS` means of consecutive values."""
    if not path.is_file():
        return []
    points: dict[str, list[tuple[int, float]]] = {}
    kept = ("loss", *(f"{kind}/AP" for kind in KINDS))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if name.startswith(kept) and name.count("/") <= 1 and text:
                    points.setdefault(name, []).append((int(row["step"]), float(text)))
    thin: list[tuple[int, str, float]] = []
    for name, series in points.items():
        length = math.ceil(len(series) / POINTS)
        for start in range(0, len(series), length):
            stretch = series[start : start + length]
            thin.append((stretch[-1][0], name, sum(value for _, value in stretch) / len(stretch)))
    return thin


def finished_runs(jobs: Sequence[Job], runs: Path) -> list[FinishedRun]:
    """Return the runs of jobs that are done; `runs` is the parent of their folders."""
    return [FinishedRun(job.arm, job.dataset, job.seed, runs / job.folder, job.command) for job in jobs]
