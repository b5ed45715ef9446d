"""Run a script's main function; invalid input ends it with one readable message and exit code 1."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from detector.config.help import default_and_comment
from detector.config.mistakes import explain
from detector.config.variables import FULL_ERROR, environment_variable
from detector.names import find

console = Console()
failures: list[str] = []
"""Messages of the jobs of a multirun that have failed in this process."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in glibc's malloc.h


def keep_memory(largest: int = 32 << 20) -> None:
    """Make the C library keep freed memory for the next step.

    Each training step allocates and frees blocks of the same sizes. If they went back to the kernel in between, it
    would zero their pages again each time. Only glibc has this setting; elsewhere this does nothing.

    Args:
        largest: size in bytes of the largest blocks to keep; glibc allows at most 32 MiB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and mallopt(_MMAP_THRESHOLD, largest):
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def reraise_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of a block in which Ctrl-C was pressed and became another error, or none.

    OmegaConf's cleanup fails when Ctrl-C ends its work half-way, and the user's interruption becomes the ConfigKeyError
    of that cleanup (seen in OmegaConf 2.3.1, `flag_override`). SystemExit passes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # only the main thread is interrupted; a background job may ignore Ctrl-C
        return
    pressed = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        before(number, frame)  # so that blocks around this one know, too; Python's own raises KeyboardInterrupt
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as Lightning sets it to end undisturbed
            signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


Work = Callable[[DictConfig, list[str], Path, Console], None]
"""A script's main function: (composed configuration, overrides, folder of the run, console)."""


class JobError(Exception):
    """A job of a multirun has failed; its message is printed."""


@dataclass(frozen=True)
class Command:
    """Hydra's task function of a script, which launchers may send to other processes.

    The whole project raises ValueError, TypeError or OSError for invalid input. They become one message on standard
    error and exit code 1; with HYDRA_FULL_ERROR=1 the traceback is shown instead. In a multirun (`-m`) the other jobs
    go on, and the exit code is 1 at the end.

    Args:
        work: the main function, or its import path, `package.module.function`.
        full_error: the user's value of HYDRA_FULL_ERROR.
        plain: keys given without `+`, as of `detector.config.conventions.check_additions`.
    """

    work: Work | str
    full_error: str | None = None
    plain: tuple[str, ...] = ()

    def __call__(self, config: DictConfig) -> None:
        """Do the work."""
        # These warn about what this project does on purpose.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*lower value for log_every_n_steps.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # a frozen RPN
        warnings.filterwarnings("ignore", message=".*Please add the following callbacks: .'Compilation'.*")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
        keep_memory()
        settings = HydraConfig.get()
        # Read first, since the work may start a multirun of its own.
        multirun = settings.mode == RunMode.MULTIRUN
        overrides, folder = list(settings.overrides.task), Path(settings.runtime.output_dir)
        with environment_variable(FULL_ERROR, self.full_error):
            try:
                with reraise_ctrl_c():
                    _check_given(settings.job.config_name, [str(k) for k in config if OmegaConf.is_missing(config, k)])
                    function = _imported(self.work) if isinstance(self.work, str) else self.work
                    _prepare(str(settings.job.config_name), config.get("trust"), overrides, self.plain)
                    function(config, overrides, folder, console)
            except (ValueError, TypeError, OSError, HydraException, OmegaConfBaseException) as error:
                if self.full_error == "1":
                    raise
                message = explain(error, str(settings.job.config_name), overrides)
                self.fail(message, multirun)

    def fail(self, message: str, multirun: bool) -> None:
        """Print the message of invalid input, and end the script, or this job of a multirun."""
        print(f"error: {message}", file=sys.stderr)
        if not multirun:
            sys.exit(1)
        failures.append(message)
        raise JobError(message) from None


def _imported(name: str) -> Work:
    found: Work = find(name)
    return found


def _prepare(name: str, trust: Iterable[str] | None, overrides: Sequence[str], plain: Sequence[str]) -> None:
    """Trust the user's packages, and check the keys added with `+`."""
    from detector.config.conventions import check_additions  # these import torch, which `--help` does without
    from detector.weights.trust import trust_packages

    trust_packages(trust or ())
    check_additions(name, overrides, plain)


def _check_given(name: str | None, missing: Sequence[str]) -> None:
    """Check that the required keys of a script, such as `checkpoint`, are given."""
    if missing and name:
        raise ValueError("; ".join(f"give {key}=...: {default_and_comment(name, key)[1]}" for key in missing))
