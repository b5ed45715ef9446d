import json
import shutil
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
    assert f"there is no {tmp_path}/thresholds.json" in done.stderr.replace("\n", "")
    assert "report=true" in done.stderr
    data = f"data_dir={run.folder.parent / 'data'}"
    done = run_script(
        "evaluate", f"checkpoint={checkpoint}", data, "report=true", "workers=0", "hydra.run.dir=seen", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "seen/report.html" in done.stdout
    page = (tmp_path / "seen" / "report.html").read_text()
    value = 100 * json.loads((tmp_path / "seen" / "metrics.json").read_text())["box/AP"]
    assert f"<td>{value:.1f}<small>" in page
    assert page.count("data:image/jpeg") == 2 * 6  # all images
    found = json.loads((tmp_path / "thresholds.json").read_text())
    assert list(found) == ["circle", "square", "triangle"] or len(found) > 1
    assert all(score is None or 0 <= score <= 1 for score in found.values())
    (tmp_path / "thresholds.json").write_text('["a"]')
    assert "does not hold scores by class" in run_script(*best, cwd=tmp_path).stderr.replace("\n", " ")
    (tmp_path / "thresholds.json").write_text(json.dumps(found))
    done = run_script(*best, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "a.png").is_file()


def test_report_is_true_or_false(tmp_path: Path, run: Run) -> None:
    done = run_script("evaluate", f"checkpoint={run.checkpoint}", "report=page", "hydra.run.dir=no", cwd=tmp_path)
    assert done.returncode == 1
    assert "report must be true or false, not 'page'" in done.stderr
