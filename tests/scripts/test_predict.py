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
        (["input=broken.png", "output=out"], ["broken.png", "1 of 1"]),
        (["input=empty", "output=out"], ["empty"]),
        (["input=missing", "output=out"], ["missing"]),
        (["input=own", "output=own"], ["own", "apart from"]),
        (["input=own", "output=out", "threshold=2"], ["threshold", "2"]),
        (["input=own", "output=out", "device=gpu"], ["gpu", "cuda"]),
        (["input=own", "output=out", "device=xpu:99"], ["xpu:99", "device=cpu"]),
        (["input=own", "output=out", "precision=8"], ["precision", "8", "32-true"]),
        (["input=own", "output=out", "detections=0"], ["detections", "1 or more", "0"]),
        (["input=own", "output=out", "+nonsense=1"], ["nonsense"]),
    ):
        done = run_script("predict", f"checkpoint={run.checkpoint}", *arguments, cwd=tmp_path)
        assert done.returncode == 1, arguments
        assert all(word in done.stderr for word in words), done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "own" / "a.png").read_bytes() == before


def test_unreadable_images_do_not_stop_the_others(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no image")
    for name in ("a.png", "z.png"):
        Image.new("RGB", (40, 40)).save(folder / name)
    done = run_script("predict", f"checkpoint={run.checkpoint}", f"input={folder}", "output=out", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 3 images could not be read" in done.stderr
    assert "broken.png" in done.stderr
    assert json.loads((tmp_path / "out" / "detections.json").read_text()).keys() == {"a.png", "z.png"}


def test_predictions_equal_those_of_the_evaluation(tmp_path: Path, run: Run) -> None:
    """The default is the run's precision; another one gives almost equal detections."""
    images = run.dataset / "val"
    rows = json.loads((run.folder / "predictions" / "box.json").read_text())
    truth = json.loads((images.parent / "annotations" / "instances_val.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    expected: dict[str, list[float]] = {name: [] for name in names.values()}
    for row in rows:
        expected[names[row["image_id"]]].append(row["score"])
    done = run_script("predict", f"checkpoint={run.checkpoint}", f"input={images}", "output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert sum(map(len, expected.values())) > 0
    for name, scores in expected.items():
        np.testing.assert_allclose([row["score"] for row in found[name]], scores, rtol=1e-2)


def test_photographs_stand_upright(tmp_path: Path, run: Run) -> None:
    """A photograph that lies on its side gives what the upright one gives, and is drawn upright."""
    (tmp_path / "in").mkdir()
    with Image.open(next((run.dataset / "val").iterdir())) as image:
        upright = image.crop((0, 0, 96, 64))
    exif = Image.Exif()
    exif[274] = 6
    upright.save(tmp_path / "in" / "a.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "b.png", exif=exif)
    arguments = [f"checkpoint={run.checkpoint}", "input=in", "max_pixels=6144"]
    done = run_script("predict", *arguments, "output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 images are turned by EXIF (images.json); pixels are those upright" in done.stdout
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert found["a.png"] == found["b.png"]
    described = {"width": 96, "height": 64, "pixels": "upright"}
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert images == {"a.png": described | {"exif_orientation": 1}, "b.png": described | {"exif_orientation": 6}}
    with Image.open(tmp_path / "out" / "a.png") as one, Image.open(tmp_path / "out" / "b.png") as other:
        assert np.array_equal(np.array(one), np.array(other))
    done = run_script("predict", *arguments, "output=stored", "exif=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    images = json.loads((tmp_path / "stored" / "images.json").read_text())
    assert images["b.png"] == {"width": 64, "height": 96, "pixels": "as stored", "exif_orientation": 6}
    with Image.open(tmp_path / "stored" / "b.png") as drawn:
        assert drawn.height > drawn.width
    done = run_script("predict", *arguments[:2], "max_pixels=6143", "output=x", cwd=tmp_path)
    assert done.returncode == 1
    assert "96x64 = 6144 pixels, and max_pixels is 6143" in done.stderr
