"""Which arms of a study differ in one thing alone, read from their overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detector.ablation.description import StudyInfo

ALIGN = {"pooler.sampling_ratio": "2", "pooler.aligned": "true", "pooler.mode": "avg"}
GROUPS: dict[str, dict[str, dict[str, str]]] = {
    "pooler": {
        "roialign": {"pooler": "roialign", **ALIGN},
        "roialign_max": {"pooler": "roialign", **ALIGN, "pooler.mode": "max"},
        "roialign_legacy": {"pooler": "roialign", **ALIGN, "pooler.aligned": "false"},
        "roialign_adaptive": {"pooler": "roialign", **ALIGN, "pooler.sampling_ratio": "0"},
        "roipool": {"pooler": "roipool", "pooler.quantization": "round"},
        "roiwarp": {"pooler": "roiwarp", "pooler.sampling_ratio": "2", "pooler.mode": "avg"},
    },
}
"""What the choice of a configuration's file sets, for files that are variants of each other."""
DEFAULTS = {
    "pooler": "roialign",
    "backbone": "resnet18_small_fpn",
    "mask_loss": "sigmoid",
    "mask_head": "fcn",
    "pooler.levels": "fpn",
}
"""What an arm has that does not say otherwise."""

Settings = dict[str, str]


def settings(overrides: Sequence[str]) -> Settings:
    """All that an arm chooses, by key: a pooler's variants spelt out, and the defaults that claims speak of."""
    given = {}
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        given[key.split("@")[0]] = value.strip("'\"").lower()
    chosen = DEFAULTS | {key: value for key, value in given.items() if key in DEFAULTS}
    for group, choices in GROUPS.items():
        chosen |= choices.get(chosen[group], {})
    return chosen | {key: value for key, value in given.items() if key not in GROUPS}


@dataclass(frozen=True)
class Contrast:
    """A change from one choice to another, all else equal."""

    before: Mapping[str, str]
    after: Mapping[str, str]
    free: Sequence[str] = field(default=())
    """keys that belong to only one of the two, and may differ"""

    def pairs(self, study: StudyInfo) -> list[tuple[str, str]]:
        """The pairs of arms (before, after) of which this change is the only difference."""
        arms = {name: settings(arm.overrides) for name, arm in study.arms.items()}
        found = []
        for first, a in arms.items():
            for second, b in arms.items():
                changed = set(self.before) | set(self.after) | set(self.free)
                rest = (a.keys() | b.keys()) - changed
                fits = self.before.items() <= a.items() and self.after.items() <= b.items()
                if fits and all(a.get(key) == b.get(key) for key in rest):
                    found.append((first, second))
        return found


ROIPOOL = GROUPS["pooler"]["roipool"]
ROIALIGN = GROUPS["pooler"]["roialign"]
ROIWARP = GROUPS["pooler"]["roiwarp"]

TO_ALIGN = Contrast(ROIPOOL, ROIALIGN)
TO_WARP = Contrast(ROIPOOL, ROIWARP)
WARP_TO_ALIGN = Contrast(ROIWARP, ROIALIGN)
ONE_SAMPLE = Contrast(ROIALIGN, {**ROIALIGN, "pooler.sampling_ratio": "1"})
AVERAGE_TO_MAX = Contrast(
    {"pooler": "roialign", "pooler.mode": "avg"}, {"pooler": "roialign", "pooler.mode": "max"}
)  # of any number of samples
SOFTMAX_TO_SIGMOID = Contrast({"mask_loss": "softmax"}, {"mask_loss": "sigmoid"})
SIGMOID_TO_AGNOSTIC = Contrast({"mask_loss": "sigmoid"}, {"mask_loss": "class_agnostic"})
MLP_TO_FCN = Contrast({"mask_head": "mlp"}, {"mask_head": "fcn"})
FLOOR_TO_ROUND = Contrast({"pooler.levels": "fpn"}, {"pooler.levels": "keras"})
