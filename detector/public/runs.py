"""Train, evaluate and ablate from Python: the scripts' work, with a dict of settings in place of a command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from detector.ablation import cli
from detector.ablation.arguments import split_arguments
from detector.config.call import call
from detector.config.resolve import AUTO
from detector.training import run as training
from detector.training.evaluate_script import evaluate_script
from detector.training.folder import METRICS
from detector.training.resume import run_folder_of


@dataclass(frozen=True)
class Run:
    """The results of a training or an evaluation."""

    folder: Path
    """the run's folder"""
    metrics: dict[str, Any]
    """the content of its `metrics.json`: `box/AP`, `mask/AP`, `time/total`, ..."""

    @property
    def checkpoint(self) -> Path:
        """The weights of the best validation, or of the last step where there was none; of a training only."""
        best, last = (self.folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
        return best if best.is_file() else last


def train(settings: Mapping[str, Any] | None = None) -> Run:
    """Train a detector, then evaluate it, as `scripts/train.py` does.

        run = train({"pooler": "roipool", "schedule.steps": 600, "hydra.run.dir": "runs/roipool"})
        run.metrics["box/AP"]

    Args:
        settings: values by key: those of the command line, as Python's values. One process trains; for several GPUs use
            the script.

    Raises:
        ValueError: the settings or the data are invalid: the message that the script would print.
        TypeError: a value is none that a configuration can hold.
    """
    return _read(call("train", _train, settings or {}))


def evaluate(settings: Mapping[str, Any]) -> Run:
    """Evaluate a detector, or what another program has found, as `scripts/evaluate.py` does.

    Args:
        settings: as of `train`, such as `{"checkpoint": run.checkpoint, "dataset.val.annotations": "test.json"}`.

    Raises:
        ValueError, TypeError: as of `train`.
    """
    return _read(call("evaluate", _evaluate, settings))


def ablate(settings: Mapping[str, Any]) -> Path:
    """Do what is missing of a study, and report it, as `scripts/ablate.py` does.

    Args:
        settings: as of `train`: those of the study, such as `{"study": "pooler", "arms": ["roipool", "roialign"]}`, and
            those of every run, such as `"schedule.steps": 600`.

    Returns:
        the study's folder: the report is `report/report.html` in it, the numbers are in `records/`.

    Raises:
        ValueError, TypeError: as of `train`; or runs have failed.
    """
    return call("ablate", _ablate, settings, split_arguments)


def _train(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> Path:
    resumed = None if config.resume in (None, AUTO) else run_folder_of(Path(config.resume).absolute())
    training.train(config, overrides, folder, console)
    return resumed or folder


def _evaluate(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> Path:
    evaluate_script(config, overrides, folder, console)
    return folder


def _ablate(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> Path:
    cli.ablate(config, overrides, folder, console)
    return folder


def _read(folder: Path) -> Run:
    return Run(folder, json.loads((folder / METRICS).read_text(encoding="utf-8")))
