"""Two runs as a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from detector import build
from detector.ablation.collect import Finished, collect
from detector.ablation.records import Arm, StudyInfo, write
from detector.ablation.report import report
from detector.ablation.showcase import showcase
from detector.folders import configuration


def compare(first: Path, second: Path, output: Path) -> Path:
    """Write records and a report in which the second run is compared with the first, and the images that differ most.

    Args:
        first, second: folders of finished runs on the same data.
        output: the folder for `records/`, `showcase.png` and `report/`.

    Returns:
        the path of the report.

    Raises:
        ValueError, OSError: one is no finished run, or they are of different data.
    """
    info, runs = _study(first, second)
    write(output / "records", collect(info, runs))
    showcase(first, second, output, (str(first), str(second)))
    pictures = {"Where it matters: the images on which the runs differ most": output / "showcase.png"}
    return report([output / "records"], output / "report", pictures)


def _study(first: Path, second: Path) -> tuple[StudyInfo, list[Finished]]:
    configs = [configuration(first), configuration(second)]
    datasets = list(dict.fromkeys(str(config.dataset.name) for config in configs))
    if len(datasets) > 1:
        raise ValueError(f"{first} and {second} were measured on {' and '.join(datasets)}: give runs on the same data")
    if _truth(configs[0]) != _truth(configs[1]):
        raise ValueError(f"{first} and {second} were measured on other images or objects: give runs on the same data")
    seeds = [int(config.seed) for config in configs]
    labels = [str(first), str(second)]
    if len(set(seeds)) > 1:
        labels = [f"{label}, seed {seed}" for label, seed in zip(labels, seeds, strict=True)]
    arms = {name: Arm(label, []) for name, label in zip(("first", "second"), labels, strict=True)}
    info = StudyInfo(
        name="compare",
        title=f"{second} against {first}",
        question="What is the second run better at than the first?",
        baseline="first",
        arms=arms,
        datasets=datasets,
        seeds=seeds[:1],
    )
    made = "python scripts/train.py (its configuration: {}/config.yaml)"
    return info, [
        Finished(arm, datasets[0], seeds[0], folder, made.format(folder))
        for arm, folder in zip(arms, (first, second), strict=True)
    ]


def _truth(config: DictConfig) -> tuple[Any, ...]:
    truth = build.build_dataset(config, "val").ground_truth()
    images = [(image["id"], image["width"], image["height"]) for image in truth["images"]]
    return images, truth["categories"], truth["annotations"]
