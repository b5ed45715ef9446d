from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.scripts.conftest import Run, run_script


def test_a_run_is_exported_and_compared(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate([(96, 96), (131, 77), (60, 150)]):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    given = [f"checkpoint={run.checkpoint}", "output=out/model.onnx", "images=images", "count=2", "threads=1"]
    done = run_script("export", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Written: out/model.onnx (" in done.stdout
    assert "onnxruntime " in done.stdout
    assert "0.png" in done.stdout
    assert "2.png" not in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.onnx"]
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    for name, weight in checkpoint["state_dict"].items():
        if name.endswith("box_head.classify.bias"):
            weight[0] += 1.0
    torch.save(checkpoint, tmp_path / "other.ckpt")
    given = ["checkpoint=other.ckpt", "check=out/model.onnx", "images=images"]
    done = run_script("export", *given, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "the file's detections differ from the detector's in 3 of 3 images, such as 0.png" in done.stderr


@pytest.mark.slow(minutes=0.3)
def test_a_run_is_quantised(tmp_path: Path, run: Run) -> None:
    given = [f"checkpoint={run.checkpoint}", "int8=true", "calibration=4", "speed=true", "threads=1"]
    done = run_script("export", *given, f"data_dir={run.folder.parent / 'data'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["model.int8.onnx", "model.onnx"]
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert sizes[0] < 0.7 * sizes[1]
    for words in ("model.int8.onnx (", "box/AP50", "times as fast as torch"):
        assert words in done.stdout
    row = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["box/AP"])
    assert len(row) == 4  # of the detector, the file and the quantised one
    assert row[1] == row[2]
    given = [f"checkpoint={run.checkpoint}", "check=model.onnx", "ap=true", "count=1", "threads=1"]
    done = run_script("export", *given, f"data_dir={run.folder.parent / 'data'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["box/AP"]) == row[:3]
    done = run_script("export", "checkpoint=x", "int8=true", "output=model.pt2", cwd=tmp_path)
    assert done.returncode == 1
    assert "int8=true quantises an ONNX file that is written" in done.stderr


def test_bad_input_is_named(tmp_path: Path, run: Run) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    for arguments, words in (
        (["output=model.pth"], ["output=model.pth", ".onnx, .pt2"]),
        (["check=missing.onnx"], ["missing.onnx", "no such file"]),
        (["output=new.onnx", "images=missing"], ["missing", "no such file or folder"]),
        (["output=new.onnx", "count=0"], ["count", "at least 1", "0"]),
        (["output=new.onnx", "masks=none"], ["masks must be one of grids, pasted", "none"]),
        (["check=model.onnx"], ["model.onnx"]),
    ):
        done = run_script("export", f"checkpoint={run.checkpoint}", *arguments, cwd=tmp_path)
        assert done.returncode == 1, arguments
        assert all(word in done.stderr for word in words), done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
