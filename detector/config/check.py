"""Check a dataset and write it cleaned (`scripts/data.py check`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from detector.config.build import completed, instantiate_split
from detector.config.compose import override
from detector.config.splits import epoch_summary
from detector.data.annotations import AnnotatedDataset, Annotations
from detector.data.check.clean import cleaned, to_coco
from detector.data.check.splits import Split, examine
from detector.data.faults import FAULTS, Effect, Fault, collect
from detector.types import DetectionDataset

SPLITS = ("train", "val")

EFFECTS = {
    Effect.REFUSED: "training refuses the dataset",
    Effect.SKIPPED: "left out, with a line in the log",
    Effect.CUT: "boxes are cut at the edge",
    Effect.IGNORED: "left out where it matters",
    Effect.CORRECTED: "read in another way, with a line in the log",
    Effect.LEARNT: "learnt and measured as it is",
}


def check(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """List what is wrong with both splits of a dataset, by kind, worst first, and write them cleaned.

    Args:
        config: composed from `configs/data_check.yaml`.
        overrides, folder: not used; see `detector.config.cli.Work`.
        console: where the list is printed.

    Raises:
        ValueError: training would refuse the dataset, or a file would be overwritten.
    """
    del overrides, folder
    config = completed(config)
    files = _files(config)
    faults, datasets = _open(config)
    splits = {name: Split.of(dataset) for name, dataset in datasets.items()}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Reading images", total=sum(len(split.table) for split in splits.values()))
        found = examine(splits, lambda: progress.advance(task))
    faults = list(dict.fromkeys([*faults, *found.faults]))  # both splits may be parts of one file
    faults += _epoch(config.dataset, datasets, console)
    _print(faults, config.most, console)
    for name, path in files.items():
        if name in splits:
            table = cleaned(splits[name].table, found.unusable[name])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(to_coco(table)), encoding="utf-8")
    if written := [name for name in files if name in splits]:
        given = _given({name: files[name] for name in written}, datasets)
        console.print(Text(f"cleaned annotations: {given}"), soft_wrap=True)
    refused = [fault for fault in faults if fault.effect is Effect.REFUSED]
    if refused:
        raise ValueError(
            f"training would refuse {config.dataset.name}: {_counted(refused)}"
            + ("" if written else "; fix=FILE.json writes annotations without what can be left out")
        )
    if faults:
        read = " and ".join(_contents(name, split.table) for name, split in splits.items())
        console.print(Text(f"{config.dataset.name} can be trained on: {read}"), soft_wrap=True)


def _files(config: DictConfig) -> dict[str, Path]:
    """Return where each split's cleaned annotations are to be written."""
    if config.fix is None:
        return {}
    path = Path(str(config.fix))
    if path.suffix != ".json":
        raise ValueError(f"fix={path}: give the name of a COCO file, such as fix=clean.json")
    files = {split: path.with_name(f"{path.stem}_{split}.json") for split in SPLITS}
    present = [str(file) for file in files.values() if file.exists()]
    if present and not config.overwrite:
        raise ValueError(f"fix={path}: {', '.join(present)} exist already; give another name, or overwrite=true")
    return files


def _open(config: DictConfig) -> tuple[list[Fault], dict[str, DetectionDataset]]:
    """Open what can be opened of both splits, and collect what is wrong with their files."""
    faults: list[Fault] = []
    datasets: dict[str, DetectionDataset] = {}
    for split in SPLITS:
        node = config.dataset[split]
        trained = "keep_empty" in node and not node.keep_empty
        with collect() as own:
            try:
                dataset: DetectionDataset = instantiate_split(node, **({"keep_empty": True} if trained else {}))
            except FAULTS as error:
                own.append(Fault("files that cannot be read", Effect.REFUSED, str(error)))
            else:
                datasets[split] = dataset
                own += _empty(dataset, split) if trained else []
        faults += own
    return faults, datasets


def _empty(dataset: DetectionDataset, split: str) -> list[Fault]:
    """Tell which images are not trained on, since they have no object."""
    table = Split.of(dataset).table
    empty = np.flatnonzero(table.counts(~table.crowd) == 0).tolist()
    if len(empty) == len(table):
        nothing = f"{table.source}: holds no image with an object to train on"
        return [Fault("splits without objects", Effect.REFUSED, nothing)]
    way = f"dataset.{split}.keep_empty=true trains on it"
    sources = [table.source if table.sources is None else table.sources[i] for i in empty]
    where = [f"{source}: {table.files[i]} ({way})" for source, i in zip(sources, empty, strict=True)]
    return [Fault("images without objects", Effect.IGNORED, place) for place in where]


def _epoch(config: DictConfig, datasets: Mapping[str, DetectionDataset], console: Console) -> list[Fault]:
    """Print what an epoch of training holds, if its keys say more than each image once; or tell why it cannot be."""
    try:
        with_empty = config.train.get("keep_empty", True)
        summary = epoch_summary(config, datasets["train"], with_empty) if "train" in datasets else None
    except ValueError as error:
        return [Fault("epochs that cannot be made", Effect.REFUSED, f"dataset.train: {error}")]
    if summary is not None:
        console.print(Text(summary), soft_wrap=True)
    return []


def _print(faults: Sequence[Fault], most: int | None, console: Console) -> None:
    if not faults:
        console.print("nothing is wrong")
    for kind in sorted({(fault.effect, fault.kind) for fault in faults}):
        effect, name = kind
        places = [fault.where for fault in faults if (fault.effect, fault.kind) == kind]
        console.print(Text(f"{name}: {len(places)} ({EFFECTS[effect]})", style="bold"))
        for place in places[:most]:
            console.print(Text(f"  {place}"), soft_wrap=True)
        if most is not None and len(places) > most:
            console.print(Text(f"  ... and {len(places) - most} more (most=null shows all)"))


def _contents(split: str, table: Annotations) -> str:
    """Count what training reads of a split."""
    return f"{len(table)} images with {len(table.labels)} objects in {split}"


def _counted(faults: Sequence[Fault]) -> str:
    kinds = [fault.kind for fault in faults]
    return ", ".join(f"{kind}: {kinds.count(kind)}" for kind in sorted(set(kinds)))


def _given(files: Mapping[str, Path], datasets: Mapping[str, DetectionDataset]) -> str:
    """Write the overrides that read the cleaned annotations."""
    given = ["dataset=custom"]
    for split, path in files.items():
        given.append(override(f"dataset.{split}.annotations", path))
        dataset = datasets[split]
        if isinstance(dataset, AnnotatedDataset):
            given.append(override(f"dataset.{split}.images", dataset.images))
    return " ".join(given)
