"""Check a dataset and count what it holds: python scripts/data.py dataset=... [data_dir=...]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.config.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: DictConfig) -> None:
    """Read both splits of the dataset and count."""
    from hydra.core.hydra_config import HydraConfig
    from rich.table import Table

    from detector.config import build
    from detector.config.cli import console
    from detector.data.summary import summarise

    build.check_additions("data", HydraConfig.get().overrides.task)
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
    run("data", main)
