"""Compare two runs as a study of two arms."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detector.ablation.collect import FinishedRun, collect_records, validation_set
from detector.ablation.commands import with_current_key, without_study_defaults
from detector.ablation.description import Arm, StudyInfo
from detector.ablation.records import write_records
from detector.ablation.report.errors import error_blocks, paired_errors
from detector.ablation.report.report import write_report
from detector.ablation.report.showcase import showcases
from detector.ablation.report.tables import slug
from detector.config.overrides import key_of
from detector.config.resolve import FIXED_TRAINER_KEYS, MOVABLE_KEYS
from detector.training.folder import PREDICTIONS, command_of, read_config, short_names


def compare(first: Path, second: Path, output: Path) -> Path:
    """Compare the second run with the first: write records, a report, and pictures of the images that differ most.

    Args:
        first, second: folders of finished runs, or of given predictions, on the same data.
        output: the folder for `records/`, the pictures and `report/`.

    Returns:
        the path of the report.

    Raises:
        ValueError, OSError: one is not a finished run, or they were measured on different data.
    """
    info, runs = _study(first, second)
    write_records(output / "records", collect_records(info, runs))
    one, other = short_names((first, second))
    pictures = showcases(first, second, output, (one, other))
    bins = read_config(first).dataset.size_bins
    labels = info.arms["first"].label, info.arms["second"].label
    further = error_blocks(paired_errors(first, second), labels, (info.name, *info.datasets), (bins[0], bins[1]))
    return write_report([output / "records"], output / "report", pictures, further)


def _study(first: Path, second: Path) -> tuple[StudyInfo, list[FinishedRun]]:
    configs = [read_config(first), read_config(second)]
    datasets = list(dict.fromkeys(str(config.dataset.name) for config in configs))
    if len(datasets) > 1:
        raise ValueError(f"{first} and {second} were measured on {' and '.join(datasets)}: give runs on the same data")
    if _ground_truth(first) != _ground_truth(second):
        raise ValueError(f"{first} and {second} were measured on other images or objects: give runs on the same data")
    seeds = [int(config.seed) for config in configs if PREDICTIONS not in config] or [0]
    labels = short_names((first, second))
    if len(set(seeds)) > 1:
        labels = [f"{label}, seed {seed}" for label, seed in zip(labels, seeds, strict=True)]
    commands = [command_of(first), command_of(second)]
    fixed = [[OmegaConf.select(config, f"trainer.{name}") for name in FIXED_TRAINER_KEYS] for config in configs]
    alike = fixed[0] == fixed[1] and not any(PREDICTIONS in config for config in configs)
    choices = _choices(commands) if alike and not _hidden_differences(configs, commands) else [[], []]
    arms = {name: Arm(label, own) for name, label, own in zip(("first", "second"), labels, choices, strict=True)}
    dataset = slug(datasets[0])
    info = StudyInfo(
        name="compare",
        title=f"{labels[1]} against {labels[0]}",
        question="What is the second run better at than the first?",
        baseline="first",
        arms=arms,
        datasets=[dataset],
        seeds=seeds[:1],
    )
    return info, [
        FinishedRun(arm, dataset, seeds[0], folder, command or f"(unknown; the configuration: {folder}/config.yaml)")
        for arm, folder, command in zip(arms, (first, second), commands, strict=True)
    ]


def _hidden_differences(configs: Sequence[DictConfig], commands: Sequence[str | None]) -> bool:
    """Whether two runs differ in backbone or optimiser though no override chooses one: their defaults differed."""
    given = {key_of(word).split(".")[0] for command in commands if command for word in shlex.split(command)[2:]}
    return any(
        OmegaConf.select(configs[0], key) != OmegaConf.select(configs[1], key)
        for group, key in (("backbone", "backbone.name"), ("schedule", "schedule.optimizer._target_"))
        if group not in given
    )


def _choices(commands: Sequence[str | None]) -> list[list[str]]:
    """Return the overrides of two runs' commands without seed and place; the report reads from them which claims apply.

    Keys of version 0.1 are called by their current names. Empty if the commands may hide a difference: a command is
    unknown, or a preset (`experiment`, `weights`) is used and the runs do not override the same keys, including
    `pooler`.
    """
    if None in commands:
        return [[], []]
    chosen, keys = [], []
    for command in commands:
        given = without_study_defaults(shlex.split(str(command))[2:])
        own = {o.lstrip("+~").split("=")[0]: o for o in map(with_current_key, given)}
        kept = {key: o for key, o in own.items() if key.split(".")[0] not in (*MOVABLE_KEYS, "seed")}
        chosen.append(list(kept.values()))
        keys.append(set(kept))
    preset = any({"experiment", "weights"} & own for own in keys)
    return [[], []] if preset and (keys[0] != keys[1] or "pooler" not in keys[0]) else chosen


def _ground_truth(folder: Path) -> tuple[Any, ...]:
    truth = validation_set(folder).ground_truth()
    images = [(image["id"], image["width"], image["height"]) for image in truth["images"]]
    return images, truth["categories"], truth["annotations"]
