"""Say what a dataset holds, having checked all of it: python scripts/data.py dataset=... [data_dir=...]."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.table import Table

from detector.config import build
from detector.config.cli import command, console, finish
from detector.config.conventions import check_additions
from detector.data.summary import summarise


@hydra.main(version_base="1.3", config_path="../configs", config_name="data")
@command
def main(config: DictConfig) -> None:
    """Open both parts of the dataset and count."""
    check_additions("data", HydraConfig.get().overrides.task)
    small, large = config.dataset.size_bins
    parts = {name: summarise(build.build_dataset(config, name), (small, large)) for name in ("train", "val")}
    table = Table(title=f"{config.dataset.name}: small up to {small}², large from {large}² px", title_justify="left")
    table.add_column("")
    for name in parts:
        table.add_column(name, justify="right")
    for field in ("images", "empty", "objects", "ignored"):
        table.add_row(field, *(str(getattr(part, field)) for part in parts.values()))
    for field in ("small", "medium", "large"):
        table.add_row(field, *(f"{getattr(part, field):.1%}" for part in parts.values()))
    for name in parts["train"].per_class:
        table.add_row(name, *(str(part.per_class.get(name, 0)) for part in parts.values()))
    console.print(table)


if __name__ == "__main__":
    main()
    finish()
