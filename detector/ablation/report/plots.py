"""Draw the report's plots; each function writes one PNG, or returns False if there is nothing to show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detector.ablation import contrasts
from detector.ablation.records import CurvePoint
from detector.ablation.report.effects import Effect, Numbers
from detector.ablation.report.statistics import summary
from detector.visualize import PALETTE

COLOURS = ["#000000", *("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in PALETTE if rgb != (240, 228, 66))]
"""The colours of Okabe and Ito without yellow, which is hard to see on white."""
MARKERS = "osD^vP*X"
WIDTH = 8.0
DPI = 130
FONT = 10
CURVES = r"loss.*|(box|mask)/AP(50|75)?"
"""The training curves to draw: losses, and AP where it was measured more than once."""


def _style(place: int) -> tuple[str, str, str]:
    """Return colour, marker and line style of an arm; the line style changes when the colours repeat."""
    return (
        COLOURS[place % len(COLOURS)],
        MARKERS[place % len(MARKERS)],
        ("-", "--", ":", "-.")[place // len(COLOURS) % 4],
    )


def _text(words: str) -> str:
    """Escape a name for matplotlib, which reads `$` as mathematics and hides legend entries that begin with `_`."""
    return re.sub(r"^_", " _", words.replace("$", r"\$"))


def _figure(columns: int, rows: int = 1, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels; `height` is that of a row, in inches."""
    figure = Figure(figsize=(WIDTH, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _clean(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(_text(title), fontsize=FONT, loc="left")
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Draw one legend for all panels, below them."""
    entries: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        columns = 2 if max(map(len, entries)) > 24 else 3 if len(entries) > 4 or max(map(len, entries)) > 16 else 4
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=min(columns, len(entries)),
            fontsize=FONT - 1,
            frameon=False,
        )


def _save(figure: Figure, axes: Sequence[Axes], path: Path) -> bool:
    _legend(figure, axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png")
    return True


def ap_by_iou(numbers: Numbers, kind: str, path: Path) -> bool:
    """Plot AP by IoU threshold, a line for each arm: the mean over seeds with a band of one standard deviation."""
    places = list(numbers.study.arms)
    datasets = [d for d in numbers.datasets() if any(m.startswith("AP@") for m in numbers.metrics(d, kind))]
    if not datasets:
        return False
    across = min(2, len(datasets))
    figure, axes = _figure(across, -(-len(datasets) // across))
    for panel in axes[len(datasets) :]:
        panel.set_visible(False)
    for panel, dataset in zip(axes, datasets, strict=False):
        names = sorted((m for m in numbers.metrics(dataset, kind) if m.startswith("AP@")), key=lambda m: float(m[3:]))
        for arm in numbers.arms(dataset, kind):
            known = [(name, list(numbers.values(arm, dataset, kind, name).values())) for name in names]
            known = [(name, values) for name, values in known if values]
            at = [float(name[3:]) for name, _ in known]
            parts = [summary(values) for _, values in known]
            mean = 100 * np.array([part.mean for part in parts])
            spread = 100 * np.array([part.sd or 0.0 for part in parts])
            colour, marker, line = _style(places.index(arm))
            label = _text(numbers.study.arms[arm].label)
            panel.plot(at, mean, color=colour, marker=marker, linestyle=line, markersize=4, linewidth=1.6, label=label)
            panel.fill_between(at, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        panel.set_ylim(bottom=0)
        _clean(panel, dataset, "IoU threshold", f"{kind} AP (%)")
    return _save(figure, axes, path)


def _effects(
    panel: Axes, at: Sequence[float], effects: Sequence[Effect], style: tuple[str, str, str], label: str, cap: float
) -> None:
    """Draw effects in points with their intervals; a percentile interval need not contain its value."""
    colour, marker, line = style
    values = [100 * effect.value for effect in effects]
    panel.plot(at, values, color=colour, marker=marker, linestyle=line, markersize=5, linewidth=1.2, label=_text(label))
    known = [(x, *effect.interval) for x, effect in zip(at, effects, strict=True) if effect.interval]
    if known:
        x, low, high = 100 * np.array(known, dtype=np.float64).T
        middle, half = (low + high) / 2, (high - low) / 2
        panel.errorbar(x / 100, middle, half, fmt="none", ecolor=colour, capsize=cap, elinewidth=1.2)


def _size_bins(numbers: Numbers, dataset: str, kind: str) -> list[str]:
    bins = [m for m in numbers.metrics(dataset, kind) if re.fullmatch(r"AP\[[\d.]+,(?:[\d.]+|inf)\)", m)]
    return sorted(bins, key=lambda m: float(m[3:].split(",")[0]))


def _bin_label(metric: str) -> str:
    low, high = metric[3:-1].split(",")
    return f"from {low}" if high == "inf" else f"{low}-{high}"


def _comparisons(numbers: Numbers) -> list[tuple[str, str]]:
    """Pair each arm with the baseline; if strides vary, RoIAlign with RoIPool of the same stride."""
    study = numbers.study
    at = {pair: study.arms[pair[1]].stride for pair in contrasts.TO_ALIGN.pairs(study)}
    if len(set(at.values()) - {None}) > 1:
        return [(after, before) for before, after in at]
    return [(arm, study.baseline) for arm in study.arms if arm != study.baseline]


def gain_by_size(numbers: Numbers, kind: str, path: Path) -> bool:
    """Plot the gain by object size with 95 % intervals: over the baseline, or RoIAlign's at each stride."""
    study = numbers.study
    places = list(study.arms)
    pairs = _comparisons(numbers)
    references = {study.arms[reference].label for _, reference in pairs}
    over = references.pop() if len(references) == 1 else "RoIPool"
    datasets = [
        dataset
        for dataset in numbers.datasets()
        if _size_bins(numbers, dataset, kind) and any({*p} <= {*numbers.arms(dataset, kind)} for p in pairs)
    ]
    if not datasets:
        return False
    figure, axes = _figure(1, len(datasets), 3.0)
    for panel, dataset in zip(axes, datasets, strict=True):
        bins = _size_bins(numbers, dataset, kind)
        for i, (arm, reference) in enumerate(pairs):
            found = [(j, numbers.effect(arm, reference, dataset, kind, name)) for j, name in enumerate(bins)]
            known = [(j, effect) for j, effect in found if effect is not None]
            if not known:
                continue
            x = [j + 0.8 * ((i + 0.5) / len(pairs) - 0.5) for j, _ in known]
            effects = [effect for _, effect in known]
            colour, marker, _ = _style(places.index(arm))
            _effects(panel, x, effects, (colour, marker, ""), study.arms[arm].label, 2)
        for j in range(1, len(bins)):
            panel.axvline(j - 0.5, color="0.85", linewidth=0.8)
        panel.axhline(0, color="0.4", linewidth=1)
        panel.set_xticks(range(len(bins)), [_bin_label(name) for name in bins])
        panel.set_xlim(-0.5, len(bins) - 0.5)
        _clean(panel, dataset, "object's size (square root of its area, px)", f"{kind} AP over\n{_text(over)} (points)")
    return _save(figure, axes, path)


def gain_by_stride(numbers: Numbers, kind: str, path: Path) -> bool:
    """Plot the gain of RoIAlign over RoIPool by the stride of the pooled feature map, with 95 % intervals."""
    study = numbers.study
    pairs = [(study.arms[b].stride, b, a) for b, a in contrasts.TO_ALIGN.pairs(study)]
    known = [(stride, b, a) for stride, b, a in pairs if stride is not None and stride == study.arms[a].stride]
    strides = sorted({stride for stride, _, _ in known})
    if len(strides) < 2:
        return False
    figure, axes = _figure(1)
    datasets = numbers.datasets()
    shown = False
    for i, dataset in enumerate(datasets):
        found = [(stride, numbers.effect(a, b, dataset, kind, "AP")) for stride, b, a in known]
        points = sorted(((stride, e) for stride, e in found if e is not None), key=lambda point: point[0])
        if not points:
            continue
        shown = True
        x = [strides.index(stride) + 0.08 * (i - (len(datasets) - 1) / 2) for stride, _ in points]
        _effects(axes[0], x, [e for _, e in points], _style(i + 1), dataset, 3)
    if not shown:
        return False
    axes[0].axhline(0, color="0.4", linewidth=1)
    axes[0].set_xticks(range(len(strides)), [str(stride) for stride in strides])
    _clean(axes[0], "", "stride of the finest pooled map (px)", f"{kind} AP, RoIAlign over\nRoIPool (points)")
    return _save(figure, axes, path)


def _series(points: Sequence[CurvePoint], arm: str, name: str) -> list[tuple[int, float, float]]:
    """Compute (step, mean, standard deviation) of a curve over the seeds."""
    steps: dict[int, list[float]] = {}
    for point in points:
        if point.arm == arm and point.name == name:
            steps.setdefault(point.step, []).append(point.value)
    parts = [(step, summary(values)) for step, values in sorted(steps.items())]
    return [(step, part.mean, part.sd or 0.0) for step, part in parts]


def curves(numbers: Numbers, dataset: str, path: Path) -> bool:
    """Plot training curves, a panel for each name: the mean over seeds with a band of one standard deviation."""
    points = [point for point in numbers.records.curves if point.dataset == dataset]
    steps: dict[str, set[int]] = {}
    for point in points:
        steps.setdefault(point.name, set()).add(point.step)
    names = [name for name, at in steps.items() if len(at) > 1 and re.fullmatch(CURVES, name)]
    if not names:
        return False
    across = min(3, len(names))
    rows = -(-len(names) // across)
    figure, axes = _figure(across, rows, 2.3)
    for panel, name in zip(axes, names, strict=False):
        for place, (arm, description) in enumerate(numbers.study.arms.items()):
            series = _series(points, arm, name)
            if not series:
                continue
            step, mean, spread = (np.array(values) for values in zip(*series, strict=True))
            colour, _, line = _style(place)
            scale = 100 if "AP" in name else 1
            mean, spread = scale * mean, scale * spread
            panel.plot(step, mean, color=colour, linestyle=line, linewidth=1.3, label=_text(description.label))
            panel.fill_between(step, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        _clean(panel, f"{name} (%)" if "AP" in name else name, "step", "")
    for panel in axes[len(names) :]:
        panel.set_visible(False)
    return _save(figure, axes, path)
