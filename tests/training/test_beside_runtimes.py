import importlib.util

import pytest

from detector.training import beside_runtimes
from detector.training.beside_runtimes import Case

NARROW = ("backbone.channels=16", "backbone.width=32")


@pytest.mark.slow(minutes=0.5)
def test_a_table_has_the_detector_and_each_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], thin: None
) -> None:
    monkeypatch.setattr(beside_runtimes, "CASES", (Case("a narrow model", NARROW, (96, 128)),))
    beside_runtimes.run(threads=1, rounds=1)
    shown = capsys.readouterr().out
    assert "threads: 1" in shown
    rows = [line.removesuffix(" |").split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    assert rows[0] == ["| a narrow model", "ms", "times as fast as torch", "detections"]
    runtimes = 2 if importlib.util.find_spec("openvino") else 1
    assert len(rows) == 2 + 2 * runtimes
    assert rows[1][0] == "| torch, float32"
    assert rows[1][2] == "1.00"
    assert sum("8 bits" in row[0] for row in rows) == runtimes
    assert all(float(row[2]) > 0 for row in rows[1:])
    assert all(int(row[3]) > 5 for row in rows[1:])
    assert len({row[3] for row in rows[1:] if "float32" in row[0]}) == 1
