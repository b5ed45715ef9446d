"""Detect objects in images: python scripts/predict.py checkpoint=... input=FILE|FOLDER output=FOLDER."""

import hydra
from omegaconf import DictConfig

from detector.config.cli import command, console, finish
from detector.inference.predict import predict


@hydra.main(version_base="1.3", config_path="../configs", config_name="predict")
@command
def main(config: DictConfig) -> None:
    """Draw the detections on each image and write them to detections.json."""
    predict(config, console)


if __name__ == "__main__":
    main()
    finish()
