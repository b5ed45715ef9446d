import csv
import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from detector.training.callbacks import CsvLogger, Interruption


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_rows_are_complete_after_each_save(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path)
    expected: dict[int, dict[str, float]] = {}
    for step in range(20):
        for metrics in ({"lr": 0.1}, {"loss": step / 7}, {"box/AP": 0.5} if step % 8 == 7 else {}):
            if metrics:
                logger.log_metrics(metrics, step)
                logger.save()
                expected.setdefault(step, {}).update(metrics)
            found = {int(r.pop("step")): {k: float(v) for k, v in r.items() if v} for r in read(tmp_path)}
            assert found == expected
    logger.finalize("success")
    assert len(read(tmp_path)) == 20


def test_csv_drops_rows_after_the_resumed_step(tmp_path: Path) -> None:
    first = CsvLogger(tmp_path)
    for step in range(10):
        first.log_metrics({"loss": float(step)}, step)
        first.save()
    second = CsvLogger(tmp_path, start=4)
    for step in range(4, 12):
        second.log_metrics({"loss": 100.0 + step, "new": 1.0}, step)
        second.save()
    losses = [float(row["loss"]) for row in read(tmp_path)]
    assert losses == [0, 1, 2, 3, *range(104, 112)]


class Saver:
    """Stand in for the trainer that `Interruption` uses."""

    global_step = 6

    def __init__(self) -> None:
        self.saved: list[Path] = []

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        assert not weights_only
        self.saved.append(path)


def test_ctrl_c_during_the_last_validation_stops_too(tmp_path: Path) -> None:
    trainer = Saver()
    interruption = Interruption(tmp_path / "last.ckpt", Console(quiet=True))
    before = signal.getsignal(signal.SIGINT)
    interruption.on_train_start(trainer, None)
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        interruption.on_train_end(trainer, None)
    assert trainer.saved == [tmp_path / "last.ckpt"]
    interruption.on_train_end(trainer, None)
    assert len(trainer.saved) == 1


def test_an_error_that_ctrl_c_led_to_is_the_interruption(tmp_path: Path) -> None:
    trainer = Saver()
    interruption = Interruption(tmp_path / "last.ckpt", Console(quiet=True))
    before = signal.getsignal(signal.SIGINT)
    interruption.on_train_start(trainer, None)
    interruption.on_exception(trainer, None, RuntimeError("a worker failed"))  # by itself: only the handler goes
    assert signal.getsignal(signal.SIGINT) is before
    interruption.on_train_start(trainer, None)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interruption.on_exception(trainer, None, RuntimeError("a worker was ended by Ctrl-C"))
    assert signal.getsignal(signal.SIGINT) is before
