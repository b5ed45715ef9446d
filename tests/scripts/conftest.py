"""Run the scripts as a user does, on a small generated dataset."""

import fcntl
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.conftest import ROOT
from tests.processes import fork

FEW = ["dataset.train.train=8", "dataset.train.val=6", "dataset.train.image_size=96", "dataset.size_bins=[16,30]"]
SMALL = [
    *FEW,
    "backbone.channels=16",
    "backbone.width=32",
    "schedule.steps=6",
    "schedule.batch_size=2",
    "schedule.validate_every=3",
    "schedule.checkpoint_every=2",
    "trainer.log_every_n_steps=1",
    "logger=none",
    "workers=0",
]


def _command(name: str, arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def run_alone(name: str, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run `scripts/NAME.py` in the folder `cwd`, in a Python process of its own."""
    options = {"cwd": cwd, "env": _environment(), "capture_output": True, "text": True, "check": False}
    return subprocess.run(_command(name, arguments), **options)


def _execute(command: list[str], cwd: Path, streams: list[str], path: Path | None) -> None:
    multiprocessing.set_start_method(None, force=True)  # of loaders: a script's default, and not the server's
    os.chdir(cwd)
    if path is not None:
        sys.path.insert(0, str(path))
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")


def run_script(
    name: str,
    *arguments: str,
    cwd: Path,
    path: Path | None = None,
    kill_at: Callable[[], bool] | None = None,
    delay: float = 0.0,
) -> "subprocess.CompletedProcess[str]":
    """Run `scripts/NAME.py` in a fork of a process that has imported the libraries, which dominates a short run.

    With `path`, packages are imported from there too. It is killed `delay` seconds after `kill_at` becomes true.
    """
    command = _command(name, arguments)[1:]
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        process = fork.Process(target=_execute, args=(command, cwd, [out.name, err.name], path))
        process.start()
        while kill_at is not None and process.is_alive() and not kill_at():
            time.sleep(0.01)
        if kill_at is not None:
            time.sleep(delay)
            process.kill()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(command, process.exitcode, out.read(), err.read())


def start_script(
    name: str, *arguments: str, cwd: Path, errors: int | IO[bytes] = subprocess.DEVNULL
) -> "subprocess.Popen[bytes]":
    """Start `scripts/NAME.py` in the folder `cwd`, as from a terminal: a shell's background job ignores Ctrl-C."""
    options = {"cwd": cwd, "env": _environment(), "stdout": errors, "stderr": errors}
    return subprocess.Popen(_command(name, arguments), preexec_fn=_heed_ctrl_c, start_new_session=True, **options)


def press_ctrl_c(process: "subprocess.Popen[bytes]") -> None:
    """Send Ctrl-C as a terminal does: to the script and to all its processes."""
    os.killpg(process.pid, signal.SIGINT)


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Run:
    """The folder and output of a finished small run."""

    folder: Path
    output: str

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def dataset(self) -> Path:
        """The folder of its dataset; other tests generate other datasets beside it."""
        for path in (self.folder.parent / "data").glob("shapes_coco-*/parameters.json"):
            drawn = json.loads(path.read_text())
            if (drawn["val"], drawn["image_size"]) == (6, 96):  # of `FEW`
                return path.parent
        raise AssertionError("the run has no dataset")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train a Mask R-CNN for six steps, with a shortened form of README's first command: once for all processes."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "home"
    home.mkdir(exist_ok=True)
    output = home / "output.txt"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released at closing, however that comes
        if not output.exists():
            arguments = [option for option in SMALL if option != "logger=none"]
            done = run_alone("train", "pooler=roialign", "model=mask_rcnn", "hydra.run.dir=run", *arguments, cwd=home)
            assert done.returncode == 0, done.stderr
            output.write_text(done.stdout)
    return Run(home / "run", output.read_text())
