"""Write a dataset in another format (`scripts/data.py convert`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, open_dict
from rich.console import Console
from rich.text import Text

from detector.config.build import instantiate_split
from detector.config.compose import override
from detector.config.splits import refuse_nulls
from detector.data.annotations import AnnotatedDataset
from detector.data.arrange import with_classes_of
from detector.data.voc_writer import write_voc
from detector.data.writers import Split, write_coco
from detector.data.yolo_writer import write_yolo

FORMATS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}
PLACINGS = ("copy", "link", "none")


def convert(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Write both splits of a dataset in the format `to` into the folder `output`, and say what it cannot hold.

    Images without objects are written, too, whatever `keep_empty` says.

    Args:
        config: composed from `configs/data_convert.yaml`.
        overrides, folder: not used; see `detector.config.cli.Work`.
        console: where the counts, what the format cannot hold, and the overrides that read it are printed.

    Raises:
        ValueError, OSError: a key is wrong, the data is missing or malformed, or there are files in `output`.
    """
    del overrides, folder
    if config.to not in FORMATS:
        raise ValueError(f"to must be {', '.join(FORMATS)}, not {config.to!r}")
    if config.images not in PLACINGS:
        raise ValueError(f"images must be {', '.join(PLACINGS)}, not {config.images!r}")
    refuse_nulls(config.dataset)
    splits: list[Split] = []
    for name in ("train", "val"):
        if "keep_empty" in config.dataset[name]:
            with open_dict(config):
                config.dataset[name].keep_empty = True
        dataset = instantiate_split(config.dataset[name])  # masks, too, though no model asks for them
        if not isinstance(dataset, AnnotatedDataset):
            raise ValueError(f"dataset={config.dataset.name} is a {type(dataset).__name__}, which holds no Annotations")
        table = dataset.complete()
        if not config.dataset[name].get("masks", True):
            table = replace(table, segmentations=None)
        if splits:
            table = with_classes_of(table, splits[0].annotations.classes)
        splits.append(Split(name, table, dataset.images, dataset.reader))
    output = Path(config.output)
    sentences = FORMATS[config.to](splits, output, config.images)
    for split in splits:
        console.print(Text(f"{split.name}: {len(split.annotations)} images, {len(split.annotations.ids)} objects"))
    for sentence in sentences:
        console.print(Text(sentence))
    read = "" if config.images == "none" else f"; read it by {' '.join(_reading(config.to, output))}"
    console.print(Text(f"written to {output}{read}"), soft_wrap=True)


def _reading(written: str, folder: Path) -> list[str]:
    """Write the overrides that read a dataset which was written in a format."""
    if written == "yolo":
        return ["dataset=custom", override("dataset.annotations", folder / "data.yaml")]
    given = ["dataset=custom"]
    for name in ("train", "val"):
        file = f"annotations/instances_{name}.json" if written == "coco" else f"ImageSets/Main/{name}.txt"
        given.append(override(f"dataset.{name}.annotations", folder / file))
        given += [override(f"dataset.{name}.images", folder / name)] if written == "coco" else []
    return given
