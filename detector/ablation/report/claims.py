"""The ledger of claims: what papers claim and published, what was measured, and whether the claim held."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from detector.ablation import contrasts
from detector.ablation.contrasts import Contrast, settings_of
from detector.ablation.description import KINDS
from detector.ablation.report import published
from detector.ablation.report.arithmetic import BINS, SIDE, STRIDE, reach, support
from detector.ablation.report.effects import Effect, Numbers, gain_effect
from detector.ablation.report.published import Published

MARGIN = 0.01
"""Two arms count as equal if the interval of their difference lies within ± this AP."""
EXACT = 1e-6
"""Tolerance for rounding in computed numbers."""

Verdict = Literal["held", "not held", "cannot be told", "not measured", "no direction claimed"]
SizeVerdict = Literal["held", "not held: larger", "not held: smaller", "cannot be told", ""]
Judge = Callable[[Effect], Verdict]

CLAIMS = {
    "C1": "RoIPool quantises twice, RoIAlign never: the RoI's edges and the bins stay where they are.",
    "C2": "RoIAlign in place of RoIPool raises AP, most at high IoU.",
    "C3": "The gain grows as objects shrink, and with the stride.",
    "C4": "The gain is larger on COCO than on VOC, because COCO has more small objects.",
    "C5": "The number of samples in a bin hardly matters: 1 nearly equals 2x2.",
    "C6": "Maximum and average over the samples are equal within noise.",
    "C7": "RoIWarp is no better than RoIPool: the alignment counts, not the interpolation.",
    "C8": "Masks by class through a sigmoid beat a softmax over classes; class-agnostic ones are nearly as good.",
    "C9": "An FCN mask head beats an MLP.",
    "C10": "A RoI's level is the floor of FPN's formula, or is rounded as in the Keras Mask R-CNN.",
    "C11": "RoIPool sends an output's gradient to one cell, RoIAlign to all around its samples, by (1-Δh)(1-Δw).",
    "C12": "Anchors assigned by NWD in place of IoU raise the AP of tiny objects.",
    "C13": "Receptive fields assigned by their ranking (RFLA) raise the AP of tiny objects over anchors and IoU.",
    "C14": "Windows of large images raise the AP of small objects, and training on windows raises it further.",
    "C15": "RoIAlign's gain shrinks as images are enlarged: RoIPool's error becomes a smaller share of an object.",
    "C16": "RoIAlign's gain in masks is larger where their edges are measured, by Boundary AP, than by mask AP.",
}
"""The claims in words, by number."""
COCO_LIKE_AND_VOC_LIKE = (("shapes_coco", "shapes_voc"), ("coco", "voc07"), ("coco", "voc0712"))


@dataclass(frozen=True)
class Row:
    """One measurement of a claim."""

    claim: str
    what: str
    where: str
    """study, dataset, kind, arms"""
    kind: str
    """box or mask; empty for computed claims"""
    published: str
    """in points, with its source; empty if nothing was published"""
    measured: Effect | str
    """an effect in fractions, or text for computed claims"""
    direction: Verdict
    size: SizeVerdict
    runs: frozenset[frozenset[str]] = frozenset()
    """overrides of the measured runs, to count a row once that several studies have by shared runs"""


def rises(effect: Effect) -> Verdict:
    """Judge whether a difference is above zero: its interval excludes zero."""
    if effect.low is None or effect.high is None or effect.low <= 0 <= effect.high:
        return "cannot be told"
    return "held" if effect.low > 0 else "not held"


def equals(effect: Effect) -> Verdict:
    """Judge whether two arms are equal: the interval lies within the margin (held) or outside of it (not held)."""
    if effect.low is None or effect.high is None:
        return "cannot be told"
    if effect.low >= -MARGIN and effect.high <= MARGIN:
        return "held"
    return "not held" if effect.low > MARGIN or effect.high < -MARGIN else "cannot be told"


def no_better(effect: Effect) -> Verdict:
    """Judge whether an arm is no better than another, up to the margin."""
    if effect.low is None or effect.high is None or effect.low <= MARGIN < effect.high:
        return "cannot be told"
    return "held" if effect.high <= MARGIN else "not held"


def no_worse(effect: Effect) -> Verdict:
    """Judge whether an arm is no worse than another, up to the margin."""
    return no_better(replace(effect, low=_minus(effect.high), high=_minus(effect.low)))


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def undirected(effect: Effect) -> Verdict:
    """Return the verdict on claims without a direction."""
    return "no direction claimed"


def size(effect: Effect, gain: float | None) -> SizeVerdict:
    """Judge whether the interval contains the published gain (in points) and excludes zero."""
    if gain is None:
        return ""
    if effect.low is None or effect.high is None:
        return "cannot be told"
    if 100 * effect.low > gain:
        return "not held: larger"
    if 100 * effect.high < gain:
        return "not held: smaller"
    return "cannot be told" if effect.low <= 0 <= effect.high else "held"


@dataclass(frozen=True)
class Question:
    """A claim about the gain in a metric, or about its excess over the gain in the metric `less`."""

    claim: str
    contrast: Contrast
    change: str
    judge: Judge
    metric: str = "AP"
    less: str | None = None
    published: Published | None = None
    kinds: tuple[str, ...] = KINDS
    sized: bool = True
    """whether the published gain is compared; not for claims of equality, which the margin decides"""

    @property
    def by_size(self) -> bool:
        """Whether the metric is of small, medium or large objects, which datasets may define differently."""
        return any(metric in ("APs", "APm", "APl") for metric in (self.metric, self.less))

    def rows(self, numbers: Numbers) -> Iterator[Row]:
        """Yield a row for each measured pair of arms, dataset and kind."""
        for dataset in numbers.datasets():
            for before, after in self.contrast.pairs(numbers.study):
                for kind in (k for k in self.kinds if k in numbers.kinds(dataset)):
                    effect = _gain(numbers, before, after, dataset, kind, self.metric, self.less)
                    if effect is not None:
                        yield self._row(numbers, before, after, dataset, kind, effect)

    def _row(self, numbers: Numbers, before: str, after: str, dataset: str, kind: str, effect: Effect) -> Row:
        # Mask R-CNN's table 2 gives mask AP; what is asked of boxes alone was published of boxes.
        source = self.published if kind == "mask" or self.kinds == ("box",) else None
        if source is None and self.contrast is contrasts.TO_ALIGN:
            source = published.TO_ALIGN.get((kind, family(numbers, after)))
        words = source.words(self.metric, self.less) if source else ""
        alike = not self.by_size or tuple(numbers.study.size_bins.get(dataset, ())) == published.SIZE_BINS
        gain = source.gain(self.metric, self.less) if source and self.sized and alike else None
        what = f"{self.change}: {self.metric}" + (f" more than {self.less}" if self.less else "")
        where = f"{numbers.study.name}, {dataset}, {kind}: {after} against {before}"
        runs = numbers.overrides((before, after), (dataset,))
        return Row(self.claim, what, where, kind, words, effect, self.judge(effect), size(effect, gain), runs)


def _gain(
    numbers: Numbers, before: str, after: str, dataset: str, kind: str, metric: str, less: str | None
) -> Effect | None:
    if less is None:
        return numbers.effect(after, before, dataset, kind, metric)
    a, b = (numbers.values(arm, dataset, kind, metric) for arm in (after, before))
    c, d = (numbers.values(arm, dataset, kind, less) for arm in (after, before))
    return gain_effect(a, b, c, d)


def family(numbers: Numbers, arm: str) -> str:
    """Return the family of an arm's backbone, the end of its name: fpn, c4, c5, dc5.

    Empty if the backbone is chosen outside of the arm, or if RoIs are pooled from some levels of the pyramid only.
    """
    own = numbers.study.arms[arm].overrides
    if any(o.startswith("backbone.roi_strides=") for o in own):
        return ""
    commands = " ".join(run.command for run in numbers.records.runs if run.arm == arm)
    if not any(o.startswith("backbone=") for o in own) and re.search(r"[ '](experiment|backbone)=", commands):
        return ""
    return settings_of(own)["backbone"].rsplit("_", 1)[-1]


TO_ALIGN = "RoIPool to RoIAlign"
VERY_TINY, TINY = "AP[0,8)", "AP[8,16)"
"""AP of AI-TOD's very tiny and tiny objects, by the names of the fine size bins."""
QUESTIONS = (
    Question("C2", contrasts.TO_ALIGN, TO_ALIGN, rises),
    Question("C2", contrasts.TO_ALIGN, TO_ALIGN, rises, "AP75", "AP50"),
    Question("C3", contrasts.TO_ALIGN, TO_ALIGN, rises, "APs", "APl"),
    Question("C3", contrasts.TO_ALIGN, TO_ALIGN, rises, "APs", "APm"),
    Question("C3", contrasts.TO_ALIGN, TO_ALIGN, rises, "APm", "APl"),
    Question("C5", contrasts.ONE_SAMPLE, "2x2 samples to 1", equals),
    Question(
        "C6", contrasts.AVERAGE_TO_MAX, "average to maximum", equals, published=published.AVERAGE_TO_MAX, sized=False
    ),
    Question("C7", contrasts.TO_WARP, "RoIPool to RoIWarp", no_better, published=published.POOL_TO_WARP, sized=False),
    Question("C7", contrasts.WARP_TO_ALIGN, "RoIWarp to RoIAlign", rises, published=published.WARP_TO_ALIGN),
    Question(
        "C8",
        contrasts.SOFTMAX_TO_SIGMOID,
        "softmax to sigmoid",
        rises,
        published=published.SOFTMAX_TO_SIGMOID,
        kinds=("mask",),
    ),
    Question(
        "C8",
        contrasts.SIGMOID_TO_AGNOSTIC,
        "by class to class-agnostic",
        no_worse,
        published=published.SIGMOID_TO_AGNOSTIC,
        kinds=("mask",),
        sized=False,
    ),
    Question("C9", contrasts.MLP_TO_FCN, "MLP to FCN", rises, published=published.MLP_TO_FCN, kinds=("mask",)),
    Question("C10", contrasts.FLOOR_TO_ROUND, "floor to rounding", undirected),
    Question("C12", contrasts.TO_NWD, "IoU to NWD", rises, kinds=("box",)),
    Question("C12", contrasts.TO_NWD, "IoU to NWD", rises, VERY_TINY, kinds=("box",)),
    Question("C12", contrasts.TO_NWD, "IoU to NWD", rises, TINY, kinds=("box",)),
    Question("C13", contrasts.TO_RFLA, "IoU to RFLA", rises, published=published.TO_RFLA, kinds=("box",), sized=False),
    Question("C13", contrasts.TO_RFLA, "IoU to RFLA", rises, VERY_TINY, kinds=("box",)),
    Question("C13", contrasts.TO_RFLA, "IoU to RFLA", rises, TINY, kinds=("box",)),
    Question("C14", contrasts.TO_TILES, "whole to tiled", rises, kinds=("box",)),
    Question("C14", contrasts.TO_TILES, "whole to tiled", rises, "APs", kinds=("box",)),
    Question("C14", contrasts.TO_TRAINED_TILES, "tiled to tiled in training", rises, kinds=("box",)),
    Question("C14", contrasts.TO_TRAINED_TILES, "tiled to tiled in training", rises, "APs", kinds=("box",)),
)


def by_stride(numbers: Numbers) -> Iterator[Row]:
    """Yield C3's rows by stride: the excess of RoIAlign's gain at the larger stride, by each stride's first arms."""
    at: dict[int, tuple[str, str]] = {}
    for before, after in contrasts.TO_ALIGN.pairs(numbers.study):
        first, second = (numbers.study.arms[arm].stride for arm in (before, after))
        if first is not None and first == second:
            at.setdefault(first, (before, after))
    for fine, coarse in pairwise(sorted(at)):
        (b, a), (d, c) = at[coarse], at[fine]
        for dataset in numbers.datasets():
            for kind in KINDS:
                known = published.BY_STRIDE.get((kind, family(numbers, a), family(numbers, c)))
                effect = gain_effect(*(numbers.values(arm, dataset, kind, "AP") for arm in (a, b, c, d)))
                if effect is None:
                    continue
                yield Row(
                    "C3",
                    f"{TO_ALIGN}: AP, more at stride {coarse} than at {fine}",
                    f"{numbers.study.name}, {dataset}, {kind}: {a} against {b}, and {c} against {d}",
                    kind,
                    known.words("AP") if known else "",
                    effect,
                    rises(effect),
                    size(effect, known.gain("AP") if known else None),
                    numbers.overrides((a, b, c, d), (dataset,)),
                )


def by_scale(numbers: Numbers) -> Iterator[Row]:
    """Yield C15's rows: the excess of RoIAlign's gain at the smaller input size, by each size's first arms."""
    at: dict[int, tuple[str, str]] = {}
    for before, after in contrasts.TO_ALIGN.pairs(numbers.study):
        sizes = settings_of(numbers.study.arms[before].overrides).get(contrasts.VAL_SIZES, "")
        if re.fullmatch(r"\[\d+\]", sizes):
            at.setdefault(int(sizes.strip("[]")), (before, after))
    for small, large in pairwise(sorted(at)):
        (b, a), (d, c) = at[small], at[large]
        for dataset in numbers.datasets():
            effect = gain_effect(*(numbers.values(arm, dataset, "box", "AP") for arm in (a, b, c, d)))
            if effect is not None:
                where = f"{numbers.study.name}, {dataset}, box: {a} against {b}, and {c} against {d}"
                what = f"{TO_ALIGN}: AP, more at {small} px than at {large}"
                runs = numbers.overrides((a, b, c, d), (dataset,))
                yield Row("C15", what, where, "box", "", effect, rises(effect), "", runs)


def by_boundary(numbers: Numbers) -> Iterator[Row]:
    """Yield C16's rows: the excess of RoIAlign's gain in Boundary AP over that in mask AP."""
    for dataset in numbers.datasets():
        for before, after in contrasts.TO_ALIGN.pairs(numbers.study):
            effect = gain_effect(
                *(numbers.values(arm, dataset, kind, "AP") for kind in ("boundary", "mask") for arm in (after, before))
            )
            if effect is not None:
                where = f"{numbers.study.name}, {dataset}, mask: {after} against {before}"
                runs = numbers.overrides((before, after), (dataset,))
                what = f"{TO_ALIGN}: Boundary AP more than AP"
                yield Row("C16", what, where, "mask", "", effect, rises(effect), "", runs)


def by_dataset(numbers: Numbers) -> Iterator[Row]:
    """Yield C4's rows: the excess of RoIAlign's gain on data like COCO over that on data like VOC.

    Paired by seed, since runs of one seed have the same initial weights on both datasets. The paired test is valid
    whether or not this correlates them, and costs a few degrees of freedom if it does not; Welch's test would be wrong
    if it does.
    """
    for coco, voc in COCO_LIKE_AND_VOC_LIKE:
        for before, after in contrasts.TO_ALIGN.pairs(numbers.study):
            for kind in KINDS:
                effect = gain_effect(
                    *(numbers.values(arm, dataset, kind, "AP") for dataset in (coco, voc) for arm in (after, before))
                )
                if effect is not None:
                    where = f"{numbers.study.name}, {coco} against {voc}, {kind}: {after} against {before}"
                    what = f"{TO_ALIGN}: AP, more on {coco} than on {voc}"
                    runs = numbers.overrides((before, after), (coco, voc))
                    yield Row("C4", what, where, kind, "", effect, rises(effect), "", runs)


def computed() -> list[Row]:
    """Return the rows of C1 and C11, which need no training."""
    found, cells = reach(), support()
    exact = all(abs(got - want) < EXACT for got, want in ((found.textbook, -25), (found.in_use, 39), (found.align, 0)))
    words = f"floors {found.textbook:+.0f} px, in use {found.in_use:+.0f} px, RoIAlign {found.align:+.0f} px"
    right = cells.pool == 1 and cells.align > 1 and cells.error < EXACT
    return [
        Row(
            "C1",
            f"How far beyond its edge a box of {SIDE} px is pooled",
            f"stride {STRIDE}, {BINS}x{BINS} bins; computed by the operators' reference",
            "",
            "floors -25 px, in use +39 px, RoIAlign 0 px",
            words,
            "held" if exact else "not held",
            "held" if exact else "",
        ),
        Row(
            "C11",
            "Cells that get the gradient of one output",
            "RoIPool; RoIAlign with 2x2 samples; computed by the operators' reference",
            "",
            "1; all closer than 1 to a sample, by (1-Δh)(1-Δw)",
            f"{cells.pool}; {cells.align}, off the formula by {cells.error:.1g} at most",
            "held" if right else "not held",
            "",
        ),
    ]


def ledger(studies: Sequence[Numbers]) -> list[Row]:
    """Collect all rows, by claim; a claim without a measurement has one row, "not measured".

    A row that several studies have by the same runs is listed once, for the first of them.
    """
    rows = computed()
    for numbers in studies:
        found = [row for question in QUESTIONS for row in question.rows(numbers)]
        counted = {(row.claim, row.what, row.kind, row.runs) for row in rows if row.runs}
        found += [*by_stride(numbers), *by_dataset(numbers), *by_scale(numbers), *by_boundary(numbers)]
        rows += [row for row in found if (row.claim, row.what, row.kind, row.runs) not in counted]
    spoken = {row.claim for row in rows}
    rows += [Row(claim, "", "", "", "", "", "not measured", "") for claim in CLAIMS if claim not in spoken]
    return sorted(rows, key=lambda row: list(CLAIMS).index(row.claim))
