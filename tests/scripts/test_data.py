import json
from pathlib import Path

from PIL import Image

from tests.scripts.conftest import run_script


def test_counts_of_a_dataset(tmp_path: Path) -> None:
    done = run_script("data", "dataset=shapes_voc", "dataset.train.train=5", "dataset.train.val=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {cells[0]: cells[1:] for cells in (line.split("│")[1:-1] for line in done.stdout.splitlines()) if cells}
    found = {name.strip(): [cell.strip() for cell in cells] for name, cells in rows.items()}
    assert found["images"] == ["5", "3"]
    assert sum(int(found[name][0]) for name in ("ellipse", "rectangle", "triangle", "ring", "cross")) == int(
        found["objects"][0]
    )
    assert {p.name.split("-")[0] for p in (tmp_path / "data").iterdir()} == {"shapes_voc"}


def test_class_names_are_no_markup(tmp_path: Path) -> None:
    names = ["[red]", "nucleus [/dark]", "a[b]c"]
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"id": i, "image_id": 1, "category_id": i, "bbox": [0, 0, 4, 4]} for i in (1, 2, 3)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    lists = [f"dataset.{split}.annotations=a.json" for split in ("train", "val")]
    name = "dataset.name=set [bold]"
    done = run_script("data", "dataset=custom", *lists, "dataset.train.images=.", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in (*names, "set [bold]:"))
    done = run_script(
        "data", "dataset=custom", *lists, "dataset.train.images=.", "dataset.empty_share=0.5", cwd=tmp_path
    )
    assert "An epoch has 1 images; 0 of 0 images without objects are drawn" in done.stdout


def test_models_have_no_place_here(tmp_path: Path) -> None:
    for name in ("data", "alignment"):
        done = run_script(name, "model=mask_rcnn", cwd=tmp_path)
        assert done.returncode == 1
        assert "unknown key 'model'; the configuration has" in done.stderr


def test_missing_data_is_named(tmp_path: Path) -> None:
    done = run_script("data", "dataset=coco", "data_dir=nowhere", cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
