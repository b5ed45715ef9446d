"""Measure workloads in processes of their own: time and peak memory, beside others' code or an older commit's.

`report` runs each contender of `detector/training/workloads/NAME.py` in turns. Run as a script, in any checkout of this
project, this file measures one contender and prints the result as JSON; so it imports nothing of the project.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
OURS = "ours"
BUDGET = 1.0
"""Seconds for which a process repeats the call; a first call that takes longer is not repeated."""
MOST_CALLS = 50
STATUS = Path("/proc/self/status")
"""Linux's record of a process's memory, whose peak can be restarted; elsewhere there is only that of its life."""


@dataclass(frozen=True)
class Measurement:
    """What one process measured, or the medians of several."""

    seconds: float
    """median of the calls"""
    peak_mib: float
    """most memory, of the host or the GPU, that the first call took beyond what there was before it"""


def measure(call: Callable[[], object], device: torch.device) -> Measurement:
    """Measure a call in this process: its memory at the first time, its time at those after it."""
    cuda = device.type == "cuda"

    def seconds() -> float:
        if cuda:
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    before = restart_peak(device)
    times = [seconds()]
    peak = peak_memory(device) - before
    if times[0] < BUDGET:
        times = [seconds()]
        while sum(times) < BUDGET and len(times) < MOST_CALLS:
            times.append(seconds())
    return Measurement(statistics.median(times), peak / 2**20)


def restart_peak(device: torch.device) -> int:
    """Forget the peak of memory, and return the bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if STATUS.is_file():
        # What earlier work freed may still belong to the process, and would serve the call without a trace.
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use since `restart_peak`; where that cannot be restarted, of the process's life."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") if STATUS.is_file() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(key: str) -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


@contextmanager
def checkout(commit: str, repository: Path = ROOT) -> Iterator[Path]:
    """Check a commit out into a temporary folder, a `git worktree` that is removed at the end.

    One that a killed process has left is forgotten at the next call, once its folder is gone.

    Raises:
        ValueError: there is no git, or no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="aligned-rcnn-") as folder:
        place = Path(folder) / "checkout"
        _git(repository, "worktree", "prune")
        _git(repository, "worktree", "add", "--detach", str(place), commit)
        try:
            yield place
        finally:
            _git(repository, "worktree", "remove", "--force", str(place))


def _git(repository: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ValueError(f"cannot run git: {error}") from error
    if done.returncode != 0:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def in_checkout(
    workload: Path, case: str, contender: str, device: torch.device, place: Path = ROOT
) -> Measurement | None:
    """Measure a contender of a workload in a new process that imports this project from the folder `place`.

    Returns:
        None where what it compares with is not installed.

    Raises:
        RuntimeError: the process fails; the message is the end of its output.
    """
    # -P: this file's folder is not searched for modules.
    command = [sys.executable, "-P", str(Path(__file__).resolve()), str(workload), case, contender, str(device)]
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "PYTHONPATH": str(_importing(place)), "OMP_NUM_THREADS": threads}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{case}, {contender}, in {place}: {done.stderr.strip()[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return None if result is None else Measurement(**result)


def _importing(place: Path) -> Path:
    """Return the folder from which Python imports the project that lies in the folder `place`."""
    from detector.names import PLACE  # not above: an older commit has no such file

    return PLACE if place == ROOT else place


def contenders(workload: Path) -> dict[str, list[str]]:
    """List a workload's cases, each with the names of its contenders."""
    from detector.names import find  # not above: an older commit has no such file

    cases = find(f"detector.training.workloads.{workload.stem}.CASES")
    return {case: list(by_name) for case, by_name in cases.items()}


def report(
    name: str,
    commit: str | None,
    device: torch.device,
    rounds: int,
    write: Callable[[str], None] = print,
    only: Sequence[str] | None = None,
) -> None:
    """Print a Markdown table of a workload, row by row: each contender beside ours, as medians over processes.

    Args:
        name: of the workload, a file in `detector/training/workloads`.
        commit: also measure "ours" in a checkout of this commit; None: only here.
        device: where all run.
        rounds: processes of each contender; they take turns.
        write: called with each line.
        only: the cases to measure; None: all.

    Raises:
        ValueError: there is no such commit, or no clone.
        RuntimeError: a process fails.
    """
    from detector.names import PARENT

    workload = ROOT / "detector" / "training" / "workloads" / f"{name}.py"
    if commit is not None and PARENT:
        raise ValueError(f"--against {commit} needs a clone of this project, and this is an installation: {ROOT}")
    if commit is None:
        _table(workload, None, None, device, rounds, write, only)
        return
    short = _git(ROOT, "rev-parse", "--short", "--verify", f"{commit}^{{commit}}")
    with checkout(short) as place:
        _table(workload, short, place, device, rounds, write, only)


def _table(
    workload: Path,
    commit: str | None,
    place: Path | None,
    device: torch.device,
    rounds: int,
    write: Callable[[str], None],
    only: Sequence[str] | None,
) -> None:
    write("| work | code | ms | times ours | peak extra memory, MiB | times ours |")
    write("|---|---|---|---|---|---|")
    for case, names in contenders(workload).items():
        if only is not None and case not in only:
            continue
        found: dict[str, list[Measurement]] = {}
        for _ in range(rounds):
            for contender in names:
                for label, where in ((contender, ROOT), *(((commit, place),) if contender == OURS else ())):
                    if label is None or where is None:
                        continue
                    if (one := in_checkout(workload, case, contender, device, where)) is not None:
                        found.setdefault(label, []).append(one)
        medians = {label: _median(measured) for label, measured in found.items()}
        mine = medians.pop(OURS)
        for label, other in (*medians.items(), (OURS, mine)):
            ratios = f"{other.seconds / mine.seconds:.3g}", f"{other.peak_mib / max(mine.peak_mib, 1e-3):.3g}"
            code = f"at {label}" if label == commit else label
            write(f"| {case} | {code} | {other.seconds * 1e3:.3g} | {ratios[0]} | {other.peak_mib:.1f} | {ratios[1]} |")


def _median(measured: Sequence[Measurement]) -> Measurement:
    return Measurement(
        statistics.median(one.seconds for one in measured), statistics.median(one.peak_mib for one in measured)
    )


def main(workload: str, case: str, contender: str, device: str) -> None:
    """Measure one contender in this process and print the measurement, or null where it is not installed."""
    import detector

    expected = Path.cwd() / "detector"
    if Path(str(detector.__file__)).resolve().parent != expected.resolve():
        raise RuntimeError(f"detector was imported from {detector.__file__}, not from {expected}")
    prepare = runpy.run_path(workload)["CASES"][case][contender]
    try:
        call = prepare(torch.device(device))
    except ImportError:
        if contender == OURS:
            raise
        print("null")
        return
    print(json.dumps(vars(measure(call, torch.device(device)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
