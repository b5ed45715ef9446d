"""Draw and measure RoI alignment: python scripts/alignment.py [image=FILE box=[...] | dataset=... | runs=[A,B]]."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: DictConfig) -> None:
    """Draw one RoI, or measure a dataset, or two runs."""
    from hydra.core.hydra_config import HydraConfig

    from detector.config import build
    from detector.config.cli import console

    build.check_additions("alignment", HydraConfig.get().overrides.task)
    dataset, runs = config.get("dataset") is not None, config.runs is not None
    if (dataset or runs) and (config.image is not None or config.box is not None):
        raise ValueError(
            "image and box ask for one RoI, dataset and runs for all objects of a dataset; give one or other"
        )
    folder = Path(HydraConfig.get().runtime.output_dir)
    (_runs if runs else _dataset if dataset else _roi)(config, folder)
    console.print(f"written to {folder}")


def _roi(config: DictConfig, folder: Path) -> None:
    from detector.alignment import example, gradients, heatmaps, pictures, tables
    from detector.alignment.regions import EXAMPLE_BOX, regions
    from detector.config import build
    from detector.config.cli import console
    from detector.data.image import read_image

    if config.image is not None and config.box is None:
        raise ValueError(f"image={config.image} needs a box=[x1,y1,x2,y2] in its pixels")
    image = example.house() if config.image is None else read_image(Path(config.image))
    box = EXAMPLE_BOX if config.box is None else config.box
    found = regions(box, tuple(image.shape[1:]), config.stride, config.pooled, build.instantiate(config.operators))
    pictures.draw_regions(image, config.stride, found, folder / "regions.png")
    (folder / "alignment.json").write_text(json.dumps({n: r.summary() for n, r in found.items()}, indent=1) + "\n")
    console.print(tables.of_regions(found, config.stride))
    given = config.gradient
    parts, cells = build.instantiate(given.operators), gradients.random_map(given.cells, given.seed)
    readings = {name: part["reading"] for name, part in parts.items()}
    taken = regions(list(given.box), (given.cells, given.cells), 1, given.pooled, readings)
    shares = {n: gradients.received(p["operator"], cells, given.box, given.pooled, given.bin) for n, p in parts.items()}
    heatmaps.draw_gradients(cells, taken, shares, given.bin, folder / "gradient.png")


def _dataset(config: DictConfig, folder: Path) -> None:
    from detector.alignment import errors, plots, tables
    from detector.config import build
    from detector.config.cli import console

    if config.split not in ("train", "val"):
        raise ValueError(f"split must be train or val, not {config.split!r}")
    objects = errors.true_objects(build.build_dataset(config, config.split).ground_truth())
    augment = config.dataset.val_augment
    resize = errors.resizing(augment.get("short_sizes"), augment.get("max_size"))
    strides, readings = list(config.strides), build.instantiate(config.operators)
    level = errors.levels(objects, strides, build.instantiate(config.assign), resize)
    found = list(errors.measure(readings, objects, strides, level, config.pooled, resize))
    rows = errors.table(found, objects, errors.size_names(config.sizes), level, errors.level_names(strides))
    errors.write(rows, folder / "errors.csv")
    plots.draw_errors(
        found, rows, objects, f"{config.dataset.name}, {config.split}", config.main, folder / "errors.png"
    )
    console.print(tables.of_errors(rows))


def _runs(config: DictConfig, folder: Path) -> None:
    from detector.alignment import plots, tables
    from detector.alignment.runs import compare
    from detector.config import build
    from detector.config.cli import console

    readings = build.instantiate(config.operators)
    if config.main not in readings:
        raise ValueError(f"main={config.main!r} is none of the operators: {', '.join(readings)}")
    given = None if config.get("dataset") is None else config
    parts, labels = compare(config.runs, given, readings[config.main], config.pooled, config.parts, config.threshold)
    plots.draw_costs(parts, labels, folder / "costs.png")
    console.print(tables.of_costs(parts, labels))


if __name__ == "__main__":
    run("alignment", main)
