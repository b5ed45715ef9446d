import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from pycocotools import mask as rle

from detector.inference.video import VideoWriter, open_video
from tests.conftest import ROOT
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
        (["input=own", "output=out", "post_nms_topk=0"], ["post_nms_topk", "1 or more", "0"]),
        (["input=own", "output=out", "nms_thresh=50"], ["nms_thresh", "0 to 1", "50"]),
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


def test_sub_folders_formats_and_thresholds(tmp_path: Path, run: Run) -> None:
    """A second prediction leaves nothing of the first; one into a folder with other files is refused."""
    names = ["000001.png", "000002.png", "000003.png"]
    for name, folder in zip(names, (".", "a", "a/b"), strict=True):
        (tmp_path / "in" / folder).mkdir(exist_ok=True, parents=True)
        shutil.copy(run.dataset / "val" / name, tmp_path / "in" / folder / name)
    threshold = "threshold={ellipse: 1, default: 0}"
    arguments = [f"checkpoint={run.checkpoint}", "output=in/out"]
    formats = "save=[images,csv,coco,annotations,voc,yolo,masks]"
    done = run_script("predict", *arguments, "input=in", formats, threshold, "batch=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "in" / "out"
    found = json.loads((out / "detections.json").read_text())
    assert list(found) == ["000001.png", "a/000002.png", "a/b/000003.png"]
    rows = [row for rows in found.values() for row in rows]
    drawn = [row for row in rows if row["class"] != "ellipse" or row["score"] >= 1]
    assert len(drawn) > 0
    assert f"{len(drawn)} of {len(rows)} reach the threshold of their class" in done.stdout
    annotations = json.loads((out / "annotations.json").read_text())["annotations"]
    assert [a["score"] for a in annotations] == [row["score"] for row in drawn]
    listed = {line.split("  ", 1)[1] for line in (out / "written.txt").read_text().splitlines()}
    assert {"a/b/000003.png", "masks/a/000002.png", "voc/Annotations/000001.xml", "images.json"} <= listed
    done = run_script("predict", *arguments, "input=in/a/*.png", "threshold=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"0 of {len(found['a/000002.png'])} score 1 or more; threshold=0." in done.stdout
    assert "draws more" in done.stdout
    left = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert left == {"000002.png", "detections.json", "images.json", "written.txt"}
    (out / "detections.json").write_text("{}")
    done = run_script("predict", *arguments, "input=in", cwd=tmp_path)
    assert done.returncode == 1
    assert "holds more than what an earlier prediction has written: detections.json, changed since" in done.stderr
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == left


def test_windows_of_a_large_image(tmp_path: Path, run: Run) -> None:
    """One window is the image; several find what is in each, in its place; JPEG and PNG are decoded as a whole."""
    with Image.open(run.dataset / "val" / "000001.png") as image:
        pixels = np.array(image)
    large = np.concatenate([np.concatenate([pixels, pixels[:, ::-1]], 1)] * 2)
    tifffile.imwrite(tmp_path / "large.tif", large, photometric="rgb")
    Image.fromarray(large).save(tmp_path / "large.png")
    arguments = [f"checkpoint={run.checkpoint}", "tiles=96", "overlap=0.5", "threshold=0", "save=[masks,csv]"]
    found = {}
    for suffix in ("tif", "png"):
        done = run_script("predict", *arguments, f"input=large.{suffix}", f"output={suffix}", "batch=4", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("1 image was decoded as a whole, such as large.png" in done.stdout) is (suffix == "png")
        found[suffix] = json.loads((tmp_path / suffix / "detections.json").read_text())[f"large.{suffix}"]
    assert found["tif"] == found["png"]
    assert len(found["tif"]) > 4
    for row in found["tif"]:
        x, y, w, h = row["bbox"]
        assert 0 <= x <= x + w <= 192 + 1e-3
        assert 0 <= y <= y + h <= 192 + 1e-3
        assert row["segmentation"]["size"] == [192, 192]
    small = [f"input={run.dataset / 'val' / '000001.png'}", f"checkpoint={run.checkpoint}", "save=[]"]
    for more, out in ((["tiles=96"], "one"), ([], "plain")):
        assert run_script("predict", *small, *more, f"output={out}", cwd=tmp_path).returncode == 0
    assert (tmp_path / "one" / "detections.json").read_text() == (tmp_path / "plain" / "detections.json").read_text()
    full = ["input=large.tif", "detections=1", "output=full"]
    done = run_script("predict", *arguments, *full, cwd=tmp_path)
    assert "9 images, windows or frames have as many of these as are kept of one (1)" in done.stdout
    for words in (["tiles=8", "at least 32"], ["overlap=1", "tiles=64", "overlap"], ["join=nms", "tiles=64", "join"]):
        done = run_script("predict", *arguments, "input=large.tif", *words[:-1], "output=no", cwd=tmp_path)
        assert done.returncode == 1
        assert words[-1] in done.stderr


def test_a_video_becomes_a_video_and_a_json_by_frames(tmp_path: Path, run: Run) -> None:
    writer = VideoWriter(tmp_path / "clip.mp4", 10)
    for name in ("000001.png", "000002.png", "000003.png"):
        with Image.open(run.dataset / "val" / name) as image:
            writer.add(image.convert("RGB"))
    writer.close()
    arguments = [f"checkpoint={run.checkpoint}", "input=clip.mp4", "output=out", "threshold=0"]
    done = run_script("predict", *arguments, "save=[images,csv]", "batch=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert {key: found[key] for key in found if key != "frames"} == {
        "video": "clip.mp4",
        "width": 96,
        "height": 96,
        "frames_per_second": 10,
    }
    assert len(found["frames"]) == 3
    count = sum(map(len, found["frames"]))
    assert f"{count} detections in 3 frames" in done.stdout
    with (tmp_path / "out" / "detections.csv").open() as file:
        assert sum(1 for _ in file) == count + 1
    with open_video(tmp_path / "out" / "clip.mp4") as video:
        assert video.rate == 10
        assert [tuple(frame.shape) for frame in video.frames] == [(3, 384, 384)] * 3
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    done = run_script("predict", *arguments[:1], "input=[clip.mp4,bad.mp4]", "output=out", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 2 images could not be read" in done.stderr
    assert (tmp_path / "out" / "clip.json").exists()
    done = run_script("predict", *arguments, "save=[coco]", cwd=tmp_path)
    assert done.returncode == 1
    assert "clip.mp4 is a video" in done.stderr
    assert "ffmpeg -i VIDEO" in done.stderr


def test_names_from_a_pipe(tmp_path: Path, run: Run) -> None:
    images = sorted((run.dataset / "val").iterdir())[:2]
    command = [sys.executable, str(ROOT / "scripts" / "predict.py"), f"checkpoint={run.checkpoint}", "input=-"]
    names = "".join(f"{path}\n" for path in (*images, tmp_path / "none.png"))
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "input": names, "text": True}
    done = subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 1
    assert "1 of 3 images could not be read" in done.stderr
    assert "none.png: no such image file" in done.stderr
    found = json.loads((tmp_path / "predictions" / "detections.json").read_text())
    assert [Path(name).name for name in found] == [path.name for path in images]
