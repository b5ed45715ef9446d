"""Evaluate a checkpoint: python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt [dataset=... data_dir=...]."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from detector.config.cli import command, console, finish
from detector.training.evaluate import evaluate_checkpoint


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
@command
def main(config: DictConfig) -> None:
    """Evaluate on the dataset of the training, or on another one."""
    settings = HydraConfig.get()
    evaluate_checkpoint(config, settings.overrides.task, Path(settings.runtime.output_dir), console)


if __name__ == "__main__":
    main()
    finish()
