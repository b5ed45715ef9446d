"""Tabulate the errors of two runs, paired by image and object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from detector.ablation.collect import predicted_kinds, predictions_file, validation_set
from detector.ablation.report.document import Block, Heading, Paragraph, Table
from detector.ablation.report.tables import points, signed, slug
from detector.evaluation.collector import Collector
from detector.evaluation.errors import KINDS
from detector.evaluation.measure import Estimate
from detector.evaluation.paired_errors import LOSING, PairedErrors, errors_of_other, found_by, pair_errors
from detector.evaluation.predictions import detections_of, read_predictions
from detector.evaluation.records import Kind
from detector.evaluation.report.advice import MEANING
from detector.masks import MaskOutput
from detector.training.folder import read_config

Pair = tuple[str, str]
"""The names of the first and of the second run."""

LEAST = 0.0005
"""Differences below 0.05 points, which the tables round to 0.0, are not put into words."""


def paired_errors(first: Path, second: Path) -> dict[Kind, PairedErrors]:
    """Pair the errors of two runs, for each kind of prediction that both have and that objects count for.

    Args:
        first, second: folders of runs on the same validation images, with `config.yaml` and `predictions/KIND.json`.

    Raises:
        ValueError: they lack files, or were measured on different images or objects.
    """
    dataset = validation_set(first)
    truth = dataset.ground_truth()
    images = [image["id"] for image in truth["images"]]
    found: dict[Kind, PairedErrors] = {}
    for kind in predicted_kinds(first):
        if kind not in predicted_kinds(second):
            continue
        collectors = []
        for run in (first, second):
            outputs = [MaskOutput()] if kind == "mask" else []
            limit = read_config(run).dataset.detections
            collector = Collector(truth, dataset.category_ids, outputs=outputs, limit=limit)
            rows = read_predictions(predictions_file(run, kind))
            collector.merge([detections_of(kind, rows, images, dataset.category_ids)])
            collectors.append(collector)
        paired = pair_errors(collectors[0], collectors[1], kind)
        if paired.first.objects:
            found[kind] = paired
    return found


def error_blocks(
    found: Mapping[Kind, PairedErrors], labels: Pair, names: Sequence[str], size_bins: tuple[float, float]
) -> list[Block]:
    """Write the section on the errors of two runs; empty if there are none to compare.

    Args:
        found: their errors, by kind of prediction.
        labels: names of the runs.
        names: of the study and the dataset; the names of the tables begin with them.
        size_bins: two sides in pixels, as `Collector` takes them.
    """
    blocks: list[Block] = []
    for kind, paired in found.items():
        blocks += [
            Paragraph(in_words(paired, kind, labels)),
            costs(paired, kind, labels, names),
            objects(paired, kind, labels, names, size_bins),
            lost(paired, kind, labels, names),
        ]
    return [Heading("The errors of both runs"), *blocks] if blocks else []


def in_words(paired: PairedErrors, kind: Kind, labels: Pair) -> str:
    """Say which error's cost falls most from the first run to the second, and which one's rises most."""
    order = sorted(paired.differences, key=lambda name: paired.differences[name].value)
    parts = []
    for name, sign, verb in ((order[0], -1, "falls"), (order[-1], 1, "rises")):
        estimate = paired.differences[name]
        if sign * estimate.value >= LEAST:
            parts.append(f"the cost of {_errors(name)} {verb} most, by {_sure(estimate)}")
    changes = " and ".join(parts) or "no kind of error changes its cost"
    return f"{_plural(kind).capitalize()}, from {labels[0]} to {labels[1]}: {changes}."


def _errors(name: str) -> str:
    return {"both": "errors of both class and place", "duplicate": "duplicates", "missed": "missed objects"}.get(
        name, f"{name} errors"
    )


def _sure(estimate: Estimate) -> str:
    """Format a difference without its sign, with its interval."""
    text = f"{points(abs(estimate.value))} points of AP50"
    if estimate.low is None or estimate.high is None:
        return text
    zero = ", which contains zero" if estimate.low <= 0 <= estimate.high else ""
    return f"{text} (interval of the difference {_interval(estimate)}{zero})"


def _interval(estimate: Estimate) -> str:
    known = estimate.low is not None and estimate.high is not None
    return f"{signed(estimate.low or 0.0)} to {signed(estimate.high or 0.0)}" if known else ""


def _plural(kind: Kind) -> str:
    return "boxes" if kind == "box" else "masks"


def costs(paired: PairedErrors, kind: Kind, labels: Pair, names: Sequence[str]) -> Table:
    """Tabulate numbers and costs of each kind of error in both runs, the largest difference of costs first."""
    runs = (paired.first, paired.second)
    numbers, values = [errors.numbers() for errors in runs], [errors.costs() for errors in runs]
    rows = []
    for name in sorted(KINDS, key=lambda name: -abs(paired.differences[name].value)):
        estimate = paired.differences[name]
        ends = _interval(estimate)
        rows.append(
            [
                name,
                *(str(count[name]) for count in numbers),
                *(points(value[name]) for value in values),
                signed(estimate.value) + (f"\n{ends}" if ends else ""),
            ]
        )
    header = ["error", *(f"number\n{label}" for label in labels), *(f"cost\n{label}" for label in labels), "difference"]
    notes = [
        "Cost: by how many points AP50 rises if the errors of this kind alone are mended. With all errors it is "
        f"{points(runs[0].present)} for {labels[0]} and {points(runs[1].present)} for {labels[1]}.",
        f"Difference: cost of {labels[1]} minus that of {labels[0]}, so below zero {labels[1]} loses less; the largest "
        "first, with the 95 % interval of the paired image bootstrap. Another training may differ more.",
        f"{'; '.join(f'{name}: {meaning}' for name, meaning in MEANING.items())}. Source: TIDE (Bolya et al., 2020).",
    ]
    title = f"{names[0]}: errors of {_plural(kind)} on {names[-1]}"
    return Table(slug(*names, kind, "errors"), title, header, rows, notes)


def objects(
    paired: PairedErrors, kind: Kind, labels: Pair, names: Sequence[str], size_bins: tuple[float, float]
) -> Table:
    """Tabulate how many objects both runs find, one of them, and neither, in all and by size."""
    rows = [
        [size, *(str(number) for number in (n.objects, n.both, n.first, n.second, n.neither))]
        for size, n in found_by(paired, size_bins).items()
    ]
    header = ["size", "objects", "found by both", *(f"only by\n{label}" for label in labels), "by neither"]
    small, large = size_bins
    notes = [
        "Found: a detection of its class, whatever its score, matches the object at an IoU of 0.5.",
        f"Sizes: an area below {small:g}², below {large:g}², and from there on, in px of the image's file.",
    ]
    title = f"{names[0]}: objects found, {_plural(kind)} on {names[-1]}"
    return Table(slug(*names, kind, "found"), title, header, rows, notes)


def lost(paired: PairedErrors, kind: Kind, labels: Pair, names: Sequence[str]) -> Table:
    """Tabulate the errors of each run on the objects that only the other one finds."""
    of_second = errors_of_other(paired.first, paired.second)
    of_first = errors_of_other(paired.second, paired.first)
    rows = [[name, str(of_second[name]), str(of_first[name])] for name in LOSING]
    header = ["error of the other run", *(f"found only by\n{label}" for label in labels)]
    notes = [
        "What the other run has made of the object: a detection in the right place of another class, or of the right "
        "class with too small an IoU (of several the one with the highest score); else it is missed."
    ]
    title = f"{names[0]}: objects found by one run only, {_plural(kind)} on {names[-1]}"
    return Table(slug(*names, kind, "lost"), title, header, rows, notes)
