"""The benchmark and the drawing run, and report what they measured."""

import re
import runpy
from functools import partial
from pathlib import Path

import pytest
import torch

from ops import benchmark, drawing
from tests.scripts.conftest import run_script

ROOT = Path(__file__).resolve().parents[2]
SMALL = benchmark.Workload("small", 2, 20, 128, 192, 8, 7, canonical_size=40)


def test_the_table_compares_on_the_same_values():
    contender = runpy.run_path(str(ROOT / "scripts/benchmark.py"))["torchvision_pool"]
    device = torch.device("cpu")
    features, boxes = SMALL.features(device, torch.float32, torch.contiguous_format), SMALL.boxes(device)
    torch.testing.assert_close(contender(SMALL, boxes)(features), benchmark.ours(SMALL, boxes)(features))
    lines: list[str] = []
    benchmark.run("torchvision", contender, device, [SMALL], rounds=2, report=lines.append)
    rows = [line for line in "\n".join(lines).splitlines() if line.startswith("| small")]
    assert len(rows) == 8  # dtypes, layouts, passes
    for row in rows:
        assert re.fullmatch(
            r"\| small \| \w+ \| [\w ]+ \| (forward|both) (\| [\d.]+ ± [\d.]+ ){2}\| .*x \| .* \| \d+% \|", row
        )


def test_convolutions_are_timed_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "CONVOLUTIONS", (("small", (2, 8, 9, 7), 5),))
    lines: list[str] = []
    benchmark.run_convolutions(rounds=2, report=lines.append)
    rows = [line for line in lines if line.startswith("| small")]
    assert [row.split(" | ")[3] for row in rows] == ["forward", "gradient of the maps", "gradient of the weight"]
    for row in rows:
        assert re.fullmatch(r"\| small \| 2 x 8 x 9 x 7 \| 5 \| [\w ]+ (\| [\d.]+ ± [\d.]+ ){2}\| [\d.]+x \|", row)


def test_the_floor_counts_each_cell_once():
    workload = benchmark.Workload("one", 1, 1, 64, 64, 2, 1, canonical_size=224)
    features = workload.features(torch.device("cpu"), torch.float32, torch.contiguous_format)
    box = [torch.tensor([[4.0, 4.0, 12.0, 12.0]])]  # on P2: cells 1 to 3, samples at 1.5 and 2.5
    forward, both = benchmark.floor_bytes(workload, benchmark.ours(workload, box), features)
    assert forward == (9 * 2 + 2) * 4
    assert both == forward + (2 + 2 * (16**2 + 8**2 + 4**2 + 2**2)) * 4


def test_timings_take_turns():
    seen: list[str] = []
    calls = {name: partial(seen.append, name) for name in ("a", "b")}
    timings = benchmark.measure(calls, torch.device("cpu"), rounds=3)
    assert seen == ["a", "b"] * 4
    assert all(t.median >= 0 and t.spread >= 0 for t in timings.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds, --threads and other counts must be at least 1"),
        (["--device", "tpu"], "--device tpu is not available"),
    ],
)
def test_bad_arguments(arguments, message):
    result = run_script("benchmark", "ops", *arguments, cwd=ROOT)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_drawing_is_up_to_date():
    assert (ROOT / "ops/sampling.svg").read_text() == drawing.draw()
