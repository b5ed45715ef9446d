"""The ledger: verdicts follow the data."""

from dataclasses import replace

import numpy as np
import pytest

from detector.ablation.description import Arm, StudyInfo
from detector.ablation.records import MetricRow, Records, Run
from detector.ablation.report.arithmetic import reach, support
from detector.ablation.report.claims import CLAIMS, Row, equals, ledger, no_better, no_worse, rises, size
from detector.ablation.report.effects import Effect, Numbers
from detector.ablation.report.tables import overview
from tests.ablation.planted import GAINS, POOLERS, STRIDE_GAINS, planted, strides

MASKS = {
    "sigmoid": Arm("sigmoid", ["model=mask_rcnn"]),
    "softmax": Arm("softmax", ["model=mask_rcnn", "mask_loss=softmax"]),
    "agnostic": Arm("class-agnostic", ["model=mask_rcnn", "mask_loss=class_agnostic"]),
    "mlp": Arm("MLP", ["model=mask_rcnn", "mask_head=mlp"]),
}
MASK_GAINS = {"sigmoid": 0.0, "softmax": -0.055, "agnostic": -0.001, "mlp": -0.03}


def rows(records: Records, claim: str, what: str = "") -> list[Row]:
    found = [row for row in ledger([Numbers(records)]) if row.claim == claim and what in row.what]
    assert found
    return found


def directions(found: list[Row]) -> set[str]:
    return {row.direction for row in found}


def test_a_planted_effect_is_held_and_its_opposite_is_not() -> None:
    for claim in ("C2", "C3", "C4"):
        assert directions(rows(planted(), claim)) == {"held"}
        assert directions(rows(planted(sign=-1), claim)) == {"not held"}


def test_no_effect_cannot_be_told() -> None:
    effect = Effect(0.001, 3, -0.02, 0.022, 0.8, "seeds")
    assert rises(effect) == "cannot be told"
    assert rises(replace(effect, low=None, high=None)) == "cannot be told"
    assert rises(Effect(-0.03, 3, -0.05, -0.01)) == "not held"


@pytest.mark.parametrize(
    ("low", "high", "equal", "better"),
    [
        (-0.004, 0.006, "held", "held"),
        (0.002, 0.006, "held", "held"),  # different, but by less than the margin
        (-0.03, 0.005, "cannot be told", "held"),
        (-0.005, 0.03, "cannot be told", "cannot be told"),
        (0.011, 0.03, "not held", "not held"),
        (-0.03, -0.011, "not held", "held"),
        (None, None, "cannot be told", "cannot be told"),
    ],
)
def test_equality_has_a_margin(low: float | None, high: float | None, equal: str, better: str) -> None:
    effect = Effect(0.0, 3, low, high)
    assert (equals(effect), no_better(effect)) == (equal, better)
    turned = [None if end is None else -end for end in (high, low)]
    assert no_worse(Effect(0.0, 3, *turned)) == better


@pytest.mark.parametrize(
    ("low", "high", "gain", "verdict"),
    [
        (0.02, 0.04, 3.4, "held"),
        (0.04, 0.05, 3.4, "not held: larger"),
        (0.01, 0.02, 3.4, "not held: smaller"),
        (-0.01, 0.05, 3.4, "cannot be told"),
        (None, None, 3.4, "cannot be told"),
        (0.02, 0.04, None, ""),
    ],
)
def test_size(low: float | None, high: float | None, gain: float | None, verdict: str) -> None:
    assert size(Effect(0.03, 3, low, high), gain) == verdict


def test_equal_arms_and_roiwarp() -> None:
    assert directions(rows(planted(), "C5")) == directions(rows(planted(), "C6")) == {"held"}
    assert directions(rows(planted(), "C7")) == {"held"}
    far = GAINS | {"one_sample": 0.1, "roialign_max": 0.3, "roiwarp": 0.25}
    for claim in ("C5", "C6", "C7"):
        assert directions(rows(planted(gains=far), claim)) == {"not held"}


def test_the_gain_by_stride() -> None:
    found = rows(planted(strides(), STRIDE_GAINS, "FPN_roipool", kinds=("box", "mask")), "C3", "stride")
    assert {row.what.split(": ")[1] for row in found} == {
        "AP, more at stride 32 than at 16",
        "AP, more at stride 16 than at 4",
    }
    assert directions(found) == {"held"}
    coarse = next(row for row in found if "32" in row.what and "shapes_coco, mask" in row.where)
    assert coarse.published.startswith("+3.9")
    assert isinstance(coarse.measured, Effect)
    assert coarse.measured.value == pytest.approx(0.1, abs=0.005)
    flat = {name: (0.25 if name.endswith("align") else 0.05) for name in STRIDE_GAINS}
    assert "held" not in directions(rows(planted(strides(), flat, "FPN_roipool"), "C3", "stride"))


def test_masks() -> None:
    records = planted(MASKS, MASK_GAINS, "sigmoid", kinds=("box", "mask"), name="mask_loss", datasets=["shapes_coco"])
    sigmoid, agnostic = rows(records, "C8")
    assert (sigmoid.direction, sigmoid.size, agnostic.direction) == ("held", "held", "held")
    assert sigmoid.published.startswith("+5.5\nAP 24.8 to 30.3")
    assert ", mask: " in sigmoid.where
    better = planted(MASKS, MASK_GAINS | {"agnostic": 0.03}, "sigmoid", kinds=("mask",), datasets=["shapes_coco"])
    assert rows(better, "C8")[1].direction == "held"  # nearly as good, or better
    (fcn,) = rows(records, "C9")
    assert (fcn.direction, fcn.size) == ("held", "not held: larger")


def test_published_numbers_follow_the_backbone() -> None:
    records = planted(strides(), STRIDE_GAINS, "FPN_roipool", kinds=("box", "mask"), datasets=["shapes_coco"])
    gains = {row.where: row.published.split("\n")[0] for row in rows(records, "C2") if row.what.endswith(": AP")}
    assert gains == {
        "pooler, shapes_coco, box: C5_roialign against C5_roipool": "+5.8",
        "pooler, shapes_coco, mask: C5_roialign against C5_roipool": "+7.3",
        "pooler, shapes_coco, box: C4_roialign against C4_roipool": "",
        "pooler, shapes_coco, mask: C4_roialign against C4_roipool": "+3.4",
        "pooler, shapes_coco, box: FPN_roialign against FPN_roipool": "+1.1",
        "pooler, shapes_coco, mask: FPN_roialign against FPN_roipool": "+1.5",
    }


def test_numbers_of_masks_are_not_set_beside_boxes() -> None:
    records = planted(kinds=("box", "mask"), datasets=["shapes_coco"])
    for claim in ("C6", "C7"):
        found = rows(records, claim)
        assert {bool(row.published) for row in found if ", mask: " in row.where} == {True}
        assert {(row.published, row.size) for row in found if ", box: " in row.where} == {("", "")}


def test_a_backbone_that_the_arm_does_not_name_has_no_published_numbers() -> None:
    records = planted(datasets=["shapes_coco"])
    assert rows(records, "C2")[0].published
    for word in ("backbone=vgg16", "'experiment=[voc07_vgg16,dry]'"):
        runs = [replace(run, command=f"python scripts/train.py {word} seed=0") for run in records.runs]
        assert {row.published for row in rows(replace(records, runs=runs), "C2")} == {""}


def test_one_level_of_a_pyramid_has_no_published_numbers() -> None:
    arms = {name: replace(arm, overrides=[*arm.overrides, "backbone.roi_strides=[8]"]) for name, arm in POOLERS.items()}
    assert {row.published for row in rows(planted(arms, datasets=["shapes_coco"]), "C2")} == {""}


def test_every_claim_is_spoken_of() -> None:
    found = ledger([Numbers(planted())])
    assert list(dict.fromkeys(row.claim for row in found)) == list(CLAIMS)
    assert [row.claim for row in found if row.direction == "not measured"] == [
        *("C8", "C9", "C10"),
        *("C12", "C13", "C14", "C15", "C16"),
    ]


def test_runs_that_studies_share_count_once() -> None:
    first, again = (Numbers(planted(name=name)) for name in ("pooler", "samples"))
    assert ledger([first, again]) == ledger([first])
    fewer = Numbers(planted(name="samples", seeds=[0, 1, 2]))
    assert len([row for row in ledger([first, fewer]) if row.claim == "C2"]) == 2 * len(rows(planted(), "C2"))
    planned = replace(planted(name="samples"), runs=[])  # nothing is known of the runs
    assert len(ledger([first, Numbers(planned)])) > len(ledger([first]))


def test_sizes_are_set_beside_published_ones_where_they_mean_the_same() -> None:
    arms = {name: Arm(name, [f"pooler={name}", "backbone=resnet50_fpn"]) for name in ("roipool", "roialign")}
    records = planted(arms, datasets=["coco"])

    def by_bins(small: float, large: float) -> set[str]:
        bins = {"coco": [small, large]}
        found = rows(replace(records, study=replace(records.study, size_bins=bins)), "C3", "APs more than APl")
        assert directions(found) == {"held"}
        return {row.size for row in found}

    assert by_bins(32, 96) == {"not held: larger"}
    assert by_bins(16, 48) == {""}


def test_levels_are_compared_without_a_direction() -> None:
    arms = {"fpn": Arm("floor", []), "keras": Arm("round", ["pooler.levels=keras"])}
    found = rows(planted(arms, {"fpn": 0.0, "keras": 0.01}, "fpn", name="levels"), "C10")
    assert directions(found) == {"no direction claimed"}
    assert len(found) == 2


def test_one_seed_rests_on_the_images() -> None:
    records = planted(seeds=[0], datasets=["shapes_coco"])
    row = rows(records, "C2")[0]
    assert isinstance(row.measured, Effect)
    assert (row.measured.by, row.measured.n, row.measured.p) == ("images", 1, None)
    assert row.measured.interval == pytest.approx((0.18, 0.22))
    (row,) = rows(records, "C6")  # neither arm is the baseline, whose differences alone are kept
    assert isinstance(row.measured, Effect)
    assert row.measured.interval is None
    assert directions(rows(planted(seeds=[0]), "C4")) == {"cannot be told"}
    line = next(line for line in overview(ledger([Numbers(records)])).rows if line[0] == "C2")
    assert line[2].startswith("held (one seed, over images)")
    assert line[3].startswith("not held: larger (one seed, over images)")


def test_images_among_which_nothing_varies_show_no_certainty() -> None:
    records = planted(seeds=[0], datasets=["shapes_coco"])
    flat = [replace(gain, low=0.0, high=0.0) for gain in records.differences]
    assert directions(rows(replace(records, differences=flat), "C2")) == {"cannot be told"}
    assert {row.size for row in rows(replace(records, differences=flat), "C2")} <= {"cannot be told", ""}


def test_an_interval_over_images_turns_with_the_arms() -> None:
    numbers = Numbers(planted(seeds=[0], datasets=["shapes_coco"]))
    there = numbers.effect("roialign", "roipool", "shapes_coco", "box", "AP")
    back = numbers.effect("roipool", "roialign", "shapes_coco", "box", "AP")
    assert there is not None
    assert back is not None
    assert there.interval is not None
    assert back.interval == (-there.interval[1], -there.interval[0])
    assert back.value == pytest.approx(-there.value)


def test_arithmetic() -> None:
    found, cells = reach(), support()
    assert (found.textbook, found.in_use) == (-25, 39)
    assert found.align == pytest.approx(0, abs=1e-9)
    assert cells.pool == 1
    assert cells.align > 4
    assert cells.error < 1e-12


def grid(name: str, arms: dict[str, tuple[list[str], float]], kinds: dict[str, float]) -> Records:
    """Plant a study of boxes: overrides and AP of each arm, and how much of the gain each kind or metric shows."""
    info = StudyInfo(
        name, "t", "q", next(iter(arms)), {a: Arm(a, o) for a, (o, _) in arms.items()}, ["tiny"], [0, 1, 2]
    )
    records = Records(info)
    for place_of_arm, (arm, (_, value)) in enumerate(arms.items()):
        for seed in (0, 1, 2):
            noise = np.random.default_rng([place_of_arm, seed]).normal(0, 0.001, len(kinds))
            records.runs.append(Run(name, arm, "tiny", seed, f"train {arm}", "", "2026-01-01 00:00", 1.0, 1, 1, 1))
            for error, (kind, share) in zip(noise, kinds.items(), strict=True):
                place, _, metric = kind.partition("/")
                number = 0.4 + share * value + float(error)
                records.metrics.append(MetricRow(name, arm, "tiny", seed, place, metric, number, None, None))
    return records


def test_assignments_are_compared_with_each_pooler() -> None:
    arms = {
        f"{a}_{p}": ([f"assignment={a}", f"pooler={p}"], value + (0.02 if p == "roialign" else 0.0))
        for a, value in (("iou", 0.0), ("nwd", 0.05), ("rfla", -0.05))
        for p in ("roipool", "roialign")
    }
    records = grid("assignment", arms, {"box/AP": 1.0, "box/AP[0,8)": 2.0, "box/AP[8,16)": 0.5})
    assert directions(rows(records, "C12")) == {"held"}
    assert directions(rows(records, "C13")) == {"not held"}
    found = rows(records, "C12")
    assert len(found) == 2 * 3
    assert {row.where.rpartition(": ")[2] for row in found} == {
        f"nwd_{p} against iou_{p}" for p in ("roipool", "roialign")
    }
    assert rows(records, "C13", "RFLA: AP")[0].published.startswith("+10.0")


def test_windows_are_compared_in_detection_and_in_training() -> None:
    size = "dataset.train_augment.short_sizes"
    arms = {
        "whole": (["tiles=null", f"{size}=[512]"], 0.0),
        "tiled": (["tiles=512", f"{size}=[512]"], 0.04),
        "trained": (["tiles=512", f"{size}=null"], 0.01),
    }
    found = rows(grid("slicing", arms, {"box/AP": 1.0, "box/APs": 1.0}), "C14")
    assert [(row.what, row.direction) for row in found] == [
        ("whole to tiled: AP", "held"),
        ("whole to tiled: APs", "held"),
        ("tiled to tiled in training: AP", "not held"),
        ("tiled to tiled in training: APs", "not held"),
    ]


@pytest.mark.parametrize(("shrinks", "verdict"), [(1, "held"), (-1, "not held")])
def test_gains_are_compared_between_input_sizes(shrinks: int, verdict: str) -> None:
    arms = {
        f"{p}_{size}": ([f"pooler={p}", f"dataset.val_augment.short_sizes=[{size}]"], gain if p == "roialign" else 0.0)
        for size, gain in ((512, 0.05), (1024, 0.05 - 0.03 * shrinks))
        for p in ("roipool", "roialign")
    }
    (row,) = rows(grid("scale", arms, {"box/AP": 1.0}), "C15")
    assert (row.direction, row.what) == (verdict, "RoIPool to RoIAlign: AP, more at 512 px than at 1024")


def test_boundary_ap_is_compared_with_mask_ap() -> None:
    arms = {p: ([f"pooler={p}"], gain) for p, gain in (("roipool", 0.0), ("roialign", 0.03))}
    for share, verdict in ((2.0, "held"), (0.5, "not held")):
        (row,) = rows(grid("masks", arms, {"mask/AP": 1.0, "boundary/AP": share}), "C16")
        assert row.direction == verdict
