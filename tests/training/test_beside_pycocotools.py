"""The loading of many annotations beside pycocotools."""

from pathlib import Path

import pytest

from detector.training import beside_pycocotools


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="Linux tells what processes share")
def test_both_sides_are_measured():
    lines: list[str] = []
    beside_pycocotools.run(3000, 1, lines.append)
    assert lines[0].startswith("3000 objects in 300 images")
    assert lines[1] == "| | ours | pycocotools | times ours |"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:]]
    assert len(rows) == 5
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)
