"""What is saved stays whole: on a full disk, and when the process is killed while it writes."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detector.training.saving import Checkpoints, copy_file, replacing, write_text
from tests.conftest import ROOT

KILL = """
import os, signal, sys, time
from pathlib import Path
import torch
from detector.training.saving import Checkpoints

path, number = Path(sys.argv[1]), 0
for delay in (0.0, 0.004, 0.011, 0.023, 0.05):  # writing takes some 20 ms
    done, told = os.pipe()
    if (writer := os.fork()) == 0:
        while True:
            number += 1
            content = {"number": number, "weights": torch.full((2_000_000,), float(number))}
            Checkpoints().save_checkpoint(content, path)
            os.write(told, b".")
    os.close(told)  # so that the end of a writer that fails is seen
    assert os.read(done, 1)
    time.sleep(delay)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    content = torch.load(path, weights_only=True)
    assert content["number"] > number and bool((content["weights"] == content["number"]).all())
    number = content["number"]
"""


def half_written(path: Path) -> None:
    before = path.read_bytes()
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == before
        raise ZeroDivisionError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    with pytest.raises(ZeroDivisionError):
        half_written(path)
    assert path.read_text(encoding="utf-8") == "größer"
    copy_file(path, path.with_name("copy.txt"))
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == dict.fromkeys(
        ("file.txt", "copy.txt"), "größer".encode()
    )


def test_a_process_killed_while_it_writes_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILL, str(tmp_path / "last.ckpt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small_files():
    """Forbid files above 1 MB, as a full disk does."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "last.ckpt"
    Checkpoints().save_checkpoint({"number": 1}, path)
    with pytest.raises(ValueError, match=r"last\.ckpt of 4 MB cannot be written: .*the one before is kept; make room"):
        Checkpoints().save_checkpoint({"number": 2, "weights": torch.zeros(1_000_000)}, path)
    assert torch.load(path, weights_only=True) == {"number": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
