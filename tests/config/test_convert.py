"""`scripts/data.py convert`: a dataset written in another format opens as `dataset=...` does."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from detector.config.build import instantiate_split
from detector.config.convert import convert
from detector.data.annotations import AnnotatedDataset
from detector.data.coco import read_coco
from detector.data.voc import VocDataset
from detector.data.yolo import read_yolo
from tests.conftest import compose_config
from tests.data.test_writers import coco_set

SHAPES = ("dataset=shapes_coco", "dataset.train.train=6", "dataset.train.val=4")


def run(folder: Path, *overrides: str) -> str:
    config = compose_config(
        *SHAPES, f"data_dir={folder / 'data'}", f"output={folder / 'out'}", *overrides, name="data_convert"
    )
    console = Console(width=200)
    with console.capture() as said:
        convert(config, overrides, folder, console)
    return said.get()


def opened(said: str, folder: Path) -> list[int]:
    """Open what was written by the overrides that are printed; returns the numbers of images."""
    written, _, overrides = said.partition("; read it by ")
    assert written == f"written to {folder}"
    config = compose_config(*overrides.split(), "dataset.train.keep_empty=true")
    return [len(instantiate_split(config.dataset[name])) for name in ("train", "val")]


@pytest.mark.parametrize("images", ["copy", "link"])
def test_shapes_in_each_format(tmp_path: Path, images: str) -> None:
    said = run(tmp_path, "to=coco", f"images={images}").splitlines()
    out = tmp_path / "out"
    coco = {name: read_coco(out / f"annotations/instances_{name}.json") for name in ("train", "val")}
    assert said[:2] == [f"{n}: {len(t)} images, {len(t.ids)} objects" for n, t in coco.items()]
    assert opened(said[2], out) == [6, 4]
    assert [len(table) for table in coco.values()] == [6, 4]
    assert all((out / n / file).is_symlink() == (images == "link") for n, t in coco.items() for file in t.files)
    said = run(tmp_path, "to=voc", f"output={tmp_path / 'set/VOC2007'}", f"images={images}").splitlines()
    assert opened(said[-1], tmp_path / "set/VOC2007") == [6, 4]
    voc = VocDataset(tmp_path / "set", [("2007", "val")], classes=None, masks=True)
    np.testing.assert_allclose(voc.annotations.corners(), coco["val"].corners(), atol=1e-3)
    assert all(voc[i].target.masks is not None for i in range(len(voc)))
    boxes = ["dataset.val.masks=false", "dataset.train.masks=false"]
    said = run(tmp_path, "to=yolo", f"output={tmp_path / 'yolo'}", *boxes).splitlines()
    assert opened(said[-1], tmp_path / "yolo") == [6, 4]
    yolo = read_yolo(tmp_path / "yolo/data.yaml", "train")
    assert yolo.segmentations is None
    np.testing.assert_allclose(yolo.corners(), coco["train"].select_objects(~coco["train"].crowd).corners(), atol=1e-3)


def test_images_without_objects_are_written(tmp_path: Path) -> None:
    path = coco_set(tmp_path / "in")
    config = compose_config(
        "dataset=custom",
        *(f"dataset.{split}.annotations={path}" for split in ("train", "val")),
        "to=yolo",
        f"output={tmp_path / 'out'}",
        name="data_convert",
    )
    assert not config.dataset.train.keep_empty
    convert(config, [], tmp_path, Console(quiet=True))
    for split in ("train", "val"):
        table = read_yolo(tmp_path / "out/data.yaml", split)
        assert np.diff(table.starts).tolist() == [2, 2, 0]  # without the crowd


def own(path: str) -> AnnotatedDataset:
    """A user's dataset, which takes no `reader`."""
    return AnnotatedDataset(read_coco(Path(path)), Path(path).parent)


def test_a_dataset_of_ones_own_may_take_no_reader(tmp_path: Path) -> None:
    path = coco_set(tmp_path / "in")
    config = compose_config("dataset=custom", "to=coco", f"output={tmp_path / 'out'}", name="data_convert")
    OmegaConf.set_struct(config, False)
    for split in ("train", "val"):
        config.dataset[split] = {"_target_": f"{__name__}.own", "path": str(path), "reader": "${dataset.reader}"}
    convert(config, [], tmp_path, Console(quiet=True))
    written = read_coco(tmp_path / "out/annotations/instances_val.json")
    np.testing.assert_array_equal(written.boxes, read_coco(path).boxes)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to must be coco, voc, yolo, not 'labelme'"):
        run(tmp_path, "to=labelme")
    with pytest.raises(ValueError, match="images must be copy, link, none, not 'move'"):
        run(tmp_path, "to=coco", "images=move")
    run(tmp_path, "to=coco", "images=none")
    with pytest.raises(FileExistsError, match="out: there are files already"):
        run(tmp_path, "to=coco")
