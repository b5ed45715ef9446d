"""Processes of a training that watch each other."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from detector.training import peers
from tests.conftest import ROOT

PARENT = """
import multiprocessing, os, sys, threading, time
from pathlib import Path
from detector.training import peers

def child(parent, file):
    peers.PERIOD = peers.PATIENCE = peers.GRACE = 0.05
    threading.Thread(target=peers.watch_parent, args=(parent, threading.Event()), daemon=True).start()
    Path(file).write_text(str(os.getpid()))
    time.sleep(60)  # as in a collective that no other process joins

multiprocessing.get_context("fork").Process(target=child, args=(os.getpid(), sys.argv[1])).start()
while not Path(sys.argv[1]).is_file():
    time.sleep(0.01)
os._exit(0)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def running(process: int) -> bool:
    """Whether a process is there and no zombie."""
    stat = Path(f"/proc/{process}/stat")
    return stat.is_file() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PERIOD", 0.02)
    monkeypatch.setattr(peers, "PATIENCE", 0.1)


def start(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-S", "-c", code])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "process 2 of the training has ended by SIGKILL, most often for want"),
        ("import os; os.kill(os.getpid(), 11)", "process 2 of the training has ended by SIGSEGV"),
        ("raise SystemExit(1)", "process 2 of the training has ended with code 1; its own message says why"),
        ("raise SystemExit(143)", ""),  # after SIGTERM
        ("", ""),
    ],
)
def test_a_child_that_dies_is_named(caplog: pytest.LogCaptureFixture, code: str, message: str) -> None:
    lasting = start("import time; time.sleep(1)")
    with caplog.at_level(logging.ERROR):
        peers.watch_children([lasting, start(code)], threading.Event())
    lasting.kill()
    lasting.wait()
    assert (message in caplog.text) if message else not caplog.text


def test_nothing_is_said_where_this_process_ends_itself(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    dead = start("raise SystemExit(1)")
    dead.wait()
    threading.Timer(0.06, ended.set).start()
    peers.watch_children([dead], ended)
    assert not caplog.text


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_the_main_process_watches_what_lightning_has_started(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")  # as Lightning sets it when it has started the others
    callback, dead = peers.Peers(), start("raise SystemExit(3)")
    trainer = trainer_of(LightningEnvironment(), [dead])
    with caplog.at_level(logging.ERROR):
        callback.setup(trainer, None, "fit")  # type: ignore[arg-type]
        callback.teardown(trainer, None, "fit")  # type: ignore[arg-type]
        assert not caplog.text
        callback.setup(trainer, None, stage)  # type: ignore[arg-type]
        wait_for(lambda: "process 1 of the training has ended with code 3" in caplog.text)


@pytest.mark.parametrize("starter", ["this test's own parent", "another"])
def test_other_processes_watch_the_one_that_has_started_them(monkeypatch: pytest.MonkeyPatch, starter: str) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(peers.STARTER, str(os.getppid() if starter != "another" else 1))
    watched = []
    monkeypatch.setattr(peers, "watch_parent", lambda parent, _: watched.append(parent))
    callback = peers.Peers()
    callback.setup(trainer_of(LightningEnvironment(), []), None, "fit")  # type: ignore[arg-type]
    assert os.environ[peers.STARTER] == str(os.getpid())
    if starter != "another":
        wait_for(lambda: watched == [os.getppid()])
    callback.setup(trainer_of(TorchElasticEnvironment(), []), None, "fit")  # type: ignore[arg-type]
    time.sleep(0.05)
    assert len(watched) == (starter != "another")


def trainer_of(environment: object, processes: list["subprocess.Popen[bytes]"]) -> Any:
    strategy = SimpleNamespace(cluster_environment=environment, launcher=SimpleNamespace(procs=processes))
    return SimpleNamespace(strategy=strategy, local_rank=int(os.environ["LOCAL_RANK"]))


def test_a_child_ends_after_its_parent(tmp_path: Path) -> None:
    file = tmp_path / "child"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", PARENT, str(file)], env=environment, check=False, timeout=60)
    assert done.returncode == 0
    child = int(file.read_text())
    wait_for(lambda: not running(child))
