import json
import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from tests.scripts.conftest import Run, run_script


def test_a_page_and_the_best_thresholds(tmp_path: Path, run: Run) -> None:
    checkpoint = tmp_path / "last.ckpt"
    shutil.copy(run.checkpoint, checkpoint)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    best = ["predict", f"checkpoint={checkpoint}", "input=a.png", "output=out", "threshold=best"]
    done = run_script(*best, cwd=tmp_path)
    assert done.returncode == 1
    assert f"there is no {tmp_path}/last.thresholds.json" in done.stderr.replace("\n", "")
    assert "report=true" in done.stderr
    data = f"data_dir={run.folder.parent / 'data'}"
    done = run_script(
        "evaluate",
        f"checkpoint={checkpoint}",
        data,
        "report=true",
        "dataset.detections=3",
        "workers=0",
        "hydra.run.dir=seen",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "seen" / "predictions" / "box.json").read_text())
    assert max(Counter(row["image_id"] for row in found).values()) == 3
    assert "seen/report.html" in done.stdout
    page = (tmp_path / "seen" / "report.html").read_text()
    value = 100 * json.loads((tmp_path / "seen" / "metrics.json").read_text())["box/AP"]
    assert f"<td>{value:.1f}<small>" in page
    assert page.count("data:image/jpeg") == 2 * 6  # all images
    kept = tmp_path / "last.thresholds.json"
    text = kept.read_text()
    scores = json.loads(text)["scores"]
    assert len(scores) == 5
    assert all(score is None or 0 <= score <= 1 for score in scores.values())
    done = run_script(*best, "detections=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["a.png"]) <= 1
    assert ("Not drawn" in done.stdout) is (None in scores.values())
    assert (tmp_path / "out" / "a.png").is_file()
    first = next(iter(scores))
    for wrong, words in (
        ('["a"]', "cannot be read"),
        (text.replace('"sha256": "', '"sha256": "0'), "is of another state"),
        (text.replace(f'"{first}"', '"other"'), f"has no threshold of {first}"),
    ):
        kept.write_text(wrong)
        assert words in run_script(*best, cwd=tmp_path).stderr.replace("\n", " ")


def test_report_is_true_or_false(tmp_path: Path, run: Run) -> None:
    done = run_script("evaluate", f"checkpoint={run.checkpoint}", "report=page", "hydra.run.dir=no", cwd=tmp_path)
    assert done.returncode == 1
    assert "report must be true or false, not 'page'" in done.stderr
