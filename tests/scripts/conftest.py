"""Running the scripts as a user does, on a generated set small enough for seconds."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

SMALL = [
    "dataset.train.train=8",
    "dataset.train.val=6",
    "backbone.channels=16",
    "backbone.width=32",
    "schedule.steps=6",
    "schedule.validate_every=3",
    "schedule.checkpoint_every=2",
    "trainer.log_every_n_steps=1",
    "workers=0",
]


def _command(name: str, arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def run_script(name: str, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run `scripts/NAME.py` in the folder `cwd` to its end."""
    options = {"cwd": cwd, "env": _environment(), "capture_output": True, "text": True, "check": False}
    return subprocess.run(_command(name, arguments), **options)


def start_script(name: str, *arguments: str, cwd: Path) -> "subprocess.Popen[bytes]":
    """Start `scripts/NAME.py` in the folder `cwd`."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(_command(name, arguments), cwd=cwd, env=_environment(), stdout=quiet, stderr=quiet)


@dataclass
class Run:
    """A finished small run."""

    folder: Path
    output: str

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A Mask R-CNN trained for six steps by README's first command, shortened."""
    home = tmp_path_factory.mktemp("home")
    done = run_script("train", "pooler=roialign", "model=mask_rcnn", "hydra.run.dir=run", *SMALL, cwd=home)
    assert done.returncode == 0, done.stderr
    return Run(home / "run", done.stdout)
