"""Check the machine's resources: cores, memory, shared memory, open files, disk; within the limits of a container."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detector.doctor.findings import Finding, error, warning
from detector.doctor.operators import existing, why_not_writable

GB, MB = 10**9, 10**6
LOW_MEMORY, TOO_LITTLE_MEMORY = 3 * GB, 1 * GB
"""Mask R-CNN with a loader process takes 2459 MiB, a step of the default run 966 (RESULTS.md)."""
LOW_SHARED, TOO_LITTLE_SHARED = 300 * MB, 16 * MB
"""Two workers hold two batches each, and one is in use: 258 MB for 16 images of 1344 by 800 px, COCO's, and 9 for 16
of 192 px, the default run's."""
FEW_FILES = 1024
"""The usual limit on Linux. Each tensor that a worker hands over is an open file: some 500 for five batches of 16."""
LOW_DISK, TOO_LITTLE_DISK = 2 * GB, 200 * MB


@dataclass(frozen=True)
class Limits:
    """Of a container or another control group; None: no limit."""

    memory: int | None = None
    """bytes"""
    cores: float | None = None


def control_group(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Limits:
    """Read the limits of this process's control group and of those above it, of version 2 or 1.

    Args:
        root: where they are mounted.
        own: the file that names this process's.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return Limits()
    memory: list[int] = []
    cores: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            base = root / controller if controller else root
            for folder in _upwards(base, path):
                memory += _number(folder / "memory.max") + _number(folder / "memory.limit_in_bytes")
                cores += _quota(folder)
    return Limits(
        min((n for n in memory if n < 1 << 60), default=None),  # version 1 writes a huge number for no limit
        min(cores, default=None),
    )


def _upwards(base: Path, path: str) -> list[Path]:
    """List the group's folder and those above it; in a container the mount's root is the container's own group."""
    folder = base / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent == base or base in parent.parents)]


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _number(file: Path) -> list[int]:
    return [int(word) for word in _words(file)[:1] if word.isdecimal()]


def _quota(folder: Path) -> list[float]:
    words = _words(folder / "cpu.max") or [
        word for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for word in _words(folder / name)
    ]
    if len(words) == 2 and words[0].isdecimal() and int(words[1]) > 0:  # else "max" or -1
        return [int(words[0]) / int(words[1])]
    return []


def check_cores(visible: int, allowed: int, quota: float | None, environment: Mapping[str, str]) -> Finding:
    """Check that torch starts as many threads as there are cores to run them.

    Args:
        visible: cores of the machine.
        allowed: cores that this process may run on.
        quota: of a container, in cores; None: no limit.
        environment: of this process.
    """
    found = f"{allowed}" if allowed == visible else f"{allowed} of {visible}"
    usable = allowed
    if quota is not None:
        found += f", of which the container may use {quota:g}"
        usable = max(1, min(allowed, int(quota)))
    chosen = environment.get("OMP_NUM_THREADS", "").partition(",")[0]
    if chosen.isdecimal():
        found += f"; OMP_NUM_THREADS={chosen}"
        if int(chosen) < usable:
            # torch/distributed/run.py sets it to 1 for each of several processes.
            mend = f"unset OMP_NUM_THREADS (torchrun sets it to 1: give it {usable} divided by the processes)"
            return warning("cores", found, mend)
    threads = int(chosen) if chosen.isdecimal() and int(chosen) else allowed
    if threads > usable:
        mend = f"export OMP_NUM_THREADS={usable}, and workers={max(usable - 1, 0)} on the command line"
        return warning("cores", f"{found}; torch may start {threads} threads, which wait for each other", mend)
    return Finding("cores", found)


def cores() -> tuple[int, int]:
    """Count the cores of the machine, and those that this process may run on."""
    visible = os.cpu_count() or 1
    return visible, len(os.sched_getaffinity(0)) if sys.platform == "linux" else visible


def processor_name() -> str:
    """Return the processor's name."""
    try:
        match = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def available_memory(file: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes that programs can still take, as the kernel estimates; None where it does not say."""
    try:
        match = re.search(r"MemAvailable:\s*(\d+) kB", file.read_text())
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def check_memory(available: int | None, limit: int | None) -> Finding:
    """Check that a training has room.

    Args:
        available: bytes that are free; None: unknown.
        limit: of a container, in bytes; None: no limit.
    """
    parts = [] if available is None else [f"{available / GB:.1f} GB available"]
    parts += [] if limit is None else [f"the container may use {limit / GB:.1f} GB"]
    if not parts:
        return Finding("memory", "unknown on this system")
    found, room = ", ".join(parts), min(n for n in (available, limit) if n is not None)
    least = "workers=0 schedule.batch_size=2 take less"
    mend = f"close other programs; {least}" if room == available else f"docker run --memory=8g; {least}"
    if room < TOO_LITTLE_MEMORY:
        return error("memory", found, mend)
    return warning("memory", found, mend) if room < LOW_MEMORY else Finding("memory", found)


def check_shared_memory(folder: Path = Path("/dev/shm"), workers: int = 2) -> Finding:
    """Check that the processes that load images can hand their batches over.

    Args:
        folder: the memory that processes share.
        workers: such processes by default.
    """
    if not folder.is_dir():
        return Finding("shared memory", f"{folder} is not there, and not used on this system")
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / MB:.0f} MB free of {usage.total / MB:.0f} in {folder} (workers by default: {workers})"
    mend = f"docker run --shm-size=2g (or: mount -o remount,size=2g {folder}); workers=0 needs none"
    if usage.free < TOO_LITTLE_SHARED:
        return error("shared memory", found, mend)
    if usage.free < LOW_SHARED:
        return warning("shared memory", f"{found}, too little for large images", mend)
    return Finding("shared memory", found)


def open_files() -> tuple[int, int] | None:
    """Return the limits of open files: the present one, and the one that may be set; None where there is none."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    return tuple(sys.maxsize if n == unlimited else n for n in (soft, hard))  # type: ignore[return-value]


def check_open_files(limits: tuple[int, int] | None) -> Finding:
    """Check that the processes that load images may open enough files."""
    if limits is None:
        return Finding("open files", "no limit on this system")
    soft, hard = limits
    found = "no limit" if soft == sys.maxsize else f"at most {soft}"
    if soft < FEW_FILES:
        more = f"ulimit -n {min(hard, 4096)}"
        mend = (
            f"{more}; workers=0 needs fewer" if hard >= FEW_FILES else "docker run --ulimit nofile=4096; or workers=0"
        )
        return warning("open files", found, mend)
    return Finding("open files", found)


def check_disk(folder: Path) -> Finding:
    """Check that runs can be written to a folder."""
    place = existing(folder)
    if fault := why_not_writable(folder):
        mend = "hydra.run.dir=FOLDER (and data_dir=FOLDER) place runs and data elsewhere"
        return error("disk", f"{place}: {fault}", mend)
    free = shutil.disk_usage(place).free
    found = f"{free / GB:.1f} GB free for {folder}"
    mend = "delete what is not needed (old runs: outputs/*/checkpoints); hydra.run.dir=FOLDER places runs elsewhere"
    if free < TOO_LITTLE_DISK:
        return error("disk", found, mend)
    return warning("disk", found, mend) if free < LOW_DISK else Finding("disk", found)
