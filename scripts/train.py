"""Train a detector, then evaluate it: python scripts/train.py [pooler=...] [dataset=...] [key=value ...]."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from detector.config import build
from detector.config.cli import command, console, finish
from detector.training import resume as runs


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
@command
def main(config: DictConfig) -> None:
    """Compose, or continue, a run."""
    overrides = HydraConfig.get().overrides.task
    build.check_additions("train", overrides)
    runs.train(config, overrides, Path(HydraConfig.get().runtime.output_dir), console)


if __name__ == "__main__":
    sys.argv[1:] = build.tolerant(sys.argv[1:])
    main()
    finish()
