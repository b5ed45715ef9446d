"""The loading of many annotations beside pycocotools."""

from pathlib import Path

import pytest

from detector.training import beside_pycocotools


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="Linux tells what processes share")
def test_both_sides_are_measured():
    lines: list[str] = []
    beside_pycocotools.run(30_000, 1, lines.append)  # of fewer, memory is lost in the noise
    assert lines[0].startswith("30000 objects in 3000 images")
    assert lines[1] == "| | ours | pycocotools | times ours |"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:]]
    assert len(rows) == 5
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)
