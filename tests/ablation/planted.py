"""Records with planted effects, for the tests of the report."""

from collections.abc import Sequence

import numpy as np

from detector.ablation.description import Arm, StudyInfo
from detector.ablation.records import CurvePoint, Gain, MetricRow, Records, Run

SIZES = ("[0,8)", "[8,16)", "[16,32)", "[32,64)", "[64,128)", "[128,inf)")
POOLERS = {
    "roipool": Arm("RoIPool", ["pooler=roipool"]),
    "roialign": Arm("RoIAlign (2x2)", ["pooler=roialign"]),
    "roialign_max": Arm("RoIAlign, max", ["pooler=roialign_max"]),
    "one_sample": Arm("RoIAlign, 1 sample", ["pooler=roialign", "pooler.sampling_ratio=1"]),
    "roiwarp": Arm("RoIWarp_50% & co", ["pooler=roiwarp"]),
}
GAINS = {"roipool": 0.0, "roialign": 0.2, "roialign_max": 0.201, "one_sample": 0.199, "roiwarp": 0.001}


def gain_of(metric: str, gain: float) -> float:
    """More at high IoU than at low, more on small objects than on large ones."""
    if metric.startswith("AP@"):
        return gain * 2 * (float(metric[3:]) - 0.5)
    if "[" in metric:
        return gain * (1.3 - 0.1 * [metric.endswith(size) for size in SIZES].index(True))
    return gain * {"AP50": 0.1, "AP75": 1.2, "APs": 1.2, "APl": 0.8}.get(metric, 1.0)


def metrics() -> list[str]:
    main = ["AP", "AP50", "AP75", "APs", "APm", "APl", "IoU"]
    return [*main, *(f"AP@{t:.2f}" for t in np.arange(0.5, 1, 0.05)), *(p + s for p in ("AP", "IoU") for s in SIZES)]


def planted(
    arms: dict[str, Arm] = POOLERS,
    gains: dict[str, float] = GAINS,
    baseline: str = "roipool",
    datasets: Sequence[str] = ("shapes_coco", "shapes_voc"),
    seeds: Sequence[int] = (0, 1, 2, 3),
    kinds: Sequence[str] = ("box",),
    noise: float = 0.002,
    sign: float = 1.0,
    name: str = "pooler",
) -> Records:
    """A study whose arms lie `gains` above 0.6; on shapes_voc the gains are half as large."""
    rng = np.random.default_rng(0)
    study = StudyInfo(name, "Which pooler? <it> & 100 %", "Does it align?", baseline, arms, list(datasets), list(seeds))
    runs, rows, differences, curves = [], [], [], []
    for dataset in datasets:
        for arm in arms:
            for seed in seeds:
                overrides = " ".join(arms[arm].overrides)
                command = f"python scripts/train.py {overrides} dataset={dataset} seed={seed}"
                runs.append(Run(name, arm, dataset, seed, command, "abcdef123456", "2026-01-02", 125.0, 500, 150, 99))
                for kind in kinds:
                    for metric in metrics():
                        gain = sign * gain_of(metric, gains[arm]) * (0.5 if dataset == "shapes_voc" else 1.0)
                        base = 0.9 - 0.8 * (float(metric[3:]) - 0.5) if metric.startswith("AP@") else 0.6
                        value = base + gain + float(rng.normal(0, noise))
                        about = (name, arm, dataset, seed, kind, metric)
                        rows.append(MetricRow(*about, value, value - 0.03, value + 0.03))
                        if arm != baseline:
                            about_gain = (name, arm, baseline, dataset, seed, kind, metric)
                            differences.append(Gain(*about_gain, gain, gain - 0.02, gain + 0.02))
                for step in range(0, 500, 50):
                    for what, scale in (("loss/total", 2.0), ("loss/box", 0.5), ("val/AP", 0.3), ("lr", 0.01)):
                        value = scale * float(np.exp(-step / 200) + rng.normal(0, 0.03))
                        curves.append(CurvePoint(name, arm, dataset, seed, step, what, value))
    return Records(study, runs, rows, differences, curves)


def strides() -> dict[str, Arm]:
    """The arms of a study of strides."""
    return {
        f"{name}_{pooler}": Arm(f"{name}, {pooler}", [f"backbone=resnet18_{backbone}", f"pooler={pooler}"], stride)
        for name, backbone, stride in (("C5", "c5", 32), ("C4", "c4", 16), ("FPN", "small_fpn", 4))
        for pooler in ("roipool", "roialign")
    }


STRIDE_GAINS = {
    "C5_roipool": 0.0,
    "C5_roialign": 0.25,
    "C4_roipool": 0.1,
    "C4_roialign": 0.25,
    "FPN_roipool": 0.2,
    "FPN_roialign": 0.25,
}
