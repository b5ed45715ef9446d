"""Training beside a plain loop: both do the same, and are compared batch by batch."""

from pathlib import Path

import torch

from detector.config.compose import compose_config
from detector.config.resolve import resolve
from detector.training import beside_plain_loop as module
from tests.scripts.conftest import SMALL


def test_both_loops_train_alike(tmp_path: Path) -> None:
    small = ["schedule.steps=5" if "schedule.steps" in option else option for option in SMALL]  # the plain one ends
    overrides = [*small, f"data_dir={tmp_path}", "trainer=cpu", "trainer.enable_progress_bar=false"]
    resolved = resolve(compose_config(overrides), overrides)
    plain = module.PlainLoop(resolved.config, torch.device("cpu"))
    taken = module.take_turns(resolved, tmp_path / "run", plain)
    assert taken.shape == (2, resolved.config.schedule.steps - 1, 2)
    assert (taken > 0).all()
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    own = {f"model.{name}": value for name, value in plain.model.state_dict().items()}
    assert own.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in own.items() if value.is_floating_point())


def test_the_table_has_the_differences_of_both_steps_on_a_batch() -> None:
    batches = torch.tensor([0.1, 0.5, 0.2, 0.3, 0.4], dtype=torch.float64)  # in seconds; the noise hits both alike
    taken = torch.stack([torch.stack([batches, 2 * batches], 1), torch.stack([batches + 0.03, 2 * batches], 1)])
    lines = module.table(taken)
    assert "| time, median | 300.0 | 330.0 | +10.0 % (+10.0 to +10.0) |" in lines
    assert "| processor time, mean | 600.0 | 600.0 | +0.0 % (+0.0 to +0.0) |" in lines
    taken[1, 0, 0] += 1
    spread = next(line for line in module.table(taken) if line.startswith("| time, mean"))
    assert spread.split("|")[4].strip().startswith("+76.7 % (+10.0 to +")
