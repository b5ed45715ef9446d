"""Draw contact sheets of a dataset before and after augmentation (`scripts/data.py show`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from detector.config.build import build_mixing, completed, drop_inherited, instantiate, instantiate_split
from detector.config.stats import SPLITS, spread
from detector.data.augment import Augment
from detector.data.epochs import Place
from detector.data.page.sheet import Captioned, write_sheet
from detector.data.stream import Augmented, InOrder
from detector.types import DetectionDataset, Sample
from detector.visualize import draw


def show_data(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Write a sheet for each split: images as they are in their first column, then as training or validation gets them.

    Args:
        config: composed from `configs/data_show.yaml`.
        overrides, folder: not used; see `detector.config.cli.Work`.
        console: where the files are named.

    Raises:
        ValueError, OSError: the data is missing or malformed; a number is out of range.
    """
    del overrides, folder
    for key in ("images", "draws"):
        if not isinstance(config[key], int) or config[key] < 1:
            raise ValueError(f"{key}={config[key]}: give a whole number of at least 1")
    config = completed(config)
    for split in SPLITS:
        drop_inherited(config.dataset[f"{split}_augment"], Augment)
    train, val = (instantiate_split(config.dataset[split]) for split in SPLITS)
    mixing = build_mixing(config.dataset)
    for mix in mixing:
        mix.prepare(train)
    augmented = Augmented(train, instantiate(config.dataset.train_augment), config.seed, mixing)
    resized = InOrder(val, instantiate(config.dataset.val_augment))
    for split, dataset, shown in (
        ("train", train, lambda i: [augmented[Place(epoch, i)] for epoch in range(config.draws)]),
        ("val", val, lambda i: [resized[i]]),
    ):
        path = Path(str(config.output)) / f"{split}.png"
        write_sheet(_rows(dataset, spread(len(dataset), config.images), shown), path)
        console.print(Text(f"{split}: {path}"), soft_wrap=True)


def _rows(
    dataset: DetectionDataset, indices: Sequence[int], shown: Callable[[int], Sequence[Sample]]
) -> Iterator[list[Captioned]]:
    """Yield a row for each image: as it is, then what training or validation gets."""
    for index in indices:
        sample = dataset[index]
        row = [(_caption(f"{sample.id}", sample), draw(sample.image, sample.target, dataset.classes))]
        for changed in shown(index):
            count = f"{len(changed.target)} of {len(sample.target)} objects"
            row.append((_caption(count, changed), draw(changed.image, changed.target, dataset.classes)))
        yield row


def _caption(words: str, sample: Sample) -> str:
    return f"{words}, {sample.size[1]} x {sample.size[0]} px"
