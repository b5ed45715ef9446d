import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from tests.scripts.conftest import Run, run_script


def test_a_folder_of_images_of_any_size_and_mode(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    sizes = {"wide.png": (301, 97), "grey.jpg": (64, 200), "alpha.png": (80, 80), "wide.jpg": (50, 60)}
    for (name, size), mode in zip(sizes.items(), ("RGB", "L", "RGBA", "RGB"), strict=True):
        noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    done = run_script("predict", f"checkpoint={run.checkpoint}", f"input={folder}", "output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert found.keys() == sizes.keys()
    drawn = {p.name for p in (tmp_path / "out").glob("*.png")}
    assert drawn == {"wide.png.png", "wide.jpg.png", "grey.png", "alpha.png"}
    for name, (width, height) in sizes.items():
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
    (tmp_path / "own").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "own" / "a.png")
    before = (tmp_path / "own" / "a.png").read_bytes()
    for arguments, words in (
        (["input=broken.png", "output=out"], ["broken.png"]),
        (["input=empty", "output=out"], ["empty"]),
        (["input=missing", "output=out"], ["missing"]),
        (["input=own", "output=own"], ["own", "apart from"]),
        (["input=own", "output=out", "threshold=2"], ["threshold", "2"]),
        (["input=own", "output=out", "device=gpu"], ["gpu", "cuda"]),
        (["input=own", "output=out", "+nonsense=1"], ["nonsense"]),
    ):
        done = run_script("predict", f"checkpoint={run.checkpoint}", *arguments, cwd=tmp_path)
        assert done.returncode == 1, arguments
        assert all(word in done.stderr for word in words), done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "own" / "a.png").read_bytes() == before
