"""Find the pairs of a study's arms that differ in one choice, from their overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detector.ablation.description import StudyInfo
from detector.config.overrides import key_of

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
"""The keys set by each choice of a configuration group whose files are variants of each other."""
DEFAULTS = {
    "pooler": "roialign",
    "backbone": "resnet18_small_fpn",
    "assignment": "iou",
    "mask_loss": "sigmoid",
    "mask_head": "fcn",
    "pooler.levels": "fpn",
    "tiles": "null",
}
"""The choices of an arm that does not override them."""

Settings = dict[str, str]


def settings_of(overrides: Sequence[str]) -> Settings:
    """Return the settings of an arm by key, with the keys that its pooler's file sets and the defaults above."""
    given = {}
    for override in overrides:
        given[key_of(override)] = override.partition("=")[2].strip("'\"").lower()
    chosen = DEFAULTS | {key: value for key, value in given.items() if key in DEFAULTS}
    for group, choices in GROUPS.items():
        chosen |= choices.get(chosen[group], {})
    return chosen | {key: value for key, value in given.items() if key not in GROUPS}


@dataclass(frozen=True)
class Contrast:
    """A change of some settings, all others equal."""

    before: Mapping[str, str]
    after: Mapping[str, str]
    free: Sequence[str] = field(default=())
    """further keys in which the arms may differ"""

    def pairs(self, study: StudyInfo) -> list[tuple[str, str]]:
        """Return the pairs of arms (before, after) that differ in this change only."""
        arms = {name: settings_of(arm.overrides) for name, arm in study.arms.items()}
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
)  # with any number of samples
TO_NWD = Contrast({"assignment": "iou"}, {"assignment": "nwd"})
TO_RFLA = Contrast({"assignment": "iou"}, {"assignment": "rfla"})
TO_TILES = Contrast({"tiles": "null"}, {"tiles": "512"})
TRAIN_SIZES, VAL_SIZES = "dataset.train_augment.short_sizes", "dataset.val_augment.short_sizes"
TO_TRAINED_TILES = Contrast({"tiles": "512", TRAIN_SIZES: "[512]"}, {"tiles": "512", TRAIN_SIZES: "null"})
SOFTMAX_TO_SIGMOID = Contrast({"mask_loss": "softmax"}, {"mask_loss": "sigmoid"})
SIGMOID_TO_AGNOSTIC = Contrast({"mask_loss": "sigmoid"}, {"mask_loss": "class_agnostic"})
MLP_TO_FCN = Contrast({"mask_head": "mlp"}, {"mask_head": "fcn"})
FLOOR_TO_ROUND = Contrast({"pooler.levels": "fpn"}, {"pooler.levels": "keras"})
