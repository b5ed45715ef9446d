import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from detector.training.folder import read_config
from tests.scripts.conftest import FEW as KEYS
from tests.scripts.conftest import Run, run_script


def check_picture(path: Path) -> None:
    """Check a picture for a README: not blank, 900 px wide at 1.5 dots per px, and a small file."""
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert picture.width == 1350
        coloured = picture.convert("RGB")
    pixels = np.asarray(coloured).reshape(-1, 3)
    colours = coloured.getcolors(len(pixels))
    assert colours is not None
    assert len(colours) > 50
    assert (pixels != 255).any(1).mean() > 0.05


def test_textbook_example(tmp_path: Path) -> None:
    done = run_script("alignment", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "25 px short" in done.stdout
    assert "39 px too far" in done.stdout
    assert str(tmp_path / "out") in done.stdout.replace("\n", "")
    found = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert [round(part["offsets"][2], 6) for part in found.values()] == [-25, 39, 0]
    for name in ("regions", "gradient"):
        check_picture(tmp_path / "out" / f"{name}.png")


def test_own_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "own.png")
    arguments = ("image=own.png", "box=[20.5,10,70,60]", "stride=16", "pooled=3", "hydra.run.dir=out")
    done = run_script("alignment", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert found["RoIPool, in use"]["region"] == [16, 16, 80, 80]
    assert found["RoIAlign"]["region"] == pytest.approx([20.5, 10, 70, 60])
    assert len(found["RoIAlign"]["bins"]["x"]) == 3
    check_picture(tmp_path / "out" / "regions.png")


def test_a_dataset(tmp_path: Path) -> None:
    small = ("dataset=shapes_voc", "dataset.train.train=4", "dataset.train.val=6")
    done = run_script("alignment", *small, "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["pooled_from"] for row in rows} >= {"stride 4", "stride 32", "FPN", "P2"}
    assert all(float(row["q90_px"]) == 0 for row in rows if row["operator"] == "RoIAlign")
    assert all(float(row["median_px"]) > 0 for row in rows if row["operator"] == "RoIPool, in use")
    check_picture(tmp_path / "out" / "errors.png")


def test_nothing_of_a_runs_model_is_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "harm.py").write_text("open('harmed', 'w').close()\n")
    for name in ("first", "second"):
        shutil.copytree(run.folder / "predictions", tmp_path / name / "predictions")
        config = OmegaConf.load(run.folder / "config.yaml")
        config.model.heads.further.mask = {"_target_": "harm.x"}
        OmegaConf.save(config, tmp_path / name / "config.yaml")
    done = run_script("alignment", "runs=[first,second]", "hydra.run.dir=out", cwd=tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "harmed").exists()


def test_two_runs(run: Run, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "predictions").mkdir(parents=True)
        shutil.copy(run.folder / "config.yaml", tmp_path / name)
    truth = run.folder / "predictions" / "box.json"
    shutil.copy(truth, tmp_path / "first" / "predictions")
    (tmp_path / "second" / "predictions" / "box.json").write_text("[]")
    arguments = ("runs=[first,second]", "parts=3", "hydra.run.dir=out")
    done = run_script("alignment", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_picture(tmp_path / "out" / "costs.png")
    assert [" first " in done.stdout, " second " in done.stdout] == [True, True]
    (tmp_path / "second" / "predictions" / "box.json").unlink()
    done = run_script("alignment", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "no predictions" in done.stderr


def test_a_dataset_given_beside_runs_is_measured_at_their_scale(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(run.folder.parent / "data")
    for name in ("first", "second"):
        shutil.copytree(run.folder / "predictions", tmp_path / name / "predictions")
        config = OmegaConf.load(run.folder / "config.yaml")
        config.dataset.val_augment.short_sizes = [48]
        OmegaConf.save(config, tmp_path / name / "config.yaml")
    tables = []
    for given in ([], ["dataset=shapes", *KEYS]):
        done = run_script("alignment", "runs=[first,second]", *given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        tables.append([line for line in done.stdout.splitlines() if "│" in line])
    assert "dataset.val_augment.short_sizes=[48] (dataset shapes_coco by itself: null)" in done.stdout
    assert tables[0] == tables[1]


def test_only_runs_with_levels_are_measured_by_error(run: Run, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        config = OmegaConf.load(run.folder / "config.yaml")
        del config.pooler.assign
        OmegaConf.save(config, tmp_path / name / "config.yaml")
        assert read_config(tmp_path / name).seed == 0
    done = run_script("alignment", "runs=[first,second]", cwd=tmp_path)
    assert done.returncode == 1
    assert "first/config.yaml is not the configuration of a training run: it lacks pooler.assign" in done.stderr


FEW = ["dataset=shapes", "dataset.train.train=2", "dataset.train.val=2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["box=[0,0,900,10]"], "reaches out of the image"),
        (["box=[0,0,.nan,10]"], "four finite numbers"),
        (["runs=nowhere"], "list of folders"),
        (["stride=0"], "stride must be"),
        (["image=nowhere.jpg", "box=[0,0,1,1]"], "nowhere.jpg"),
        (["image=nowhere.jpg"], "needs a box"),
        (["dataset=shapes", "box=[0,0,1,1]"], "give one or"),
        (["dataset=coco", "data_dir=nowhere"], "nowhere"),
        (["runs=[nowhere,elsewhere]"], "no folder of a run"),
        (["gradient.bin=[0,5]"], "bin must be"),
        (
            ["dataset=shapes", "strides=[0,4]", "dataset.train.train=2", "dataset.train.val=2"],
            "strides must be above 0",
        ),
        (["dataset=shapes", "pooled=0", "dataset.train.train=2", "dataset.train.val=2"], "pooled must be"),
        (["+colour=red"], "unknown key"),
    ],
)
def test_bad_input(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run_script("alignment", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
