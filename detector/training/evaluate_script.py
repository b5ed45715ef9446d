"""Evaluate a detector or given predictions (`scripts/evaluate.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from detector.config.help import default_and_comment
from detector.training.evaluate import evaluate_checkpoint
from detector.training.given_predictions import evaluate_predictions


def evaluate_script(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Evaluate the detector of `checkpoint=`, or the detections in the file of `predictions=`.

    Args:
        config: composed from `configs/evaluate.yaml`.
        overrides: from the command line.
        folder: folder of the results; it is created.
        console: where the table is printed.

    Raises:
        ValueError, OSError: both or none of the two are given, or they or the data are invalid.
    """
    if not isinstance(config.report, bool):
        raise ValueError(f"report must be true or false, not {config.report!r}")
    given = [key for key in ("checkpoint", "predictions") if config[key] is not None]
    if len(given) > 1:
        raise ValueError("give one of checkpoint= and predictions=: a detector, or what one has found")
    if not given:
        comment = default_and_comment("evaluate", "checkpoint")[1]
        raise ValueError(f"give checkpoint=...: {comment}; or predictions=FILE, what another program has found")
    running = ("tiles", "test_time_augmentation", "pre_nms_topk", "post_nms_topk", "nms_thresh")
    if given == ["predictions"] and (useless := [key for key in running if config[key] is not None]):
        raise ValueError(f"{useless[0]}= is how a detector is run, and predictions= are there already; leave it out")
    work = evaluate_predictions if given == ["predictions"] else evaluate_checkpoint
    work(config, overrides, folder, console)
