"""Train a detector, then evaluate it: python scripts/train.py [pooler=...] [dataset=...] [key=value ...]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.config.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: DictConfig) -> None:
    """Train a new run, or go on with one."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from detector.config import build
    from detector.config.cli import console
    from detector.training import resume as runs

    overrides = HydraConfig.get().overrides.task
    build.check_additions("train", overrides)
    runs.train(config, overrides, Path(HydraConfig.get().runtime.output_dir), console)


if __name__ == "__main__":
    run("train", main)
