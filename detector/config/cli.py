"""What the scripts share: one readable message and exit code 1 where the input is at fault."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from detector.config.compose import sweeping

console = Console()
_failures: list[str] = []

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's names for the settings in malloc.h


def keep_memory(largest: int = 32 << 20) -> None:
    """Let the C library keep freed blocks of up to `largest` bytes, of which 32 MiB is the most that glibc allows.

    Each training step takes and frees the same blocks; given back in between, each would be cleared by the kernel page
    by page. Only glibc knows of this.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and mallopt(_MMAP_THRESHOLD, largest):
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def command(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap a script's main function, inside `hydra.main`.

    ValueError, TypeError and OSError are how every part of the project says that its input is at fault. They become one
    message on standard error and exit code 1; with HYDRA_FULL_ERROR=1 the traceback is shown instead. In a sweep the
    other runs go on; `finish` gives the exit code.
    """

    @functools.wraps(main)
    def run(config: DictConfig) -> None:
        # Advice that a user can do nothing about; everything else is shown.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*lower value for log_every_n_steps.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # a frozen RPN is
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
        keep_memory()
        one_of_several = sweeping()  # before `main`, which may start a sweep of its own
        try:
            main(config)
        except (ValueError, TypeError, OSError, OmegaConfBaseException) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"error: {error}", file=sys.stderr)
            if not one_of_several:
                sys.exit(1)
            _failures.append(str(error))

    return run


def finish() -> None:
    """The end of a script: exit code 1 if a run of a sweep has failed."""
    if _failures:
        print(f"{len(_failures)} runs of the sweep failed", file=sys.stderr)
        sys.exit(1)
