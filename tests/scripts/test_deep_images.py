"""Images of five bands and 12 bits go through all scripts; photographs stand upright."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.scripts.conftest import SMALL, run_script

BANDS = ["dataset=custom", "dataset.channels=5", "dataset.range=[0,4095]", "dataset.train.images=images"]
BANDS += [f"dataset.{split}.annotations={split}.json" for split in ("train", "val")]
BANDS += ["dataset.val_augment.short_sizes=[64]", "dataset.val_augment.max_size=96", "dataset.canonical_size=24"]
BANDS += ["dataset.anchor_sizes=[8,16,32,64,128]", "dataset.train_augment.colour=0.3"]
SHORT = [key for key in SMALL if not key.startswith("dataset.")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write bright squares on dark ground, in TIFFs of five bands and 12 bits, and train on them."""
    home = tmp_path_factory.mktemp("bands")
    (home / "images").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
        for number in range(1, count + 1):
            pixels = rng.integers(200, 400, (64, 80, 5), dtype=np.uint16)
            x, y = (int(v) for v in rng.integers(4, 36, 2))
            pixels[y : y + 20, x : x + 20] += 3000
            name = f"{split}{number}.tif"
            tifffile.imwrite(home / "images" / name, pixels, photometric="minisblack", planarconfig="contig")
            content["images"].append({"id": number, "file_name": name, "width": 80, "height": 64})
            box = {"id": number, "image_id": number, "category_id": 1, "bbox": [x, y, 20, 20], "area": 400}
            content["annotations"].append(box)
        (home / f"{split}.json").write_text(json.dumps(content | {"categories": [{"id": 1, "name": "square"}]}))
    done = run_script("train", *BANDS, *SHORT, "hydra.run.dir=run", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "model.normalize.mean: RGB's [123.675, 116.28, 103.53], repeated for 5" in done.stdout + done.stderr
    return home


def test_the_checkpoint_says_how_images_are_read(home: Path) -> None:
    content = torch.load(home / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    config = content["aligned_rcnn"]["config"]
    assert config["dataset"]["reader"]["channels"] == config["backbone"]["in_channels"] == 5
    assert config["dataset"]["val"]["reader"]["range"] == [0, 4095]
    assert config["model"]["normalize"]["mean"] == [123.675, 116.28, 103.53, 123.675, 116.28]
    assert content["state_dict"]["model.backbone.body.stem.0.weight"].shape[1] == 5
    assert (home / "run" / "pictures" / "predictions.png").is_file()


def test_training_resumes(home: Path) -> None:
    done = run_script("train", *BANDS, *SHORT, "hydra.run.dir=part", "schedule.steps=2", cwd=home)
    assert done.returncode == 0, done.stderr
    done = run_script("train", "resume=part/checkpoints/last.ckpt", "trainer=cpu", "workers=0", cwd=home)
    assert done.returncode == 0, done.stderr


def test_another_dataset_is_read_as_in_training(home: Path) -> None:
    own = json.loads((home / "run" / "metrics.json").read_text())
    checkpoint, val = "checkpoint=run/checkpoints/last.ckpt", "dataset.val.annotations=val.json"
    given = ["dataset=custom", val, "dataset.train.annotations=train.json", "dataset.train.images=images"]
    given += ["dataset.val_augment.short_sizes=[64]", "dataset.val_augment.max_size=96", "workers=0"]
    done = run_script("evaluate", checkpoint, *given, "hydra.run.dir=again", cwd=home)
    assert done.returncode == 0, done.stderr
    again = json.loads((home / "again" / "metrics.json").read_text())
    assert {k: v for k, v in again.items() if k.startswith("box/")} == {
        k: v for k, v in own.items() if k.startswith("box/")
    }
    done = run_script("evaluate", checkpoint, *given, "dataset.channels=3", cwd=home)
    assert done.returncode == 1
    assert "dataset.channels=3: the detector was trained on 5; leave it out" in done.stderr


def test_prediction_reads_as_in_training(home: Path) -> None:
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    done = run_script("predict", checkpoint, "input=images", "output=found", "threshold=0", cwd=home)
    assert done.returncode == 0, done.stderr
    found = json.loads((home / "found" / "detections.json").read_text())
    rows = json.loads((home / "run" / "predictions" / "box.json").read_text())
    for number in (1, 2, 3):
        scores = [row["score"] for row in rows if row["image_id"] == number]
        assert [row["score"] for row in found[f"val{number}.tif"]] == pytest.approx(scores, abs=1e-4)
    done = run_script("predict", checkpoint, "input=images/val1.tif", "output=x", "range=[0,99999]", cwd=home)
    assert done.returncode == 0, done.stderr
    other = json.loads((home / "x" / "detections.json").read_text())["val1.tif"]
    assert [row["score"] for row in other] != [row["score"] for row in found["val1.tif"]]
    Image.new("RGB", (80, 64)).save(home / "photo.jpg")
    done = run_script("predict", checkpoint, "input=photo.jpg", "output=y", cwd=home)
    assert done.returncode == 1
    assert "photo.jpg: the image has 3 channels, and dataset.channels is 5" in done.stderr


def test_a_set_of_deep_images_says_the_key(home: Path) -> None:
    without = [key for key in BANDS if not key.startswith("dataset.range")]
    for name in ("data", "train"):
        keys = [key for key in without if key.startswith("dataset")] if name == "data" else [*without, *SHORT]
        done = run_script(name, *keys, cwd=home)
        assert done.returncode == 1
        assert "6 of 6 images are not of 8 bits, but uint16, with values from 200 to 3" in done.stderr
        assert "dataset.range=[0,4095], or percentiles of each image: dataset.range=[1%,99%]" in done.stderr
    done = run_script("data", *[k for k in without if k.startswith("dataset")], "dataset.range=[1%,99%]", cwd=home)
    assert done.returncode == 0, done.stderr
