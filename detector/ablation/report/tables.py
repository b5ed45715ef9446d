"""Make the tables of a report from a study's metrics."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Literal

from detector.ablation.description import KINDS, MAIN
from detector.ablation.records import Run
from detector.ablation.report.claims import CLAIMS, Row
from detector.ablation.report.document import Table
from detector.ablation.report.effects import Effect, Numbers
from detector.ablation.report.statistics import adjust, summary, warning

NONE = "-"
DETAILS = r"(AP|AP50|IoU)[@\[].*|IoU"
"""The metrics of boxes and masks that tables leave out: by IoU threshold, by object size, and the mean IoU."""


def points(value: float, digits: int = 1) -> str:
    """Format a fraction in %, without sign."""
    return f"{100 * value:.{digits}f}"


def signed(value: float, digits: int = 1) -> str:
    """Format a difference in points, with its sign."""
    return f"{100 * value:+.{digits}f}"


def interval(effect: Effect) -> str:
    """Format an interval in points; empty without one."""
    ends = effect.interval
    return "" if ends is None else f"{signed(ends[0])} to {signed(ends[1])}"


def probability(p: float | None) -> str:
    """Format a p-value; empty without one."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def slug(*parts: str) -> str:
    """Join parts to the name of a file, without suffix."""
    return re.sub(r"[^\w.-]+", "_", "_".join(parts))


def columns(numbers: Numbers, dataset: str, kind: str) -> list[str]:
    """List the metrics shown in tables: the main ones of COCO and VOC, then those of the user's own."""
    found = numbers.metrics(dataset, kind)
    others = [m for m in found if m not in MAIN and not (kind in KINDS and re.fullmatch(DETAILS, m))]
    return [*(metric for metric in MAIN if metric in found), *others]


def headline(numbers: Numbers, dataset: str, kind: str) -> str:
    """Return the metric that a kind is judged by: AP of boxes and masks, the first one of others."""
    return "AP" if kind in KINDS else columns(numbers, dataset, kind)[0]


def _of(kind: str) -> str:
    """Return how titles name the metrics of a kind."""
    return f"{kind} AP" if kind in KINDS else kind


def scores(
    numbers: Numbers, dataset: str, kind: str, metrics: Sequence[str] | None = None, name: str | None = None
) -> Table:
    """Tabulate arms by metrics, in %: mean ± standard deviation over seeds; with one seed the bootstrap's interval.

    Args:
        numbers: of the study.
        dataset, kind: what was measured.
        metrics: the columns; None: those of `columns`.
        name: the end of the table's name; None: `ap`, or `metrics` of other kinds than box and mask.
    """
    shown = columns(numbers, dataset, kind) if metrics is None else list(metrics)
    name = name or ("ap" if kind in KINDS else "metrics")
    rows, single = [], False
    for arm in numbers.arms(dataset, kind):
        cells, count = [], 0
        for metric in shown:
            values = list(numbers.values(arm, dataset, kind, metric).values())
            images = numbers.image_interval(arm, dataset, kind, metric)
            single |= images is not None
            count = max(count, len(values))
            if not values:
                cells.append(NONE)
                continue
            whole = summary(values)
            spread = "" if whole.sd is None else f" ± {points(whole.sd)}"
            spread = spread if images is None else f"\nimages: {points(images[0])} to {points(images[1])}"
            cells.append(points(whole.mean) + spread)
        rows.append([numbers.study.arms[arm].label, *cells, str(count)])
    notes = ["In %; mean ± standard deviation over seeds."]
    notes += sizes(numbers, dataset, shown) if kind in KINDS else []
    if single:
        notes.append(
            "'images': one seed only, with the 95 % interval over resampled images; another training may differ more."
        )
    what = f"{kind} IoU" if name == "iou" else _of(kind)
    title = f"{numbers.study.name}: {what} on {dataset}"
    return Table(slug(numbers.study.name, dataset, kind, name), title, ["arm", *shown, "seeds"], rows, notes)


def sizes(numbers: Numbers, dataset: str, metrics: Sequence[str]) -> list[str]:
    """Describe the size bins of APs, APm and APl, if these are shown and the bins are known."""
    if dataset not in numbers.study.size_bins or not {"APs", "APm", "APl"} & set(metrics):
        return []
    small, large = numbers.study.size_bins[dataset]
    return [
        f"APs, APm, APl: objects of an area up to {small:g}², up to {large:g}², and above, in px of the image's file."
    ]


def published(numbers: Numbers, dataset: str, kind: str) -> Table | None:
    """Tabulate published metrics of the study's arms with the measured ones; None if there are none."""
    given = [row for row in numbers.study.published if (row.dataset, row.kind) == (dataset, kind)]
    metrics = [metric for metric in MAIN if any(metric in row.values for row in given)]
    if not metrics:
        return None
    rows = []
    for row in given:
        cells = []
        for metric in metrics:
            mean = numbers.mean(row.arm, dataset, kind, metric)
            given_value = f"{row.values[metric]:.1f}" if metric in row.values else NONE
            cells.append(f"{given_value} / {NONE if mean is None else points(mean)}")
        rows.append([numbers.study.arms[row.arm].label, *cells, row.source])
    name = slug(numbers.study.name, dataset, kind, "published")
    title = f"{numbers.study.name}: published / measured, {kind} AP on {dataset}"
    return Table(name, title, ["arm", *metrics, "source"], rows, ["In %; measured: the mean over seeds."])


def localisation(numbers: Numbers, dataset: str, kind: str) -> Table | None:
    """Tabulate the mean IoU of matched detections by object size; None if it was not measured."""
    metrics = [m for m in numbers.metrics(dataset, kind) if m == "IoU" or m.startswith("IoU[")]
    if not metrics or kind not in KINDS:
        return None
    table = scores(numbers, dataset, kind, metrics, "iou")
    notes = [
        "Mean IoU of detections matched at IoU 0.5, for all objects and by object size (square root of the area, px)."
    ]
    return Table(table.name, table.title, table.header, table.rows, [*table.notes, *notes])


def effects(numbers: Numbers, dataset: str, kind: str) -> dict[str, dict[str, Effect]]:
    """Compute the differences from the baseline, by arm and metric."""
    found: dict[str, dict[str, Effect]] = {}
    shown = columns(numbers, dataset, kind)
    for arm in numbers.arms(dataset, kind):
        if arm != numbers.study.baseline:
            pairs = {m: numbers.effect(arm, numbers.study.baseline, dataset, kind, m) for m in shown}
            found[arm] = {metric: effect for metric, effect in pairs.items() if effect is not None}
    return found


def holm(found: dict[str, dict[str, Effect]], metric: str) -> dict[str, float | None]:
    """Adjust the p-values of one metric over the arms."""
    arms = [arm for arm in found if metric in found[arm]]
    return dict(zip(arms, adjust([found[arm][metric].p for arm in arms]), strict=True))


def differences(numbers: Numbers, dataset: str, kind: str) -> Table | None:
    """Tabulate differences from the baseline with 95 % intervals and Holm's p; None if there are none."""
    found = {arm: row for arm, row in effects(numbers, dataset, kind).items() if row}
    if not found:
        return None
    shown = [m for m in columns(numbers, dataset, kind) if any(m in row for row in found.values())]
    adjusted = {metric: holm(found, metric) for metric in shown}
    rows = []
    for arm, row in found.items():
        cells = []
        for metric in shown:
            if metric not in row:
                cells.append(NONE)
                continue
            effect = row[metric]
            ends = ("images: " if effect.by == "images" else "") + interval(effect)
            lines = [signed(effect.value), ends, probability(adjusted[metric][arm])]
            cells.append("\n".join(line for line in lines if line))
        rows.append([numbers.study.arms[arm].label, *cells, str(max(e.n for e in row.values()))])
    base = numbers.study.arms[numbers.study.baseline].label
    title = f"{numbers.study.name}: difference from {base}, {_of(kind)} on {dataset}"
    notes = [
        f"In points, arm minus {base}, paired by seed. The 95 % interval is Student's, for each arm by itself; p is "
        "adjusted by Holm's method over the arms of the table, so it can exceed 0.05 where the interval excludes zero. "
        "Both cover the variation between trainings, on the same validation images."
    ]
    if any(effect.by == "images" for row in found.values() for effect in row.values()):
        notes.append("'images': one seed only; the interval is the paired image bootstrap's, without p.")
    name = slug(numbers.study.name, dataset, kind, "differences")
    return Table(name, title, ["arm", *shown, "seeds"], rows, notes)


def warnings(numbers: Numbers, dataset: str, kind: str) -> list[str]:
    """Warn of arms with too few seeds to tell their `headline` from the baseline's; equal sentences are merged."""
    found: dict[str, list[str]] = {}
    metric = headline(numbers, dataset, kind)
    for arm, row in effects(numbers, dataset, kind).items():
        difference = row[metric].difference if metric in row else None
        if difference is None:
            text: str | None = "no seed in common with the baseline, so nothing can be compared."
        else:
            text = warning(difference)
        if text:
            found.setdefault(text, []).append(numbers.study.arms[arm].label)
    return [f"{'; '.join(labels)} on {dataset}, {kind} {metric}: {text}" for text, labels in found.items()]


def long_form(studies: Sequence[Numbers]) -> str:
    """Write every metric of every arm as CSV, in fractions: mean, deviation, and difference from the baseline."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    header = "study arm dataset kind metric mean sd seeds baseline difference low high p interval_by"
    lines.writerow(header.split())
    for numbers in studies:
        base = numbers.study.baseline
        for dataset in numbers.datasets():
            for kind in numbers.kinds(dataset):
                for arm in numbers.arms(dataset, kind):
                    for metric in numbers.metrics(dataset, kind):
                        values = list(numbers.values(arm, dataset, kind, metric).values())
                        if not values:
                            continue
                        s = summary(values)
                        e = None if arm == base else numbers.effect(arm, base, dataset, kind, metric)
                        gain = [base, e.value, e.low, e.high, e.p, e.by] if e else [""] * 6
                        lines.writerow([numbers.study.name, arm, dataset, kind, metric, s.mean, s.sd, s.n, *gain])
    return file.getvalue()


def commands(runs: Sequence[Run]) -> list[str]:
    """List the commands of runs; those that differ in the seed only are merged into one multirun (`-m`)."""
    split = [run.command.split() for run in runs]
    seeds = [[word for word in words if re.fullmatch(r"seed=\d+", word)] for words in split]
    rest = {" ".join(word for word in words if not re.fullmatch(r"seed=\d+", word)) for words in split}
    script = next((i for i, word in enumerate(split[0]) if word.endswith(".py")), None) if split else None
    if split and split[0][:1] == ["aligned-rcnn"]:  # `aligned-rcnn train`, of an installation
        script = 1
    if len(runs) < 2 or len(rest) != 1 or any(len(found) != 1 for found in seeds) or script is None:
        return list(dict.fromkeys(run.command for run in runs))
    words = rest.pop().split()
    values = ",".join(str(run.seed) for run in sorted(runs, key=lambda run: run.seed))
    sweep = [] if {"-m", "--multirun"} & set(words) else ["-m"]
    return [" ".join([*words[: script + 1], *sweep, *words[script + 1 :], f"seed={values}"])]


def provenance(numbers: Numbers, dataset: str) -> list[tuple[str, str]]:
    """List for each arm a line with steps, time, commit and date of its runs, and their command."""
    lines = []
    for arm, description in numbers.study.arms.items():
        runs = [run for run in numbers.records.runs if (run.arm, run.dataset) == (arm, dataset)]
        if not runs:
            continue
        commits = ", ".join(dict.fromkeys(run.commit[:8] for run in runs))
        dates = sorted(run.date for run in runs)
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        steps = ", ".join(dict.fromkeys(str(run.steps) for run in runs if run.steps is not None))
        minutes = summary([run.seconds for run in runs]).mean / 60
        made = f"{steps} steps, {minutes:.1f} min a run" if steps else "given predictions"
        facts = f"{made}, commit {commits}, {when}"
        lines += [(f"{description.label}: {facts}", command) for command in commands(runs)]
    return lines


def unequal_runs(numbers: Numbers, dataset: str) -> list[str]:
    """Warn of compared runs that were made by different commits, or with numbers of steps that no arm overrides."""
    arms = numbers.study.arms
    runs = [run for run in numbers.records.runs if run.dataset == dataset]
    facts = {"commits": {run.arm: set[str]() for run in runs}, "steps": {run.arm: set[str]() for run in runs}}
    for run in runs:
        facts["commits"][run.arm].add(run.commit[:8])
        if run.steps is not None and not any(o.startswith("schedule.") for o in arms[run.arm].overrides):
            facts["steps"][run.arm].add(str(run.steps))
    sentences = []
    for what, found in facts.items():
        if len(set().union(*found.values())) > 1:
            each = "; ".join(f"{arms[arm].label}: {', '.join(sorted(own))}" for arm, own in found.items() if own)
            sentences.append(f"The runs on {dataset} are of different {what} ({each}), which may explain differences.")
    return sentences


def claims(rows: Sequence[Row]) -> Table:
    """Tabulate all rows of the ledger."""
    header = ["claim", "what", "where", "published", "measured", "seeds", "direction", "size"]
    cells = []
    for row in rows:
        if isinstance(row.measured, str):
            measured, count = row.measured or NONE, NONE
        else:
            by = "\nover images, not seeds" if row.measured.by == "images" else ""
            ends = interval(row.measured)
            measured = signed(row.measured.value) + (f"\n{ends}{by}" if ends else "\nno interval")
            count = str(row.measured.n)
        place = row.where.replace(": ", "\n", 1)
        cells.append(
            [row.claim, row.what, place, row.published or NONE, measured, count, row.direction, row.size or NONE]
        )
    notes = [
        "Measured and published differences in points, with the 95 % interval.",
        "Direction: held if the interval lies on the claimed side of zero; cannot be told if it contains zero or there "
        "is none. Claims of equality (C5, C6) hold if the interval lies within ±1 AP, 'no better' (C7's RoIWarp) if it "
        "lies below +1 AP, 'nearly as good' (C8's class-agnostic masks) if it lies above -1 AP.",
        "Size: held if the interval contains the published difference and excludes zero. Published differences are the "
        "named model's on COCO; with another model or on other data they need not be the same.",
        "Rows that studies have in common by shared runs are listed once.",
    ]
    return Table("claims", "Claims, row by row", header, cells, notes, left=4)


def overview(rows: Sequence[Row]) -> Table:
    """Tabulate the claims that have rows with the number of these that held."""
    lines = []
    for claim, words in CLAIMS.items():
        own = [row for row in rows if row.claim == claim]
        if not own:
            continue
        direction, size = (_tally([_verdict(row, part) for row in own]) for part in ("direction", "size"))
        lines.append([claim, words, direction, size])
    return Table("claims_overview", "What held", ["claim", "in words", "direction", "size"], lines, left=4)


def _verdict(row: Row, part: Literal["direction", "size"]) -> str:
    """Return a verdict, marked if its interval is over images only: another training may differ."""
    verdict: str = getattr(row, part)
    marked = isinstance(row.measured, Effect) and row.measured.by == "images" and verdict not in ("", "cannot be told")
    return f"{verdict} (one seed, over images)" if marked else verdict


def _tally(verdicts: Sequence[str]) -> str:
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts) if verdict}
    if not counts:
        return NONE
    if len(verdicts) == 1:
        return verdicts[0]
    return "\n".join(f"{verdict}: {count}" for verdict, count in counts.items())
