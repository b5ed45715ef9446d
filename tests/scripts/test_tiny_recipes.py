"""The recipes for tiny objects, rehearsed on generated images in the layout of AI-TOD and of VisDrone."""

import json
import shutil
from pathlib import Path

import pytest

from detector.data.tiny_shapes import TinyShapesDataset
from tests.scripts.conftest import run_script


def lay_out(home: Path, folders: dict[str, tuple[str, str]], classes: int) -> None:
    """Draw images of 160 px into `folders`: by split, those of the images and the file of the annotations.

    Objects are of several classes in turn; the last of each image is a region to ignore.
    """
    drawn = TinyShapesDataset(home / "drawn", "train", image_size=160, objects=(20, 30), train=3, val=3)
    for split, (images, annotations) in folders.items():
        (home / images).parent.mkdir(parents=True, exist_ok=True)
        (home / annotations).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(drawn.images.parent / split, home / images)
        truth = json.loads((drawn.images.parent / f"annotations/instances_{split}.json").read_text())
        truth["categories"] = [{"id": i + 1, "name": f"class {i}"} for i in range(classes)]
        last = {a["image_id"]: a["id"] for a in truth["annotations"]}
        for annotation in truth["annotations"]:
            annotation["category_id"] = 1 + annotation["id"] % classes
            annotation["iscrowd"] = int(last[annotation["image_id"]] == annotation["id"])
        (home / annotations).write_text(json.dumps(truth))


SMALL = [
    "dataset.rpn.train.post_nms_topk=50",
    "dataset.rpn.test.post_nms_topk=50",
    "dataset.rois=32",
    "dataset.detections=150",
]


@pytest.mark.slow
def test_aitod_by_rfla(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        {
            "train": ("AI-TOD/trainval", "AI-TOD/annotations/small_trainval_v1_1.0.json"),
            "val": ("AI-TOD/test", "AI-TOD/annotations/small_test_v1_1.0.json"),
        },
        8,
    )
    sizes = [
        f"dataset.{split}_augment.{key}" for split in ("train", "val") for key in ("short_sizes=[160]", "max_size=160")
    ]
    done = run_script(
        "train",
        "experiment=[aitod_rfla,dry]",
        f"data_dir={tmp_path}",
        "hydra.run.dir=run",
        *sizes,
        *SMALL,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {"aitod/AP", "aitod/APvt", "aitod/APt", "box/AP"} <= metrics.keys()
    assert "As AI-TOD measures" in done.stdout
    config = (tmp_path / "run/config.yaml").read_text()
    assert "detector.models.rfla.effective_receptive_fields" in config


@pytest.mark.slow
def test_visdrone_by_windows(tmp_path: Path) -> None:
    folders = {
        split: (f"visdrone/VisDrone2019-DET-{split}/images", f"visdrone/annotations/{split}.json")
        for split in ("train", "val")
    }
    lay_out(tmp_path, folders, 10)
    windows = ["tiles=96", "dataset.train_augment.fixed_size=[96,96]", "dataset.val_augment.short_sizes=[96]"]
    windows.append("dataset.val_augment.max_size=96")
    done = run_script(
        "train",
        "experiment=[visdrone_sliced,dry]",
        f"data_dir={tmp_path}",
        "hydra.run.dir=run",
        *windows,
        *SMALL,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run/predictions/box.json").read_text())
    assert max(row["bbox"][0] + row["bbox"][2] for row in found) > 100  # beyond the first window
