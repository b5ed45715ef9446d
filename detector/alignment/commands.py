"""The three commands of scripts/alignment.py: draw one RoI, measure a dataset, compare runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from detector.alignment import errors, example, gradients, heatmaps, pictures, plots, tables
from detector.alignment.regions import EXAMPLE_BOX, pooled_regions
from detector.alignment.runs import compare_runs
from detector.config import build
from detector.data.image import read_image


def run_command(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Run the command that the keys of a configuration choose: `runs`, `dataset`, or else one RoI.

    Args:
        config: that of `configs/alignment.yaml`.
        overrides: from the command line.
        folder: where pictures and numbers are written; created.
        console: where the numbers are printed.

    Raises:
        ValueError: `image` or `box` is given beside `dataset` or `runs`, or a key's value is wrong.
        OSError: a file cannot be read or written.
    """
    dataset, runs = config.get("dataset") is not None, config.runs is not None
    if (dataset or runs) and (config.image is not None or config.box is not None):
        raise ValueError(
            "image= and box= draw one RoI, dataset= and runs= measure all objects of a dataset; give one or the other"
        )
    if runs:
        table = plot_runs(config, folder, overrides)
    else:
        table = measure_dataset(config, folder) if dataset else draw_roi(config, folder)
    console.print(table)
    console.print(f"written to {folder}", markup=False)


def draw_roi(config: DictConfig, folder: Path) -> Table:
    """Draw the regions that the operators pool for one RoI, and the gradient of one pooled value.

    Writes `regions.png`, `alignment.json` and `gradient.png`; arguments and errors are those of `run_command`.
    """
    if config.image is not None and config.box is None:
        raise ValueError(f"image={config.image} needs a box=[x1,y1,x2,y2] in its pixels")
    image = example.draw_house() if config.image is None else read_image(Path(config.image))
    box = EXAMPLE_BOX if config.box is None else config.box
    readings = build.instantiate(config.operators)
    size = (int(image.shape[1]), int(image.shape[2]))
    regions = pooled_regions(box, size, config.stride, config.pooled, readings)
    pictures.draw_regions(image, config.stride, regions, folder / "regions.png")
    summary = {name: region.summary() for name, region in regions.items()}
    (folder / "alignment.json").write_text(json.dumps(summary, indent=1) + "\n")
    _draw_gradient(config.gradient, folder / "gradient.png")
    return tables.regions_table(regions, config.stride)


def _draw_gradient(config: DictConfig, path: Path) -> None:
    operators = build.instantiate(config.operators)
    map = gradients.random_map(config.cells, config.seed)
    readings = {name: part["reading"] for name, part in operators.items()}
    regions = pooled_regions(list(config.box), (config.cells, config.cells), 1, config.pooled, readings)
    shares = {
        name: gradients.output_gradient(part["operator"], map, config.box, config.pooled, config.bin)
        for name, part in operators.items()
    }
    heatmaps.draw_gradients(map, regions, shares, config.bin, path)


def measure_dataset(config: DictConfig, folder: Path) -> Table:
    """Measure the quantisation error of the operators over all objects of a dataset.

    Writes `errors.csv` and `errors.png`; arguments and errors are those of `run_command`.
    """
    if config.split not in ("train", "val"):
        raise ValueError(f"split must be train or val, not {config.split!r}")
    objects = errors.ground_truth_boxes(build.build_dataset(config, config.split).ground_truth())
    augment = config.dataset.val_augment
    resize = errors.make_resize(augment.get("short_sizes"), augment.get("max_size"))
    strides, readings = list(config.strides), build.instantiate(config.operators)
    level = errors.assign_to_strides(objects, strides, build.instantiate(config.assign), resize)
    measured = list(errors.measure_errors(readings, objects, strides, level, config.pooled, resize))
    sizes = errors.size_bins(config.sizes)
    rows = errors.tabulate_errors(measured, objects, sizes, level, errors.level_names(strides))
    errors.write_csv(rows, folder / "errors.csv")
    title = f"{config.dataset.name}, {config.split}"
    plots.draw_errors(measured, rows, objects, title, config.main, folder / "errors.png")
    return tables.errors_table(rows)


def plot_runs(config: DictConfig, folder: Path, overrides: Sequence[str]) -> Table:
    """Plot AP, recall and mean IoU of runs by the quantisation error of the operator `main` on each object.

    Writes `costs.png`; arguments and errors are those of `run_command`.
    """
    readings = build.instantiate(config.operators)
    if config.main not in readings:
        raise ValueError(f"main={config.main!r} is not one of the operators: {', '.join(readings)}")
    dataset = None if config.get("dataset") is None else config
    reading = readings[config.main]
    parts, labels = compare_runs(
        config.runs, dataset, reading, config.pooled, config.parts, config.threshold, overrides
    )
    plots.draw_costs(parts, labels, folder / "costs.png")
    return tables.runs_table(parts, labels)
