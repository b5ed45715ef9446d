"""`evaluate.py predictions=FILE`: what another program has found is measured and compared like a run."""

import json
import shutil
from pathlib import Path

import pytest

from tests.scripts.conftest import FEW, Run, run_script


def test_given_predictions_are_measured_and_compared(tmp_path: Path, run: Run) -> None:
    data = [f"data_dir={run.folder.parent / 'data'}", "dataset=shapes_coco", *FEW]
    own = json.loads((run.folder / "metrics.json").read_text())
    found = run.folder / "predictions/box.json"
    evaluate = ["evaluate", f"predictions={found}", *data, "hydra.run.dir=given"]
    done = run_script(*evaluate, "report=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "given/metrics.json").read_text())
    names = [name for name in own if name.startswith("box/")]
    assert len(names) > 12
    assert {name: measured[name] for name in names} == {name: own[name] for name in names}
    assert (tmp_path / "given/predictions/box.json").read_text() == found.read_text()
    assert "data:image/jpeg" in (tmp_path / "given/report.html").read_text()
    shutil.copytree(run.folder, tmp_path / "run")  # what is measured is kept in a run's folder
    compared = run_script("ablate", "--compare", "run", "given", "--output", "two", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    report = (tmp_path / "two/report/report.md").read_text()
    assert "given predictions" in report
    assert "scripts/evaluate.py predictions=" in report


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predictions=x.json"], "give the dataset that they were made on"),
        (["predictions=x.json", "checkpoint=y.ckpt"], "give one of checkpoint= and predictions="),
        (["predictions=x.json", "dataset=shapes_coco", *FEW], "there are no predictions at x.json"),
        (["predictions=bad.json", "dataset=shapes_coco", *FEW], "detection 0 is on image 'a', which is none of the"),
    ],
)
def test_wrong_predictions_are_named(tmp_path: Path, run: Run, arguments: list[str], words: str) -> None:
    row = {"image_id": "a", "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}
    (tmp_path / "bad.json").write_text(json.dumps([row]))
    data = f"data_dir={run.folder.parent / 'data'}"
    done = run_script("evaluate", *arguments, data, "hydra.run.dir=no", cwd=tmp_path)
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "no/metrics.json").exists()


def test_ones_own_data_without_a_training(tmp_path: Path, run: Run) -> None:
    """No `data_dir`; the folder is compared; another run's folder stays as it is."""
    truth = run.dataset / "annotations/instances_val.json"
    given = [f"dataset.val.annotations={truth}", f"dataset.val.images={run.dataset / 'val'}"]
    rows = json.loads((run.folder / "predictions/box.json").read_text())
    masks = json.loads((run.folder / "predictions/mask.json").read_text())
    both = [{**row, "segmentation": mask["segmentation"]} for row, mask in zip(rows, masks, strict=True)]
    for name, content in (("boxes", rows), ("both", both), ("none", [])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        arguments = [f"predictions={name}.json", "dataset=custom", "dataset.size_bins=[16,30]", *given]
        done = run_script("evaluate", *arguments, f"hydra.run.dir={name}", "report=true", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name / "report.html").is_file()
        assert (tmp_path / name / "predictions/truth.json").is_file()
    own = json.loads((run.folder / "metrics.json").read_text())
    measured = {name: json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("boxes", "both", "none")}
    for name in (name for name in own if name.startswith("box/")):
        assert measured["boxes"][name] == measured["both"][name] == own[name]
    assert measured["both"]["mask/AP"] == own["mask/AP"]
    assert measured["none"]["box/AP"] == 0
    compared = run_script("ablate", "--compare", "boxes", "none", "--output", "two", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    again = run_script("evaluate", *arguments, f"hydra.run.dir={run.folder}", cwd=tmp_path)
    assert again.returncode == 1
    assert "holds another run: give another folder" in " ".join(again.stderr.split())
