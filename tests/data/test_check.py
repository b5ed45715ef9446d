"""Each corruption of a generated set is told with its file and object, and what training would do with it."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console

from detector.config.check import check
from detector.config.convert import convert
from detector.config.show_data import show_data
from detector.config.stats import stats
from detector.config.summary import print_summary
from detector.data.check.pictures import thumbnail
from detector.data.coco import CocoDataset
from detector.data.datamodule import DetectionDataModule
from detector.data.faults import Effect
from tests.conftest import compose_config

HEIGHT, WIDTH = 72, 96
TRAIN, VAL = 10, 3


@dataclass
class Files:
    """A set of two COCO files and their images; corruptions change it."""

    folder: Path
    train: dict[str, Any]
    val: dict[str, Any]

    def image(self, name: str) -> Path:
        return self.folder / name

    def object(self, number: int) -> dict[str, Any]:
        return next(a for a in self.train["annotations"] if a.get("id") == number)

    def write(self) -> None:
        for split, content in (("train", self.train), ("val", self.val)):
            if isinstance(content, str):
                (self.folder / f"{split}.json").write_text(content)
            else:
                (self.folder / f"{split}.json").write_text(json.dumps(content))


def texture(seed: int) -> np.ndarray:
    """A picture unlike those of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


def polygon(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def split(folder: Path, name: str, count: int, seed: int) -> dict[str, Any]:
    images, annotations = [], []
    for i in range(1, count + 1):
        file = f"{name}{i}.png"
        Image.fromarray(texture(seed + i)).save(folder / file)
        images.append({"id": i, "file_name": file, "width": WIDTH, "height": HEIGHT})
        for k, box in enumerate([(4.0, 5.0, 24.0, 30.0), (40.0, 20.0, 32.0, 40.0)]):
            annotations.append(
                {"id": 2 * i - 1 + k, "image_id": i, "category_id": 1 + k, "bbox": list(box), "iscrowd": 0,
                 "area": box[2] * box[3], "segmentation": polygon(*box)}
            )  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Ten images for training and three for validation, with a cat and a dog in each."""
    made = Files(tmp_path, split(tmp_path, "train", TRAIN, 0), split(tmp_path, "val", VAL, 100))
    made.write()
    return made


@pytest.fixture(scope="session")
def composed() -> DictConfig:
    given = ["dataset=custom", "dataset.train.annotations=t", "dataset.val.annotations=v", "most=null"]
    return compose_config(*given, name="data_check")


def run(files: Files, composed: DictConfig, **keys: Any) -> tuple[str, str | None]:
    """Check a set; returns what is printed, and the message with which the script exits with 1."""
    config = composed.copy()
    OmegaConf.set_struct(config, False)
    for name in ("train", "val"):
        config.dataset[name].annotations = str(files.folder / f"{name}.json")
        config.dataset[name].images = str(files.folder)
    for key, value in keys.items():
        config[key] = value
    out = io.StringIO()
    try:
        check(config, [], files.folder, Console(file=out, width=400))
    except ValueError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), None


def train(files: Files) -> None:
    """Open the set as training does."""
    train, val = (CocoDataset(files.folder, files.folder / f"{name}.json") for name in ("train", "val"))
    DetectionDataModule(train, val, lambda s, _: s, lambda s, _: s, steps=1, batch_size=1, workers=0)


Corruption = Callable[[Files], object]


def on_disk(change: Callable[[Path], object]) -> Corruption:
    return lambda files: change(files.image("train3.png"))


def on_object(**values: Any) -> Corruption:
    return lambda files: files.object(5).update(values)


def on_image(**values: Any) -> Corruption:
    return lambda files: files.train["images"][2].update(values)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def shrink(path: Path) -> None:
    Image.open(path).resize((WIDTH // 2, HEIGHT // 2)).save(path)


def jpeg(source: str, target: str) -> Corruption:
    """Save a picture again with a loss, so that its pixels are other ones."""

    def change(files: Files) -> None:
        packed = io.BytesIO()
        Image.open(files.image(source)).save(packed, "JPEG", quality=80)
        Image.open(packed).save(files.image(target))

    return change


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


def few(files: Files) -> None:
    files.train["annotations"] = [a for a in files.train["annotations"] if a["category_id"] == 1 or a["id"] < 9]


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


def test_all_faults_are_told_at_once_and_can_be_cleaned(files: Files, composed: DictConfig) -> None:
    files.object(3).update(bbox="none")
    files.object(5).update(image_id=70)
    files.object(7).update(bbox=[4, 5, 0, 0])
    files.object(9).update(bbox=[-4, 5, 32, 30])
    files.object(11).update(area=-5)
    files.train["images"][9]["height"] = 0
    files.image("train2.png").unlink()
    truncate(files.image("val1.png"))
    files.write()
    printed, message = run(files, composed, fix=str(files.folder / "clean.json"))
    assert message is not None
    for word in ("annotations[2]", "annotations[4]", "annotation 7", "annotation 9", "annotation 11", "images[9]"):
        assert word in printed
    assert "train2.png" in printed
    assert "val1.png" in printed
    assert "missing images: 1" in message
    assert "annotations that cannot be read: 2" in message
    assert f"dataset.train.annotations={files.folder}/clean_train.json" in printed
    table = json.loads((files.folder / "clean_train.json").read_text())
    assert [image["file_name"] for image in table["images"]] == [f"train{i}.png" for i in (1, 3, 4, 5, 6, 7, 8, 9)]
    found = {a["id"]: a for a in table["annotations"]}
    assert set(found) == {1, 2, 6, *range(8, 19)}
    assert found[9]["bbox"] == [0, 5, 28, 30]
    assert "area" not in found[11]
    assert found[1] == files.object(1)
    again = Files(files.folder, table, json.loads((files.folder / "clean_val.json").read_text()))
    again.write()
    assert run(again, composed)[1] is None


def test_cleaned_files_keep_what_else_the_files_say(files: Files, composed: DictConfig) -> None:
    files.train |= {"info": {"year": 2026}, "licenses": [{"id": 1, "name": "CC0"}]}
    for image in files.train["images"]:
        image |= {"license": 1, "camera": f"c{image['id']}"}
    for annotation in files.train["annotations"]:
        annotation |= {"attributes": {"occluded": annotation["id"] % 2 == 0}, "track": annotation["id"] * 10}
        annotation["id"] = 1 + annotation["id"] // 2  # repeated, so that they are numbered anew
    files.train["annotations"][2].update(bbox="none")
    files.train["annotations"][4].update(area=-5)
    files.train["images"][9]["height"] = 0
    files.train["categories"][0]["supercategory"] = "animal"
    files.write()
    assert run(files, composed, fix=str(files.folder / "clean.json"))[1] is not None
    written = json.loads((files.folder / "clean_train.json").read_text())
    assert {key: written[key] for key in ("info", "licenses")} == {
        key: files.train[key] for key in ("info", "licenses")
    }
    assert written["images"] == files.train["images"][:9]
    assert [a["track"] for a in written["annotations"]] == [10 * i for i in range(1, 19) if i != 3]
    assert all(a["attributes"] == {"occluded": a["track"] % 20 == 0} for a in written["annotations"])
    assert "area" not in written["annotations"][3]
    assert written["categories"][0]["supercategory"] == "animal"


def test_cleaned_joined_files_keep_what_else_each_says(files: Files, composed: DictConfig) -> None:
    files.train["images"][0]["camera"] = "one"
    files.val["images"][0]["camera"] = "two"  # the ids of both begin with 1
    files.val["annotations"][0]["track"] = 7
    files.val["info"] = {"year": 2026}
    files.write()
    config = composed.copy()
    for name in ("train", "val"):
        config.dataset[name].images = str(files.folder)
        config.dataset[name].annotations = [str(files.folder / f"{part}.json") for part in ("train", "val")]
    config.fix = str(files.folder / "clean.json")
    check(config, [], files.folder, Console(file=io.StringIO(), width=400))
    written = json.loads((files.folder / "clean_train.json").read_text())
    assert written["info"] == {"year": 2026}
    cameras = {Path(image["file_name"]).name: image["camera"] for image in written["images"] if "camera" in image}
    assert cameras == {"train1.png": "one", "val1.png": "two"}
    assert [a["image_id"] for a in written["annotations"] if "track" in a] == ["val:1"]


def test_cleaned_files_are_not_overwritten(files: Files, composed: DictConfig) -> None:
    (files.folder / "clean_val.json").write_text("mine")
    _, message = run(files, composed, fix=str(files.folder / "clean.json"))
    assert "clean_val.json exist already" in str(message)
    assert (files.folder / "clean_val.json").read_text() == "mine"
    assert not (files.folder / "clean_train.json").exists()
    assert run(files, composed, fix=str(files.folder / "clean.json"), overwrite=True)[1] is None
    assert len(json.loads((files.folder / "clean_val.json").read_text())["images"]) == VAL
    assert "fix=clean.txt" in str(run(files, composed, fix="clean.txt")[1])


def test_images_without_objects_are_told_of_training_alone(files: Files, composed: DictConfig) -> None:
    for content in (files.train, files.val):
        content["images"].append({**content["images"][0], "id": 50, "file_name": "empty.png"})
    Image.fromarray(texture(50)).save(files.image("empty.png"))
    files.write()
    printed, message = run(files, composed)
    assert message is None
    assert "images without objects: 1 (" in printed
    assert "train.json: empty.png (dataset.train.keep_empty=true trains on it)" in printed


def test_objects_of_joined_files_are_named_by_their_own_file(files: Files, composed: DictConfig) -> None:
    halves = [{**files.train, "images": files.train["images"][k::2]} for k in (0, 1)]
    for k, half in enumerate(halves):
        here = {image["id"] for image in half["images"]}
        objects = [a for a in files.train["annotations"] if a["image_id"] in here]
        (files.folder / f"part{k}.json").write_text(json.dumps({**half, "annotations": objects}))
    files.object(3).update(bbox=[-9, 5, 37, 30])  # train2.png
    files.train["annotations"].append({**files.object(4), "id": 99})
    objects = [a for a in files.train["annotations"] if a["image_id"] % 2 == 0]
    (files.folder / "part1.json").write_text(json.dumps({**halves[1], "annotations": objects}))
    config = composed.copy()
    for name in ("train", "val"):
        config.dataset[name].images = str(files.folder)
    config.dataset.val.annotations = str(files.folder / "val.json")
    config.dataset.train.annotations = [str(files.folder / f"part{k}.json") for k in (0, 1)]
    out = io.StringIO()
    check(config, [], files.folder, Console(file=out, width=400))
    image = f"{files.folder}/train2.png"
    assert f"part1.json: annotation 3 of {image}, cat [-9.0, 5.0, 37.0, 30.0]" in out.getvalue()
    assert f"part1.json: annotation 99 of {image}, dog " in out.getvalue()
    assert f" is annotation 4 of {image} again" in out.getvalue()


def test_values_outside_of_the_range_are_counted(files: Files, composed: DictConfig) -> None:
    for content in (files.train, files.val):
        for image in content["images"]:
            path = files.image(image["file_name"])
            grey = np.array(Image.open(path).convert("L")).astype(np.uint16) * 16  # up to 4080
            image["file_name"] = path.with_suffix(".tif").name
            tifffile.imwrite(path.with_suffix(".tif"), grey)
    for name, count in (("train3", 2), ("train5", 7), ("train6", 0)):
        pixels = tifffile.imread(files.image(f"{name}.tif"))
        pixels.flat[:count] = 4096 + count
        pixels.flat[-1] = 4095
        tifffile.imwrite(files.image(f"{name}.tif"), pixels)
    files.write()
    config = composed.copy()
    config.dataset.range = [0, 4095]
    config.dataset.channels = 1
    printed, message = run(files, config)
    assert message is None
    lines = printed.splitlines()
    head = lines.index(
        "images with values outside of dataset.range, which are not clipped: 2 (learnt and measured as it is)"
    )
    for line, name, count in zip(lines[head + 1 :], ("train5", "train3"), (7, 2), strict=False):
        assert line.startswith(f"  {name}.tif: {count} values; the image has ")
        assert line.endswith(f" to {4096 + count}, dataset.range is [0, 4095]")
    assert len(lines) == head + 3
    config.dataset.range = ["1%", "99%"]
    assert run(files, config) == ("nothing is wrong\n", None)


def test_an_epoch_is_described_as_training_makes_it(files: Files, composed: DictConfig) -> None:
    for number in (50, 51, 52):
        files.train["images"].append({**files.train["images"][0], "id": number, "file_name": f"empty{number}.png"})
        Image.fromarray(texture(number)).save(files.image(f"empty{number}.png"))
    few(files)
    files.write()
    for keys, wanted in (
        ({"empty_share": 0.1}, "An epoch has 11 images; 1 of 3 images without objects are drawn"),
        ({"repeat_threshold": 1.0}, "An epoch has 12 images; 4 images are repeated, up to 1.6 times"),
    ):
        config = composed.copy()
        config.dataset.update(keys)
        printed, message = run(files, config)
        assert (message, wanted in printed) == (None, True), printed
        assert ("images without objects: 3 (" in printed) == ("empty_share" not in keys)
    config.dataset.repeat_threshold = 2
    printed, message = run(files, config)
    assert "epochs that cannot be made: 1" in str(message)
    assert "repeat_threshold must be a share above 0 and up to 1, such as 0.001, not 2" in printed


@pytest.mark.parametrize("name", ["train", "val", "train_augment", "val_augment"])
def test_parts_that_are_null_are_answered(name: str, composed: DictConfig, tmp_path: Path) -> None:
    config = composed.copy()
    config.dataset[name] = None
    OmegaConf.set_struct(config, False)
    config.update({"to": "coco", "output": str(tmp_path / "out"), "draws": 1, "seed": 0, "page": None})
    for work, images in ((check, 1), (stats, 1), (show_data, 1), (print_summary, 1), (convert, "copy")):
        config.images = images
        with pytest.raises(ValueError, match=rf"^dataset\.{name}=null: "):
            work(config, [], tmp_path, Console(file=io.StringIO()))


def test_the_parts_of_one_file_are_checked_together(files: Files, composed: DictConfig) -> None:
    truncate(files.image("train3.png"))
    files.object(7).update(bbox="none")
    files.write()
    config = composed.copy()
    OmegaConf.set_struct(config, False)
    for name in ("train", "val"):
        config.dataset[name].annotations = None
        config.dataset[name].images = str(files.folder)
    config.dataset.annotations, config.dataset.val_share = str(files.folder / "train.json"), 0.3
    wanted = "annotations that cannot be read: 1, images that cannot be read: 1"
    with pytest.raises(ValueError, match=f"refuse custom: {wanted};"):
        check(config, [], files.folder, Console(file=io.StringIO()))


def described(name: str, boxes: list[tuple[int, int, int, int]]) -> str:
    objects = "".join(
        f"<object><name>cat</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for a, b, c, d in boxes
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def test_xml_files_are_checked_one_by_one(tmp_path: Path, composed: DictConfig) -> None:
    for split_name in ("train", "val"):
        folder = tmp_path / split_name
        folder.mkdir()
        for i in range(12):
            Image.fromarray(texture(i + 50 * (split_name == "val"))).save(folder / f"{i}.png")
            (folder / f"{i}.xml").write_text(described(f"{i}.png", [(5, 6, 28, 35)]))
    files, config = tmp_path / "train", composed.copy()
    config.dataset.train.annotations, config.dataset.val.annotations = str(files), str(tmp_path / "val")
    out = io.StringIO()
    check(config, [], tmp_path, Console(file=out, width=400))
    assert out.getvalue() == "nothing is wrong\n"
    (files / "1.xml").write_text("<annotation>")
    (files / "2.xml").write_text(described("2.png", [(5, 6, 28, 35)]).replace("<xmin>5", "<xmin>five"))
    (files / "3.xml").unlink()
    (files / "4.png").unlink()
    (files / "5.xml").write_text(
        described("5.png", [(5, 6, 28, 35), (9, 9, 8, 20), (200, 6, 220, 35), (60, 6, 120, 35)])
    )
    truncate(files / "6.png")
    with pytest.raises(ValueError, match="XML files that cannot be read: 2, images that cannot be read: 1") as error:
        check(config, [], tmp_path, Console(file=out, width=400))
    assert "images without an XML file: 1, missing images: 1" in str(error.value)
    printed = out.getvalue()
    for name in ("1.xml: not XML", "2.xml: 'five'", "3.xml: no such", "4.jpg: no such image", "6.png: unreadable"):
        assert f"train/{name}" in printed
    for number, kind in ((2, "boxes without area"), (3, "boxes outside"), (4, "boxes that are cut")):
        line = printed[printed.index(f"\n{kind}") :].splitlines()[2]
        assert f"5.xml: object {number}, cat" in line


def test_lines_of_yolo_are_checked_one_by_one(tmp_path: Path, composed: DictConfig) -> None:
    for kind in ("images", "labels"):
        for split_name in ("train", "val"):
            (tmp_path / kind / split_name).mkdir(parents=True)
    for split_name in ("train", "val"):
        for i in range(12):
            Image.fromarray(texture(i + 50 * (split_name == "val"))).save(tmp_path / "images" / split_name / f"{i}.png")
            (tmp_path / "labels" / split_name / f"{i}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    (tmp_path / "labels" / "train" / "3.txt").write_text("0 0.5 0.5 0.25 0.25\n7 0.5 0.5 0.25 0.25\n0 1 2\n")
    (tmp_path / "images" / "train" / "5.png").write_text("no image")
    config = composed.copy()
    config.dataset.train.annotations = config.dataset.val.annotations = str(tmp_path / "data.yaml")
    out = io.StringIO()
    with pytest.raises(ValueError, match="images that cannot be read: 1, lines that cannot be read: 2"):
        check(config, [], tmp_path, Console(file=out, width=400))
    for name in ("3.txt:2: class number 7", "3.txt:3: 3 numbers", "5.png: "):
        assert name in out.getvalue()


def test_thumbnails_are_means() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 72, 3), dtype=np.uint8)
    wanted = pixels.reshape(32, 2, 36, 2, 3).astype(float).mean((1, 3, 4))
    assert np.abs(thumbnail(pixels) - wanted).max() <= 0.5
    assert np.array_equal(thumbnail(pixels), thumbnail(pixels.astype(np.float32)))
    assert (thumbnail(np.full((5, 7, 1), 9, np.uint8)) == 9).all()  # smaller than a thumbnail


def test_images_that_look_the_same_take_a_line_each(files: Files, composed: DictConfig) -> None:
    for i in range(2, 9):  # eight frames of a camera
        Image.fromarray(texture(1).clip(i) - i).save(files.image(f"train{i}.png"))
    jpeg("train3.png", "val2.png")(files)
    printed, message = run(files, composed)
    assert message is None
    lines = printed.splitlines()
    begin = lines.index("nearly equal images: 7 (learnt and measured as it is)")
    assert lines[begin + 1] == "  train: train2.png looks like train: train1.png and 6 others"
    assert lines[begin + 7] == "  train: train8.png looks like train: train1.png and 6 others"
    begin = lines.index("nearly equal images in train and val: 1 (learnt and measured as it is)")
    assert lines[begin + 1].startswith("  val: val2.png looks like train: train")
    assert lines[begin + 1].endswith(".png and 7 others")
