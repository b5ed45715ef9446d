"""Write the files of a run so that a crash leaves the old one whole."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

PART = ".part"
"""What is added to a file's name while it is written."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write, beside `path`, and rename it over `path` at the end, when the disk has it.

    A process that is killed meanwhile leaves the old file, and a file NAME.part, which the next one overwrites.

    Raises:
        OSError: it cannot be written, as on a full disk; `path` is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # not all systems let a folder, and so the renaming, be written to the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file by `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def copy_file(source: Path, path: Path) -> None:
    """Copy a file to `path` by `replacing`."""
    with source.open("rb") as old, replacing(path) as file:
        while block := old.read(1 << 20):
            file.write(block)


class Checkpoints(TorchCheckpointIO):
    """Write checkpoints by `replacing`.

    Lightning's own way (2.6) writes them into the system's temporary folder and moves them, which copies them where
    that is another disk: a crash can then leave half a file.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,
    ) -> None:
        """Write a checkpoint.

        Raises:
            ValueError: it cannot be written; the message names the file, and the space that is left.
        """
        if storage_options is not None:
            raise TypeError("storage_options are not supported")
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with replacing(Path(path)) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise ValueError(_failed(Path(path), content.getbuffer().nbytes, error)) from error


def _failed(path: Path, size: int, error: OSError) -> str:
    """Say that a checkpoint of `size` bytes could not be written, and what is left of the one before."""
    free = shutil.disk_usage(path.parent).free
    kept = "the one before is kept; " if path.is_file() else ""
    last = path.with_name("last.ckpt")
    way = f", then go on with resume={last}" if last.is_file() else ""
    return (
        f"the checkpoint {path} of {size / 1e6:.0f} MB cannot be written: {error.strerror or error} "
        f"({free / 1e6:.0f} MB are free there); {kept}make room{way}"
    )
