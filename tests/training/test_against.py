"""Measuring workloads in processes of their own, here and in a checkout of another commit."""

import subprocess
from pathlib import Path

import pytest
import torch

from detector.matching import Matches
from detector.training import against
from detector.training.workloads import match
from tests.conftest import ROOT

CPU = torch.device("cpu")
WORKLOAD = """
import torch
import detector

def prepare(device):
    return lambda: torch.ones(40 << 18, device=device).sum()

def missing(device):
    import nothing_of_this_name

CASES = {"sum": {"ours": prepare, "other": missing}, "fails": {"ours": missing}}
"""


def test_a_call_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "BUDGET", 0.0)
    kept: list[torch.Tensor] = []

    def call() -> None:
        kept.append(torch.ones(64 << 18))  # 64 MiB

    found = against.measure(call, CPU)
    assert len(kept) == 1  # longer than the budget: not repeated
    assert 63 < found.peak_mib < 80
    assert 0 < found.seconds < 60
    monkeypatch.setattr(against, "BUDGET", 60.0)
    monkeypatch.setattr(against, "MOST_CALLS", 3)
    kept.clear()
    against.measure(lambda: kept.append(torch.ones(1)), CPU)
    assert len(kept) == 4  # the first for its memory


def test_memory_that_was_freed_before_the_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "BUDGET", 0.0)
    kept: list[torch.Tensor] = []
    blocks = [torch.ones(16 << 10) for _ in range(4096)]  # 256 MiB, in blocks of the heap
    last = torch.ones(16 << 10)  # without it, the heap would shrink by itself
    del blocks
    found = against.measure(lambda: kept.append(torch.ones(64 << 18)), CPU)
    assert 63 < found.peak_mib < 80
    assert last[0] == 1


def test_a_process_imports_from_the_checkout_that_it_is_given(tmp_path: Path) -> None:
    workload = tmp_path / "workload.py"
    workload.write_text(WORKLOAD)
    other = tmp_path / "checkout"
    (other / "detector").mkdir(parents=True)
    (other / "detector" / "__init__.py").write_text("")
    for place in (ROOT, other):
        found = against.in_checkout(workload, "sum", "ours", CPU, place)
        assert found is not None
        assert 39 < found.peak_mib < 60
    assert against.in_checkout(workload, "sum", "other", CPU, other) is None
    with pytest.raises(RuntimeError, match=r"fails, ours, in (.|\n)*nothing_of_this_name"):
        against.in_checkout(workload, "fails", "ours", CPU, other)


def test_a_commit_is_checked_out_and_removed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        given = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(given, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    for content in ("before", "after"):
        (tmp_path / "file").write_text(content)
        git("add", "file")
        git("commit", "-qm", content)
    with against.checkout("HEAD~1", tmp_path) as place:
        assert (place / "file").read_text() == "before"
    assert not place.exists()
    assert len(git("worktree", "list").splitlines()) == 1
    with pytest.raises(ValueError, match=r"git worktree add .*nothing"), against.checkout("nothing", tmp_path):
        pass


@pytest.mark.parametrize("commit", [None, "HEAD"])
def test_the_table(commit: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(workload: Path, case: str, contender: str, device: torch.device, place: Path) -> object:
        if contender == "Detectron2":
            return None
        seconds = 0.002 if contender == "torchvision" else 0.001 if place == ROOT else 0.03
        return against.Measurement(seconds, 1000 * seconds)

    monkeypatch.setattr(against, "in_checkout", measured)
    if commit is not None:
        monkeypatch.setattr(against, "_git", lambda repository, *arguments: "abc1234")
    lines: list[str] = []
    against.report("match", commit, CPU, 3, lines.append, ["10 objects"])
    before = ["| 10 objects | at abc1234 | 30 | 30 | 30.0 | 30 |"] if commit else []
    others = ["| 10 objects | torchvision | 2 | 2 | 2.0 | 2 |"]
    assert sorted(lines[2:-1]) == sorted([*before, *others])
    assert lines[-1] == "| 10 objects | ours | 1 | 1 | 1.0 | 1 |"


def test_an_installation_has_no_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.names.PARENT", "aligned_rcnn.")
    with pytest.raises(ValueError, match="--against abc needs a clone"):
        against.report("match", "abc", torch.device("cpu"), 1)


def test_the_matchers_agree() -> None:
    """All that is compared does the same: torchvision labels a box with its object, -1 or -2."""
    assert len(match.inputs(10, CPU)[0]) == 268_569
    expected, theirs = match.ours(10, CPU)(), match.torchvision(10, CPU)()
    assert isinstance(expected, Matches)
    assert isinstance(theirs, torch.Tensor)
    assert torch.equal(theirs >= 0, expected.positive)
    assert torch.equal(theirs == -1, expected.negative)
    assert torch.equal(theirs[theirs >= 0], expected.index[expected.positive])
