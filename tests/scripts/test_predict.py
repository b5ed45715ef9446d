import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from tests.scripts.conftest import Run, run_script


def test_a_folder_of_images_of_any_size_and_mode(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    sizes = {"wide.png": (301, 97), "grey.jpg": (64, 200), "alpha.png": (80, 80)}
    for (name, size), mode in zip(sizes.items(), ("RGB", "L", "RGBA"), strict=True):
        noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    done = run_script("predict", f"checkpoint={run.checkpoint}", f"input={folder}", "output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert found.keys() == sizes.keys()
    for name, (width, height) in sizes.items():
        assert (tmp_path / "out" / f"{Path(name).stem}.png").is_file()
        for row in found[name]:
            x, y, w, h = row["bbox"]
            assert 0 <= x <= x + w <= width + 1e-3
            assert 0 <= y <= y + h <= height + 1e-3
            assert 0 <= row["score"] <= 1
            assert row["segmentation"]["size"] == [height, width]
            assert rle.area(row["segmentation"]) <= width * height


def test_bad_input_is_named(tmp_path: Path, run: Run) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    for name in ("broken.png", "empty", "missing"):
        done = run_script("predict", f"checkpoint={run.checkpoint}", f"input={name}", "output=out", cwd=tmp_path)
        assert done.returncode == 1
        assert name in done.stderr
        assert "Traceback" not in done.stderr
