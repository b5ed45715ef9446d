"""Each corruption of a generated set is told with its file and object, and what training would do with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from PIL import Image

from detector.data.coco import CocoDataset
from detector.data.datamodule import DetectionDataModule
from detector.data.faults import Effect
from tests.data.check_cases import HEIGHT, WIDTH, Corruption, Files, few, jpeg, polygon, run, truncate


def train(files: Files) -> None:
    """Open the set as training does."""
    train, val = (CocoDataset(files.folder, files.folder / f"{name}.json") for name in ("train", "val"))
    DetectionDataModule(train, val, lambda s, _: s, lambda s, _: s, steps=1, batch_size=1, workers=0)


def on_disk(change: Callable[[Path], object]) -> Corruption:
    return lambda files: change(files.image("train3.png"))


def on_object(**values: Any) -> Corruption:
    return lambda files: files.object(5).update(values)


def on_image(**values: Any) -> Corruption:
    return lambda files: files.train["images"][2].update(values)


def shrink(path: Path) -> None:
    Image.open(path).resize((WIDTH // 2, HEIGHT // 2)).save(path)


def copy(source: str, target: str) -> Corruption:
    return lambda files: files.image(target).write_bytes(files.image(source).read_bytes())


def repeat(dx: float) -> Corruption:
    def change(files: Files) -> None:
        one = files.object(5)
        files.train["annotations"].append({**one, "id": 99, "bbox": [one["bbox"][0] + dx, *one["bbox"][1:]]})

    return change


def all_objects(**values: Any) -> Corruption:
    return lambda files: [a.update(values) for a in files.train["annotations"]]


def entry(key: str, **values: Any) -> Corruption:
    """Add a changed copy of the first entry of a list."""
    return lambda files: files.train[key].append(files.train[key][0] | values)


def drop(key: str, name: str) -> Corruption:
    return lambda files: files.train[key][2].pop(name)


def upside_down(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(path).save(path, exif=exif)


def only_in_val(files: Files) -> None:
    files.val["categories"].append({"id": 3, "name": "owl"})


def broken_json(files: Files) -> None:
    files.train = json.dumps(files.train)[:-40]  # type: ignore[assignment]


NUMBER = "annotations[4] (id 5)"
"""as refused objects are named"""
OBJECT = "annotation 5, cat "
CORRUPTIONS: dict[str, tuple[Corruption, Effect, str, list[str]]] = {
    "truncated image": (on_disk(truncate), Effect.REFUSED, "images that cannot be read", ["train3.png"]),
    "text for an image": (
        on_disk(lambda path: path.write_text("no image")), Effect.REFUSED, "images that cannot be read", ["train3.png"]
    ),
    "missing image": (on_disk(Path.unlink), Effect.REFUSED, "missing images", ["train3.png"]),
    "resized image": (on_disk(shrink), Effect.REFUSED, "images of another size", ["train3.png", "48x36"]),
    "swapped sides": (
        on_image(width=HEIGHT, height=WIDTH), Effect.REFUSED, "images of another size", ["train3.png", "72x96"]
    ),
    "picture upside down": (
        on_disk(upside_down), Effect.CORRECTED, "images turned upright by EXIF", ["train3.png", "orientation 3"]
    ),
    "equal images": (copy("train1.png", "train3.png"), Effect.LEARNT, "equal images", ["train1.png", "train3.png"]),
    "saved again": (
        jpeg("train1.png", "train3.png"), Effect.LEARNT, "nearly equal images", ["train1.png", "train3.png"]
    ),
    "trained and measured on": (
        copy("train1.png", "val2.png"), Effect.LEARNT, "equal images in train and val", ["train1.png", "val2.png"]
    ),
    "trained and measured on, saved again": (
        jpeg("train1.png", "val2.png"),
        Effect.LEARNT, "nearly equal images in train and val", ["train1.png", "val2.png"],
    ),
    "box without width": (on_object(bbox=[4, 5, 0, 30]), Effect.SKIPPED, "boxes without area", [OBJECT, "train3.png"]),
    "box of negative height": (
        on_object(bbox=[4, 35, 24, -30]), Effect.SKIPPED, "boxes without area", [OBJECT, "train3.png"]
    ),
    "box outside": (on_object(bbox=[200, 5, 24, 30]), Effect.SKIPPED, "boxes outside", [OBJECT, "train3.png"]),
    "box over the edge": (on_object(bbox=[-9, 5, 37, 30]), Effect.CUT, "boxes that are cut", [OBJECT, "train3.png"]),
    "box larger than the mask": (
        on_object(bbox=[0, 0, 90, 70]), Effect.LEARNT, "boxes far larger than their mask", [OBJECT, "train3.png"]
    ),
    "mask beside the box": (
        on_object(segmentation=polygon(60, 40, 24, 30)), Effect.LEARNT, "masks that do not fit", [OBJECT, "train3.png"]
    ),
    "object twice": (repeat(0), Effect.LEARNT, "objects that are there twice", ["annotation 99", "is annotation 5"]),
    "object nearly twice": (
        repeat(0.4), Effect.LEARNT, "objects that are there twice", ["annotation 99", "is annotation 5 again", "0.97"]
    ),
    "area of the image": (
        on_object(area=WIDTH * HEIGHT), Effect.LEARNT, "areas that cannot be", [OBJECT, "train3.png", "6912"]
    ),
    "negative area": (on_object(area=-1), Effect.REFUSED, "negative areas", ["annotation 5", "-1"]),
    "area as text": (on_object(area="big"), Effect.REFUSED, "annotations that cannot", [NUMBER, "'big'"]),
    "annotation ids clash": (on_object(id=3), Effect.CORRECTED, "annotation ids that clash", ["annotations[4] (id 3)"]),
    "annotation id 0": (on_object(id=0), Effect.CORRECTED, "annotation ids that clash", ["annotations[4] (id 0)"]),
    "image ids clash": (on_image(id=1), Effect.REFUSED, "image entries", ["images[2]", "train3.png", "taken"]),
    "category ids clash": (entry("categories", name="cow"), Effect.REFUSED, "categories that", ["'cat'", "'cow'"]),
    "unknown image": (on_object(image_id=77), Effect.REFUSED, "annotations that cannot be read", [NUMBER, "77"]),
    "unknown category": (on_object(category_id=77), Effect.REFUSED, "annotations that cannot be read", [NUMBER, "77"]),
    "three numbers for a box": (on_object(bbox=[1, 2, 3]), Effect.REFUSED, "annotations that cannot", [NUMBER, "bbox"]),
    "text in a box": (on_object(bbox=[1, 2, 3, "4"]), Effect.REFUSED, "annotations that cannot", [NUMBER, "bbox"]),
    "infinite box": (
        on_object(bbox=[1, 2, 3, float("inf")]), Effect.REFUSED, "annotations that cannot", [NUMBER, "bbox"]
    ),
    "flag that is none": (on_object(iscrowd="no"), Effect.REFUSED, "annotations that cannot", [NUMBER, "iscrowd"]),
    "run lengths that are broken": (
        on_object(segmentation={"size": [HEIGHT, WIDTH], "counts": "nonsense"}),
        Effect.REFUSED, "annotations that cannot be read", [NUMBER, "run lengths"],
    ),
    "mask of another image": (
        on_object(segmentation={"size": [5, 5], "counts": [3, 22]}),
        Effect.REFUSED, "annotations that cannot be read", [NUMBER, "[5, 5]"],
    ),
    "polygon of odd length": (
        on_object(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), Effect.REFUSED, "annotations that cannot", [NUMBER, "polygon"]
    ),
    "polygon of two points": (
        on_object(segmentation=[*polygon(4, 5, 24, 30), [1, 2, 3, 4]]),
        Effect.SKIPPED, "polygons of fewer than three points", [NUMBER],
    ),
    "polygon beside the image": (
        on_object(segmentation=polygon(200, 5, 24, 30)), Effect.SKIPPED, "masks without a pixel", [NUMBER]
    ),
    "polygon far away": (
        on_object(segmentation=polygon(9e6, 5, 24, 30)),
        Effect.REFUSED, "annotations that cannot be read", [NUMBER, "far outside"],
    ),
    "object without a mask": (
        on_object(segmentation=[]), Effect.IGNORED, "objects without a mask", [OBJECT, "train3.png"]
    ),
    "image listed twice": (
        entry("images", id=88), Effect.CORRECTED, "images that are listed more than once", ["train1.png", "88"]
    ),
    "image of no width": (on_image(width=0), Effect.REFUSED, "image entries", ["images[2]", "train3.png", "width"]),
    "image without a name": (drop("images", "file_name"), Effect.REFUSED, "image entries", ["images[2]", "file_name"]),
    "category without a name": (
        entry("categories", id=3, name=None),
        Effect.REFUSED, "categories that cannot", ["'name': None"],
    ),
    "rare class": (few, Effect.LEARNT, "classes of fewer than 10 objects", ["train.json", "'dog' has 4"]),
    "class of one split": (only_in_val, Effect.REFUSED, "splits with different classes", ["val.json", "owl"]),
    "half a file": (broken_json, Effect.REFUSED, "files that cannot be read", ["train.json", "not JSON"]),
    "shares for pixels": (
        all_objects(bbox=[0.1, 0.1, 0.5, 0.5]), Effect.LEARNT, "doubts about a whole file", ["train.json", "shares"]
    ),
    "crowds for objects": (
        all_objects(iscrowd=1), Effect.LEARNT, "doubts about a whole file", ["train.json", "crowds=objects"]
    ),
    "image id as text": (on_object(image_id="3"), Effect.CORRECTED, "ids of another type", [NUMBER, "'3'"]),
}  # fmt: skip


def test_a_sound_set_passes(files: Files, composed: DictConfig) -> None:
    assert run(files, composed) == ("nothing is wrong\n", None)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_told_with_file_and_object(name: str, files: Files, composed: DictConfig) -> None:
    corrupt, effect, kind, named = CORRUPTIONS[name]
    corrupt(files)
    files.write()
    printed, message = run(files, composed)
    heads = [line for line in printed.splitlines() if ": 1 (" in line]
    if name not in ("shares for pixels", "crowds for objects"):
        assert (message is not None) == (effect is Effect.REFUSED), printed
        assert any(head.startswith(kind) for head in heads), printed
    line = next(line for line in printed.splitlines() if line.startswith("  ") and all(word in line for word in named))
    assert line
    if effect is Effect.REFUSED:
        assert kind in str(message)
        with pytest.raises((ValueError, OSError)):
            train(files)
    else:
        train(files)
