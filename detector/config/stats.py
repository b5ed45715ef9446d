"""Describe a dataset by tables and a page (`scripts/data.py stats`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.config.build import completed, instantiate_split
from detector.config.splits import epoch_summary
from detector.data.annotations import AnnotatedDataset
from detector.data.check.splits import Split
from detector.data.page.numbers import class_rows, measure, quantile_rows
from detector.data.page.page import write_page
from detector.types import DetectionDataset, Sample
from detector.visualize import draw

SPLITS = ("train", "val")

EXAMPLES = 6
"""Pictures of each split on the page."""


def stats(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Print tables of sizes, shapes, numbers and classes of a dataset, and write a page with pictures.

    Args:
        config: composed from `configs/data_stats.yaml`.
        overrides, folder: not used; see `detector.config.cli.Work`.
        console: where the tables are printed.

    Raises:
        ValueError, OSError: the data is missing or malformed.
    """
    del overrides, folder
    config = completed(config)
    small, large = config.dataset.size_bins
    datasets: dict[str, DetectionDataset] = {name: instantiate_split(config.dataset[name]) for name in SPLITS}
    tables = {name: Split.of(dataset).table for name, dataset in datasets.items()}
    splits = {name: measure(table) for name, table in tables.items()}
    notes = [
        f"{name}: {len(table)} images, {int((n.per_image == 0).sum())} of them without objects; {len(n.labels)} objects"
        f"{_ignored(len(table.ids) - len(n.labels))}; "
        + ("masks" if table.segmentations is not None else "no masks")
        + _left_out(datasets[name])
        for (name, table), n in zip(tables.items(), splits.values(), strict=True)
    ]
    if (epoch := epoch_summary(config.dataset, datasets["train"])) is not None:
        notes.append(f"train: {epoch}")
    for note in notes:
        console.print(Text(note), soft_wrap=True)
    quantiles, classes = quantile_rows(splits), class_rows(splits, (small, large))
    for place, split in enumerate(splits):
        _print(console, place, split, ("least", "5 %", "median", "95 %", "most"), quantiles)
        title = f"{split}: small up to {small}², large from {large}² px"
        _print(console, place, title, ("objects", "images", "small", "medium", "large"), classes)
    if config.page is not None:
        path = Path(str(config.page))
        path.parent.mkdir(parents=True, exist_ok=True)
        page = write_page(str(config.dataset.name), splits, (small, large), notes, list(_examples(datasets)))
        path.write_text(page, encoding="utf-8")
        console.print(Text(f"page: {path}"), soft_wrap=True)


def _ignored(count: int) -> str:
    return f", and {count} crowds or difficult ones, which are not counted below" if count else ""


def _left_out(dataset: DetectionDataset) -> str:
    count = dataset.left_out if isinstance(dataset, AnnotatedDataset) else 0
    return f"; {count} further images, without objects or beyond the limit, are not used" if count else ""


def _print(console: Console, place: int, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the columns of one split; rows hold those of all, one split after another."""
    table = Table(title=Text(title), title_justify="left", title_style="italic")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name, *cells in rows:
        table.add_row(Text(name), *cells[place * len(columns) : (place + 1) * len(columns)])
    console.print(table)


def spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` numbers below `count`, evenly spread."""
    return sorted(set(np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()))


def _examples(datasets: Mapping[str, DetectionDataset]) -> Iterator[tuple[str, Image.Image]]:
    for name, dataset in datasets.items():
        for index in spread(len(dataset), EXAMPLES):
            sample = dataset[index]
            yield f"{name}: {_caption(dataset, index, sample)}", draw(sample.image, sample.target, dataset.classes)


def _caption(dataset: DetectionDataset, index: int, sample: Sample) -> str:
    """Return the name of an image's file, or its id where the dataset does not say it."""
    return str(dataset.annotations.files[index]) if isinstance(dataset, AnnotatedDataset) else f"image {sample.id}"
