import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from detector.training.interruption import Interruption


class Saver:
    """Stand in for the trainer that `Interruption` uses; `asked` says what another process wants."""

    global_step = 6
    is_global_zero = True
    accumulate_grad_batches = 2
    state = SimpleNamespace(fn="fit")

    def __init__(self, world_size: int = 1, other: bool = False) -> None:
        self.saved: list[Path] = []
        self.world_size = world_size
        self.strategy = SimpleNamespace(reduce_boolean_decision=lambda asked, all: asked or other)

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        assert not weights_only
        self.saved.append(path)


@pytest.fixture
def begun(tmp_path: Path) -> Callable[[Saver], Interruption]:
    def begin(trainer: Saver) -> Interruption:
        interruption = Interruption(tmp_path / "last.ckpt", Console(quiet=True))
        interruption.on_train_start(trainer, None)
        return interruption

    return begin


@pytest.mark.parametrize(
    ("hook", "arguments"), [("on_train_batch_start", [None, 4]), ("on_validation_start", []), ("on_train_end", [])]
)
@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_stops_the_run_when_its_step_is_done(begun, number, ending, hook, arguments, tmp_path):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    trainer = Saver()
    interruption = begun(trainer)
    interruption.on_train_batch_end(trainer, None, None, None, 1)
    os.kill(os.getpid(), number)
    interruption.on_train_batch_end(trainer, None, None, None, 2)  # half of the next step
    assert trainer.saved == []
    interruption.on_train_batch_end(trainer, None, None, None, 3)
    assert trainer.saved == [tmp_path / "last.ckpt"]
    with pytest.raises(ending) as ended:  # when the loggers have the step, too
        getattr(interruption, hook)(trainer, None, *arguments)
    if ending is SystemExit:
        assert ended.value.code == 143
    interruption.on_exception(trainer, None, ended.value)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_ctrl_c_during_the_last_validation_stops_too(begun, tmp_path):
    trainer = Saver()
    before = signal.getsignal(signal.SIGINT)
    interruption = begun(trainer)
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        interruption.on_train_end(trainer, None)
    assert trainer.saved == [tmp_path / "last.ckpt"]


def test_sigterm_ends_a_validation_at_once(begun, tmp_path):
    trainer = Saver()
    interruption = begun(trainer)
    interruption.on_validation_start(trainer, None)
    assert trainer.saved == [tmp_path / "last.ckpt"]  # what the run goes on from
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit):
        interruption.on_validation_batch_end(trainer, None, None, None, 0)
    assert len(trainer.saved) == 1
    interruption.on_exception(trainer, None, SystemExit(143))


def test_all_processes_stop_when_one_is_asked(begun):
    alone, asked = Saver(world_size=2), Saver(world_size=2, other=True)
    interruption = begun(alone)
    interruption.on_train_batch_end(alone, None, None, None, 1)
    interruption.on_train_batch_end(asked, None, None, None, 3)
    assert len(asked.saved) == 1
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        interruption.on_train_batch_start(asked, None, None, 4)
    interruption.on_exception(asked, None, KeyboardInterrupt())


def test_a_checkpoint_that_cannot_be_saved_is_an_error(begun):
    class Full(Saver):
        def save_checkpoint(self, path: Path, weights_only: bool) -> None:
            raise ValueError("the disk is full")

    trainer = Full()
    interruption = begun(trainer)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # as torchrun's, after the scheduler's
    with pytest.raises(ValueError, match="the disk is full") as caught:
        interruption.on_train_batch_end(trainer, None, None, None, 1)
    interruption.on_exception(trainer, None, caught.value)  # lets it pass


def test_an_error_that_ctrl_c_led_to_is_the_interruption(begun):
    trainer = Saver()
    before = signal.getsignal(signal.SIGINT)
    interruption = begun(trainer)
    interruption.on_exception(trainer, None, RuntimeError("a worker failed"))  # by itself: only the handler goes
    assert signal.getsignal(signal.SIGINT) is before
    interruption = begun(trainer)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interruption.on_exception(trainer, None, RuntimeError("a worker was ended by Ctrl-C"))
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_after_the_step_is_saved_is_the_interruption(begun):
    """A worker that the same signal has killed."""
    trainer = Saver()
    interruption = begun(trainer)
    os.kill(os.getpid(), signal.SIGTERM)
    interruption.on_train_batch_end(trainer, None, None, None, 1)
    with pytest.raises(SystemExit) as ended:
        interruption.on_exception(trainer, None, RuntimeError("a worker was killed"))
    assert ended.value.code == 143
