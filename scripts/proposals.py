"""Write an RPN's proposals for model=fast_rcnn: python scripts/proposals.py checkpoint=... output=FILE.npz."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from detector.config.cli import command, console, finish
from detector.inference.propose import write_proposals


@hydra.main(version_base="1.3", config_path="../configs", config_name="proposals")
@command
def main(config: DictConfig) -> None:
    """Propose on the images of the dataset."""
    write_proposals(config, HydraConfig.get().overrides.task, console)


if __name__ == "__main__":
    main()
    finish()
