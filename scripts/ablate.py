"""Answer a question by many runs: python scripts/ablate.py study=pooler [hydra/launcher=joblib] [key=value ...].

Compare two runs: python scripts/ablate.py --compare RUN RUN [--output FOLDER] [--trust PACKAGE ...].
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from detector.ablation.cli import ablate, compare_runs, split_arguments
from detector.config import build
from detector.config.cli import command, finish


@hydra.main(version_base="1.3", config_path="../configs", config_name="ablate")
@command
def main(config: DictConfig) -> None:
    """Run what is pending of a study, then write its records and its report."""
    settings = HydraConfig.get()
    build.check_additions("ablate", settings.overrides.task)
    ablate(config, Path(settings.runtime.output_dir), settings.overrides.hydra)


if __name__ == "__main__":
    if "--compare" in sys.argv:
        sys.exit(compare_runs(sys.argv[1:]))
    sys.argv[1:] = split_arguments(sys.argv[1:])
    main()
    finish()
