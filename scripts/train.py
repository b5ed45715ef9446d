"""Train a detector, then evaluate it: python scripts/train.py [pooler=...] [dataset=...] [key=value ...]."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from detector.config.cli import command, console, finish
from detector.config.conventions import tolerant
from detector.training.run import train


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
@command
def main(config: DictConfig) -> None:
    """Train as configured."""
    settings = HydraConfig.get()
    train(config, settings.overrides.task, Path(settings.runtime.output_dir), console)


if __name__ == "__main__":
    sys.argv[1:] = tolerant(sys.argv[1:])
    main()
    finish()
