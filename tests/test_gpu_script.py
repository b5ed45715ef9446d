"""`.ci/gpu`: parts that pass, fail or take too long, its summary, and the parts themselves, as far as a CPU can."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / ".ci" / "gpu"
CHILD = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {code!r}]); time.sleep({seconds})"
STUBBORN = "import os, pathlib, signal, time; signal.signal(2, signal.SIG_IGN); {write}; time.sleep(60)"


def load() -> ModuleType:
    """Import the script, whose name has no ending."""
    spec = importlib.util.spec_from_loader("gpu_script", SourceFileLoader("gpu_script", str(SCRIPT)))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_script"] = module  # where dataclasses look for the names in their annotations
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    return load()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def leave_a_child(folder: Path, seconds: float) -> str:
    """A program that starts one which ignores SIGINT, and notes its process in a file, which is there whole or not."""
    draft, child = str(folder / "draft"), str(folder / "child")
    write = f"pathlib.Path({draft!r}).write_text(str(os.getpid())); os.replace({draft!r}, {child!r})"
    return CHILD.format(code=STUBBORN.format(write=write), seconds=seconds)


def is_running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def ends(process: int) -> bool:
    """Whether it is gone within five seconds: one that was killed takes a moment."""
    limit = time.monotonic() + 5
    while is_running(process) and time.monotonic() < limit:
        time.sleep(0.02)
    return not is_running(process)


def wait_for(path: Path) -> str:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)
    return path.read_text()


def rows(folder: Path) -> dict[str, list[str]]:
    lines = (folder / "summary.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert table[0] == ["part", "seconds", "share", "result", "what it showed"]
    return {row[0]: row[1:] for row in table[2:]}


def test_each_part_has_its_result(gpu: ModuleType, tmp_path: Path) -> None:
    part = gpu.Part
    parts = [
        part("fails", 20, python("print('begun', flush=True); raise SystemExit('wrong | bad')")),
        part("works", 20, python("print('12 passed'); print('== fine ==')"), r"\d+ passed"),
        part("skips", 20, python("print('12 skipped')"), r"\d+ passed"),
    ]
    lines: list[str] = []
    assert not gpu.run(parts, tmp_path, report=lines.append)
    results = {name: (result, shown) for name, (_, _, result, shown) in rows(tmp_path).items()}
    assert results == {
        "fails": ("failed: exit code 1", "wrong / bad"),
        "works": ("passed", "fine"),
        "skips": ("failed: nothing shown", "12 skipped"),
    }
    log = (tmp_path / "fails.log").read_text().splitlines()
    assert log[0].startswith(f"$ {sys.executable} -c")
    assert log[1:] == ["begun", "wrong | bad"]
    assert lines[1].startswith("works: passed, ")
    assert lines[-1].strip() == (tmp_path / "summary.md").read_text().strip()
    assert gpu.run(parts[1:2], tmp_path, report=lines.append)


@pytest.fixture
def interrupts_ignored() -> Iterator[None]:
    """Ignore SIGINT, as in what a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_part_that_takes_too_long_is_stopped_with_all_its_processes(
    gpu: ModuleType, tmp_path: Path, interrupts_ignored: None
) -> None:
    parts = [
        gpu.Part("quick", 6.0, python("")),  # what it leaves is the next one's
        gpu.Part(
            "hangs", 2.0, python(f"import atexit; atexit.register(print, 'so far'); {leave_a_child(tmp_path, 60)}")
        ),
        gpu.Part("next", 30, python(leave_a_child(tmp_path / "next", 0.0))),
    ]
    (tmp_path / "next").mkdir()
    began = time.monotonic()
    assert not gpu.run(parts, tmp_path, report=lambda line: None)
    assert time.monotonic() - began < 30
    found = rows(tmp_path)
    assert [found[part.name][2] for part in parts] == ["passed", "stopped", "passed"]
    assert found["hangs"][3] == "so far"
    assert 4 < float(found["hangs"][0]) < 8 + gpu.GRACE
    left = [tmp_path / "child", tmp_path / "next" / "child"]
    assert all(ends(int(path.read_text())) for path in left if path.exists())
    assert left[0].exists()


def test_a_stopped_run_leaves_what_it_had(tmp_path: Path) -> None:
    program = f"""
import runpy, sys
gpu = runpy.run_path({str(SCRIPT)!r})
commands = {[python("print('shown')"), python(leave_a_child(tmp_path, 60)), python("")]!r}
parts = [gpu["Part"](str(i), 50, command) for i, command in enumerate(commands)]
gpu["main"].__globals__["parts_for"] = lambda device: parts
sys.argv = ["gpu", {str(tmp_path)!r}]
sys.exit(gpu["main"]())
"""
    process = subprocess.Popen(python(program), stdout=subprocess.DEVNULL, cwd=ROOT)
    child = int(wait_for(tmp_path / "child"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    found = rows(tmp_path)
    assert [found[name][2] for name in "012"] == ["passed", "running", "waiting"]
    assert found["0"][3] == "shown"
    assert ends(child)


def test_tables_are_summed_up(gpu: ModuleType) -> None:
    table = "x\n| a | ratio to the better | ms |\n|---|---|---|\n| one | 1.50x | 3 |\n| two | 0.75x | 4 |\n"
    assert gpu.summarize(table) == "ratio to the better: 0.75 to 1.5 in 2 rows"
    assert gpu.summarize("| work | times ours |\n|---|---|\n| ours | 1 |") == "ours / 1"
    assert gpu.summarize(table + "\nlast\n\n") == "last"
    assert gpu.summarize(table + "\nKeyboardInterrupt", stopped=True) == "ratio to the better: 0.75 to 1.5 in 2 rows"
    assert gpu.summarize("== 3 passed ==", stopped=True) == "3 passed"
    assert gpu.summarize("") == ""


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)


def test_the_parts_are_listed_and_fit_the_time(gpu: ModuleType) -> None:
    listed = script("--list").stdout.splitlines()
    parts = gpu.parts_for("cuda")
    assert [line.split()[0] for line in listed] == [part.name for part in parts]
    assert [part.name for part in parts[:4]] == ["machine", "build", "tests", "train"]
    assert sum(part.share for part in parts) + gpu.GRACE <= 60 * gpu.MINUTES
    assert [part.name for part in gpu.parts_for("cpu")] == [part.name for part in parts]
    half = script("--list", "--minutes", "4.5", "--only", "build").stdout
    assert half.split()[1] == str(round(parts[1].share / 2))
    unknown = script("--only", "nothing")
    assert unknown.returncode == 2
    assert "there is no part nothing; there are machine, build" in unknown.stderr


def test_the_parts_name_tests_and_scripts_that_exist(gpu: ModuleType) -> None:
    for part in gpu.parts_for("cuda"):
        for argument in part.command:
            path, _, test = argument.partition("::")
            if path.endswith(".py"):
                assert (ROOT / path).is_file()
                assert f"def {test.partition('[')[0]}" in (ROOT / path).read_text()


def test_machine_and_build_run_on_a_cpu(tmp_path: Path) -> None:
    run = script(str(tmp_path), "--device", "cpu", "--only", "machine", "build", "--minutes", "90")
    assert run.returncode == 0, run.stdout + run.stderr
    found = rows(tmp_path)
    assert "torch" in found["machine"][3]
    assert found["build"][3].startswith("backend")
    assert "hydra-core" in (tmp_path / "machine.log").read_text()


@pytest.mark.slow(minutes=3)
def test_tests_and_training_run_on_a_cpu(tmp_path: Path) -> None:
    run = script(str(tmp_path), "--device", "cpu", "--only", "tests", "train", "memcheck", "--minutes", "90")
    assert run.returncode == 0, run.stdout + run.stderr
    assert rows(tmp_path)["train"][3].startswith("All losses are finite. float32: ")
