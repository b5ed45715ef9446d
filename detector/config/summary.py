"""Count the images and objects of a dataset (`scripts/data.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.config.build import build_dataset, completed
from detector.config.splits import epoch_summary
from detector.data.summary import summarise


def print_summary(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Read and thereby check both splits of a dataset, and print a table of counts.

    Args:
        config: composed from `configs/data.yaml`.
        overrides, folder: not used; see `detector.config.cli.Work`.
        console: where the table is printed.

    Raises:
        ValueError, OSError: the data is missing or malformed.
    """
    del overrides, folder
    config = completed(config)
    small, large = config.dataset.size_bins
    datasets = {name: build_dataset(config, name) for name in ("train", "val")}
    splits = {name: summarise(dataset, (small, large)) for name, dataset in datasets.items()}
    title = Text(f"{config.dataset.name}: small up to {small}², large from {large}² px")  # no markup, as class names
    table = Table(title=title, title_justify="left", title_style="italic")
    table.add_column("")
    for name in splits:
        table.add_column(name, justify="right")
    for field in ("images", "empty", "objects", "ignored"):
        table.add_row(field, *(str(getattr(split, field)) for split in splits.values()))
    for field in ("small", "medium", "large"):
        table.add_row(field, *(f"{getattr(split, field):.1%}" for split in splits.values()))
    for name in splits["train"].per_class:
        table.add_row(Text(name), *(str(split.per_class.get(name, 0)) for split in splits.values()))
    console.print(table)
    if (epoch := epoch_summary(config.dataset, datasets["train"])) is not None:
        console.print(Text(epoch), soft_wrap=True)
