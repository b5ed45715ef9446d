"""What is measured of a dataset, the page on it, and its contact sheets."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console

from detector.config.build import instantiate
from detector.config.show_data import show_data
from detector.config.stats import spread, stats
from detector.data.coco import read_coco
from detector.data.epochs import Place
from detector.data.page.numbers import class_rows, measure, quantile_rows
from detector.data.page.sheet import LINE, SIDE, write_sheet
from detector.data.stream import Augmented
from detector.visualize import GAP, draw
from tests.conftest import compose_config


def write(folder: Path) -> dict[str, Path]:
    """Two splits of three images of 40 x 30 px with squares; `b <c>` is in the first alone."""
    paths = {}
    for split, boxes in (("train", {1: [(1, 4), (1, 10), (2, 20)], 2: [(1, 10)], 3: []}), ("val", {1: [(1, 10)]})):
        images, annotations = [], []
        for number, objects in boxes.items():
            file = f"{split}{number}.png"
            pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / file)
            images.append({"id": number, "file_name": file, "width": 40, "height": 30})
            for label, side in objects:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": label, "bbox": [5, 5, side, side],
                     "iscrowd": 0}
                )  # fmt: skip
        annotations.append(
            {"id": 99, "image_id": 1, "category_id": 1, "bbox": [0, 0, 30, 30], "iscrowd": 1, "area": 900}
        )
        categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b <c>"}]
        paths[split] = folder / f"{split}.json"
        paths[split].write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return paths


def configuration(name: str, folder: Path, *overrides: str) -> DictConfig:
    paths = write(folder)
    lists = [f"dataset.{split}.annotations={path}" for split, path in paths.items()]
    return compose_config("dataset=custom", *lists, f"dataset.train.images={folder}", *overrides, name=name)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def test_what_is_measured(tmp_path: Path) -> None:
    splits = {name: measure(read_coco(path)) for name, path in write(tmp_path).items()}
    train = splits["train"]
    assert train.sides.tolist() == [4, 10, 20, 10]
    assert train.ratios.tolist() == [1, 1, 1, 1]
    assert train.per_image.tolist() == [3, 1, 0]
    assert train.areas.tolist() == [16, 100, 400, 100]
    assert train.centres[0].tolist() == [7 / 40, 7 / 30]
    assert [counts.tolist() for counts in train.class_counts()] == [[3, 1], [2, 1]]
    rows = {name: cells for name, *cells in quantile_rows(splits)}
    assert rows["image width, px"] == ["40"] * 10
    assert rows["objects an image"] == ["0", "0.1", "1", "2.8", "3", "1", "1", "1", "1", "1"]
    assert rows["box width, px"][:5] == ["4", "4.9", "10", "18.5", "20"]
    assert class_rows(splits, (8, 16)) == [
        ["a", "3", "2", "33%", "67%", "0%", "1", "1", "0%", "100%", "0%"],
        ["b <c>", "1", "1", "0%", "0%", "100%", "0", "0", "-", "-", "-"],
        ["all", "4", "2", "25%", "50%", "25%", "1", "1", "0%", "100%", "0%"],
    ]


def test_an_empty_split_is_described(tmp_path: Path) -> None:
    table = read_coco(write(tmp_path)["train"])
    empty = measure(table.select_objects(np.zeros(len(table.ids), bool)))
    rows = {name: cells for name, *cells in quantile_rows({"train": empty})}
    assert rows["box width, px"] == ["-"] * 5
    assert class_rows({"train": empty}, (8, 16))[-1] == ["all", "0", "0", "-", "-", "-"]


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    config = configuration("data_stats", tmp_path, f"page={page}")
    out = io.StringIO()
    stats(config, [], tmp_path, Console(file=out, width=80))
    printed = out.getvalue()
    assert "train: 2 images, 0 of them without objects; 4 objects, and 1 crowds or difficult ones" in printed
    assert "1 further images, without objects or beyond the limit, are not used" in printed
    assert re.search(r"b <c> +│ +1 │ +1 │", printed)
    assert f"page: {page}" in printed
    assert max(map(len, printed.splitlines()[3:-1])) <= 80
    text = page.read_text()
    assert "b &lt;c&gt;" in text
    assert "<td>b <c></td>" not in text
    links = re.findall(r'(?:src|href)="([^"]{20})', text)
    assert len(links) == 3 + 3
    assert all(link.startswith("data:image/") for link in links)
    assert "train: train1.png" in text
    OmegaConf.update(config, "page", None)
    OmegaConf.update(config, "dataset.repeat_threshold", 1.0)
    page.unlink()
    stats(config, [], tmp_path, Console(file=out, width=80))
    assert not page.exists()
    assert "train: An epoch has 2 images; 1 images are repeated, up to 1.4 times" in out.getvalue()


def test_sheets_show_images_and_what_training_makes_of_them(tmp_path: Path) -> None:
    given = ["images=2", "draws=3", f"output={tmp_path / 'sheets'}", "dataset.train_augment.colour=0.5"]
    config = configuration("data_show", tmp_path, *given, "dataset.val_augment={short_sizes: [60], max_size: 90}")
    out = io.StringIO()
    show_data(config, [], tmp_path, Console(file=out, width=200))
    assert str(tmp_path / "sheets" / "train.png") in out.getvalue()
    train, val = (pixels(tmp_path / "sheets" / f"{name}.png") for name in ("train", "val"))
    assert train.shape[1] == GAP + 4 * (SIDE + GAP)
    assert val.shape[1] == GAP + 2 * (SIDE + GAP)
    dataset = instantiate(config.dataset.train)
    samples = Augmented(dataset, instantiate(config.dataset.train_augment), config.seed)
    wanted = draw(samples[Place(1, 0)].image, samples[Place(1, 0)].target, dataset.classes)
    height = round(wanted.height * SIDE / wanted.width)
    left = GAP + 2 * (SIDE + GAP)
    shown = train[GAP + LINE : GAP + LINE + height, left : left + SIDE]
    assert np.array_equal(shown, np.array(wanted.resize((SIDE, height), Image.Resampling.LANCZOS)))
    changed = config.copy()
    changed.seed = 5
    show_data(changed, [], tmp_path, Console(file=out))
    assert not np.array_equal(train, pixels(tmp_path / "sheets" / "train.png"))
    changed.draws = 0
    with pytest.raises(ValueError, match="draws=0"):
        show_data(changed, [], tmp_path, Console(file=out))


def test_a_sheet_holds_pictures_of_any_shape(tmp_path: Path) -> None:
    row = [("a" * 200, Image.new("RGB", (10, 40), "red")), ("b", Image.new("RGB", (80, 20), "blue"))]
    write_sheet([row, [("c", Image.new("RGB", (4, 4)))]], tmp_path / "new" / "sheet.png")
    sheet = pixels(tmp_path / "new" / "sheet.png")
    assert sheet.shape == (GAP + 2 * (LINE + SIDE + GAP), GAP + 2 * (SIDE + GAP), 3)
    assert sheet[GAP + LINE + 390, GAP + 50].tolist() == [255, 0, 0]
    assert sheet[GAP + LINE + 50, GAP + SIDE + GAP + 390].tolist() == [0, 0, 255]
    assert (sheet[: GAP + LINE, GAP + SIDE : GAP + SIDE + GAP] == 255).all()  # the long caption ends before the next


def test_examples_are_spread() -> None:
    assert spread(100, 3) == [0, 50, 99] or spread(100, 3) == [0, 49, 99]
    assert spread(2, 6) == [0, 1]
    assert torch.tensor(spread(1000, 6)).diff().min() > 150
