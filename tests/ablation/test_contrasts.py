"""Which arms differ in one thing alone; and that the defaults written down are the configuration's."""

import pytest
from hydra import compose, initialize_config_dir

from detector.ablation import contrasts
from detector.ablation.contrasts import DEFAULTS, GROUPS, settings_of
from detector.ablation.description import Arm, StudyInfo
from tests.ablation.planted import POOLERS, strides
from tests.conftest import ROOT


def study(arms: dict[str, Arm]) -> StudyInfo:
    return StudyInfo("s", "", "", next(iter(arms)), arms, ["shapes_coco"], [0])


def chosen(*overrides: str) -> dict[str, str]:
    """What the configuration says of the keys that claims speak of."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
    groups = ("pooler", "backbone", "assignment", "mask_loss", "mask_head")
    values = {key: str(config.hydra.runtime.choices[key]) for key in groups}
    values["tiles"] = "null" if config.tiles is None else str(config.tiles)
    values |= {f"pooler.{k}": str(v).lower() for k, v in config.pooler.items() if not hasattr(v, "items")}
    return values


def test_defaults_are_those_of_studies() -> None:
    values = chosen("experiment=study_defaults")
    assert {key: values[key] for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", list(GROUPS["pooler"]))
def test_variants_are_the_configurations(name: str) -> None:
    values = chosen(f"pooler={name}")
    spelt = {key: value for key, value in GROUPS["pooler"][name].items() if key != "pooler"}
    assert spelt
    assert {key: values[key] for key in spelt} == spelt


def test_finds_pairs_that_differ_in_one_thing() -> None:
    poolers = study(POOLERS)
    assert contrasts.TO_ALIGN.pairs(poolers) == [("roipool", "roialign")]
    assert contrasts.AVERAGE_TO_MAX.pairs(poolers) == [("roialign", "roialign_max")]
    adaptive = {
        f"adaptive_{mode}": Arm("", ["pooler=roialign_adaptive", f"pooler.mode={mode}"]) for mode in ("avg", "max")
    }
    assert contrasts.AVERAGE_TO_MAX.pairs(study(POOLERS | adaptive)) == [
        ("roialign", "roialign_max"),
        ("adaptive_avg", "adaptive_max"),
    ]
    assert contrasts.ONE_SAMPLE.pairs(poolers) == [("roialign", "one_sample")]
    assert contrasts.TO_WARP.pairs(poolers) == [("roipool", "roiwarp")]
    assert contrasts.FLOOR_TO_ROUND.pairs(poolers) == []
    of_strides = contrasts.TO_ALIGN.pairs(study(strides()))
    assert of_strides == [(f"{name}_roipool", f"{name}_roialign") for name in ("C5", "C4", "FPN")]


def test_the_textbooks_roipool_is_another_operator() -> None:
    arms = {
        "floor": Arm("", ["pooler=roipool", "pooler.quantization=floor"]),
        "align": Arm("", []),
        "steps": Arm("", ["pooler=roipool", "schedule.steps=9"]),
    }
    assert contrasts.TO_ALIGN.pairs(study(arms)) == []


def test_a_value_has_the_last_word_over_a_file() -> None:
    assert settings_of(["pooler.mode=max", "pooler=roialign_legacy"])["pooler.mode"] == "max"
    assert settings_of(["pooler.aligned=True"])["pooler.aligned"] == "true"
