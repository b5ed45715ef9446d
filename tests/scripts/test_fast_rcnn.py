"""Fast R-CNN with a file of proposals, and with a frozen RPN, from the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scripts.conftest import SMALL, Run, run_script

SHORT = [*(a for a in SMALL if not a.startswith("schedule.")), "schedule.steps=2", "schedule.validate_every=2"]


def data(run: Run) -> str:
    return f"data_dir={run.folder.parent / 'data'}"


def same_again(folder: Path, run: Run, *arguments: str) -> None:
    """Check that evaluating the checkpoint gives exactly the run's metrics."""
    checkpoint = f"checkpoint={folder}/checkpoints/last.ckpt"
    arguments = (data(run), "workers=0", "hydra.run.dir=again", *arguments)
    done = run_script("evaluate", checkpoint, *arguments, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    for name in ("predictions/box.json", "predictions/mask.json"):
        if (folder / name).exists():
            assert (folder.parent / "again" / name).read_text() == (folder / name).read_text()
    first, second = (json.loads((folder.parent / f / "metrics.json").read_text()) for f in (folder.name, "again"))
    assert "box/AP" in first
    assert {k: v for k, v in first.items() if "AP" in k} == {k: v for k, v in second.items() if "AP" in k}


@pytest.fixture(scope="module")
def proposals(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    home = tmp_path_factory.mktemp("proposals")
    done = run_script("proposals", f"checkpoint={run.checkpoint}", data(run), "output=p.npz", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "for 14 images: p.npz" in done.stdout
    assert [p.name for p in home.iterdir()] == ["p.npz"]
    return home / "p.npz"


def test_file_of_proposals(tmp_path: Path, run: Run, proposals: Path) -> None:
    shutil.copy(proposals, tmp_path / "p.npz")
    given = ["model=fast_rcnn", "proposals=p.npz"]
    done = run_script("train", *given, data(run), "hydra.run.dir=run", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {name for name in header if name.startswith("loss/")} == {"loss/class", "loss/box"}
    same_again(tmp_path / "run", run)

    with np.load(tmp_path / "p.npz") as file:
        first = np.cumsum(file["counts"]) - file["counts"]
        best = {"boxes": file["boxes"][first], "counts": np.ones_like(first)}
        np.savez(tmp_path / "few.npz", ids=file["ids"], splits=file["splits"], **best)
    (tmp_path / "p.npz").unlink()
    checkpoint = f"checkpoint={tmp_path}/run/checkpoints/last.ckpt"
    few = [data(run), "proposals=few.npz", "workers=0", "hydra.run.dir=few"]
    done = run_script("evaluate", checkpoint, *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = [len(json.loads((tmp_path / f / "predictions" / "box.json").read_text())) for f in ("few", "run")]
    assert counts[0] <= 6 * 5 < counts[1]  # of one proposal at most one of each class
    (tmp_path / "image.png").touch()
    for script, arguments, words in (
        ("evaluate", [data(run)], ["p.npz", "no such file"]),
        ("predict", ["input=.", "output=out"], ["last.ckpt", "from a file", "proposals=RUN/checkpoints/last.ckpt"]),
    ):
        done = run_script(script, checkpoint, *arguments, cwd=tmp_path)
        assert done.returncode == 1, arguments
        assert all(word in done.stderr for word in words), done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_frozen_rpn(tmp_path: Path, run: Run) -> None:
    lender = tmp_path / "rpn.ckpt"
    shutil.copy(run.checkpoint, lender)
    given = ["model=fast_mask_rcnn", f"proposals={lender}", "pooler=roipool"]
    done = run_script("train", *given, data(run), "hydra.run.dir=run", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lender.unlink()
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (run.checkpoint, checkpoint))
    places = {"model.backbone.": "model.proposer.backbone.", "model.proposer.": "model.proposer.rpn."}
    lent = {new + n.removeprefix(old): n for n in before for old, new in places.items() if n.startswith(old)}
    assert {name for name in after if name.startswith("model.proposer.")} == lent.keys()
    assert all(torch.equal(after[name], before[own]) for name, own in lent.items())
    same_again(tmp_path / "run", run)
    done = run_script("train", f"resume={checkpoint}", "workers=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    images = run.dataset / "val"
    done = run_script("predict", f"checkpoint={checkpoint}", f"input={images}", "output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 6
    done = run_script("evaluate", f"checkpoint={checkpoint}", data(run), "proposals=p.npz", cwd=tmp_path)
    assert done.returncode == 1
    assert "p.npz" in done.stderr
    assert "needs none" in done.stderr


def test_proposals_as_json_of_one_split_of_another_dataset(tmp_path: Path, run: Run) -> None:
    small = ["dataset=shapes_voc", "dataset.train.train=2", "dataset.train.val=3", "data_dir=data", "splits=[val]"]
    arguments = [
        f"checkpoint={run.checkpoint}",
        *small,
        "post_nms_topk=7",
        "batch_size=2",
        "workers=0",
        "output=deep/p.json",
    ]
    done = run_script("proposals", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "deep" / "p.json").read_text())
    assert {(row["split"], row["image_id"]) for row in rows} == {("val", i) for i in (1, 2, 3)}
    assert len(rows) == 21
    assert next((tmp_path / "data").glob("shapes_voc-*")).is_dir()


def test_proposals_on_images_with_other_classes(tmp_path: Path, run: Run) -> None:
    Image.new("RGB", (64, 48), (30, 30, 30)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 9, "name": "tractor"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 9, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    own = ["dataset=custom", *(f"dataset.{split}.annotations=a.json" for split in ("train", "val")), "output=p.json"]
    done = run_script("proposals", f"checkpoint={run.checkpoint}", *own, "workers=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {row["image_id"] for row in json.loads((tmp_path / "p.json").read_text())} == {5}


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train", ["model=fast_rcnn"], ["proposals=FILE", "proposals=RUN/checkpoints/last.ckpt"]),
        ("train", ["proposals=p.npz"], ["p.npz", "model=fast_rcnn"]),
        ("train", ["model=fast_rcnn", "proposals=p.txt"], ["p.txt", "*.npz", "trained detector"]),
        ("train", ["model=fast_rcnn", "proposals=gone.json"], ["gone.json", "no such file"]),
        ("train", ["model=fast_rcnn", "proposals=p.npz", "dataset.train.train=9"], ["1 of the dataset's 9", "[9]"]),
        ("proposals", ["output=p.pkl"], ["p.pkl", "*.npz"]),
        ("proposals", ["output=p.npz", "splits=[test]"], ["splits", "test"]),
        ("proposals", ["output=p.npz", "post_nms_topk=0"], ["post_nms_topk", "0"]),
        ("proposals", ["output=p.npz", "checkpoint=gone.ckpt"], ["gone.ckpt"]),
        ("proposals", ["output=p.npz", "data_dir=nowhere", "dataset=coco"], ["nowhere"]),
        ("proposals", ["output=p.npz", "+nonsense=1"], ["nonsense"]),
    ],
)
def test_bad_input_is_one_readable_message(
    script: str, arguments: list[str], words: list[str], tmp_path: Path, run: Run, proposals: Path
) -> None:
    shutil.copy(proposals, tmp_path / "p.npz")
    own = [data(run), *SHORT] if script == "train" else [f"checkpoint={run.checkpoint}", data(run)]
    keys = {a.split("=")[0] for a in arguments}
    done = run_script(script, *arguments, *(a for a in own if a.split("=")[0] not in keys), cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert all(word in done.stderr for word in words), done.stderr
