"""Run a function in several processes that are joined by gloo, as a distributed training's are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def _run(rank: int, count: int, folder: str, function: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=count)
    try:
        torch.save(function(rank), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def in_processes(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Call `function(rank)` in `count` new processes; returns what each returned, tensors and plain data."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(_run, (count, folder, function), count, start_method="spawn")
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(count)]
