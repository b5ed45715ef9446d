"""Ctrl-C ends a script, also where a library makes an error of it."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from detector.config.cli import reraise_ctrl_c


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def lose() -> None:
    """Make an error of Ctrl-C, as OmegaConf does."""
    try:
        press_ctrl_c()
    finally:
        raise ValueError("no such key")


def swallow() -> None:
    """Go on after Ctrl-C, as Python does in `__del__`."""
    try:
        press_ctrl_c()
    except KeyboardInterrupt:
        return


def heeding(work: Callable[[], None], depth: int) -> None:
    with ExitStack() as stack:
        for _ in range(depth):
            stack.enter_context(reraise_ctrl_c())
        work()


@pytest.mark.parametrize("work", [press_ctrl_c, lose, swallow])
@pytest.mark.parametrize("depth", [1, 2])
def test_ctrl_c_is_heeded(work: Callable[[], None], depth: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            heeding(work, depth)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_block_around_knows_too() -> None:
    """An error of another kind may be raised where the inner block's KeyboardInterrupt was caught."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), reraise_ctrl_c():
            caught_inside()
    finally:
        signal.signal(signal.SIGINT, before)


def caught_inside() -> None:
    try:
        with reraise_ctrl_c():
            press_ctrl_c()
    except KeyboardInterrupt:
        raise ValueError("no such key") from None


def test_exit_passes() -> None:
    with pytest.raises(SystemExit), reraise_ctrl_c():
        sys.exit(1)


def test_a_handler_left_by_the_block_is_replaced() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with reraise_ctrl_c():
            signal.signal(signal.SIGINT, lambda *_: None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="no such key"), reraise_ctrl_c():
        raise ValueError("no such key")
    with reraise_ctrl_c():
        pass


def test_ctrl_c_stays_ignored_in_the_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with reraise_ctrl_c():
            press_ctrl_c()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_the_handler_alone() -> None:
    before, inside = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with reraise_ctrl_c():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
