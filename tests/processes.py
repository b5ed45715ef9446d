"""Processes that tests start: forks of one that has imported the libraries, which would dominate a short run."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

fork = multiprocessing.get_context("forkserver")
fork.set_forkserver_preload(["tests.scripts.preload"])
os.environ["COLUMNS"] = "120"  # of tables; read by the server when it starts


def _run(rank: int, count: int, folder: str, function: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    store, limit = f"file://{folder}/store", timedelta(seconds=60)
    dist.init_process_group("gloo", store, timeout=limit, rank=rank, world_size=count)
    try:
        torch.save(function(rank), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def in_processes(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Call `function(rank)` in `count` processes joined by gloo; returns what each returned, tensors and plain data."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [fork.Process(target=_run, args=(rank, count, folder, function)) for rank in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            process.kill()
            process.join()
        assert [process.exitcode for process in processes] == [0] * count
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(count)]
