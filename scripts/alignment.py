"""Draw and measure alignment: python scripts/alignment.py [image=FILE box=[x1,y1,x2,y2] | dataset=... | runs=[A,B]]."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from detector.alignment.commands import run_command
from detector.config.cli import command, console, finish
from detector.config.conventions import check_additions


@hydra.main(version_base="1.3", config_path="../configs", config_name="alignment")
@command
def main(config: DictConfig) -> None:
    """Draw one RoI, measure a dataset, or compare runs."""
    check_additions("alignment", HydraConfig.get().overrides.task)
    folder = Path(HydraConfig.get().runtime.output_dir)
    console.print(run_command(config, folder))
    console.print(f"written to {folder}")


if __name__ == "__main__":
    main()
    finish()
