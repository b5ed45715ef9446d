"""Compile the parts of a detector that `torch.compile` makes faster."""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from detector.models.rpn import RPNHead
from detector.types import Batch

log = logging.getLogger(__name__)

ROUNDS = 5
"""Timed passes of each part, as it is and compiled, in turns."""
LEAST_GAIN = 1.05
"""How many times as fast a compiled part must be: compiling takes up to a minute, and noise is a few percent."""


class Compilation(Callback):
    """Compile what gains by it, and say what it gained.

    At the first batch each part of the detector that computes on whole maps or on RoIs is timed, forward and backward,
    as it is and compiled. Those that are at least `LEAST_GAIN` times as fast are compiled for all sizes of images and
    numbers of RoIs. A resumed run compiles the same parts.

    Args:
        backend: of `torch.compile`.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend
        self.parts: list[str] | None = None
        self._done = False

    def state_dict(self) -> dict[str, Any]:
        """Return the chosen parts, for the checkpoint."""
        return {"parts": self.parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the chosen parts of a checkpoint."""
        self.parts = state_dict["parts"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Choose and compile the parts at the first batch."""
        if self._done:
            return
        warnings.filterwarnings("ignore", message=".*grad attribute of a Tensor that is not a leaf.*")  # torch's own
        model: nn.Module = pl_module.model  # type: ignore[assignment]
        if self.parts is None:
            with trainer.precision_plugin.train_step_context():
                gains = measure(model, batch, self.backend)
            gains = trainer.strategy.broadcast(gains)  # all processes compile the same
            self.parts = [name for name, (before, after) in gains.items() if before >= LEAST_GAIN * after]
            if trainer.is_global_zero:
                log.info(describe(gains, self.parts))
        for name in self.parts:
            model.get_submodule(name).compile(dynamic=True, backend=self.backend)
        self._done = True


def measure(model: nn.Module, batch: Batch, backend: str = "inductor") -> dict[str, tuple[float, float]]:
    """Time the forward and backward passes of a detector's parts on a batch, as they are and compiled.

    The model and the random numbers stay as they are.

    Returns:
        by the part's name, the seconds of the fastest of `ROUNDS` passes: as it is, and compiled.

    Raises:
        ValueError: `torch.compile` does not work here.
    """
    model = copy.deepcopy(model)
    calls: dict[str, list[Tensor]] = {}
    parts = {name: module for name, module in model.named_modules() if _is_part(name, module)}
    for name, module in parts.items():
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: calls.setdefault(name, []).append(inputs[0].detach())
        )
    with torch.random.fork_rng(), torch.no_grad():
        model.loss(batch)  # type: ignore[operator]
    return {name: _time(parts[name], inputs, name != "backbone", backend) for name, inputs in calls.items()}


def describe(gains: Mapping[str, tuple[float, float]], chosen: Sequence[str]) -> str:
    """Say what was compiled, and what each part gains or would lose."""
    rows = [f"{name}: {1000 * a:.1f} -> {1000 * b:.1f} ms, {a / b:.2f} times as fast" for name, (a, b) in gains.items()]
    before = sum(a for a, _ in gains.values())
    after = sum(b if name in chosen else a for name, (a, b) in gains.items())
    what = f"{', '.join(chosen)}; all parts together {before / after:.2f} times as fast" if chosen else "nothing"
    return f"trainer.compile compiles {what} ({'; '.join(rows)})"


def _is_part(name: str, module: nn.Module) -> bool:
    """Whether a module computes a tensor from one tensor, alone: without operators that choose or sample."""
    return name == "backbone" or isinstance(module, RPNHead) or name.endswith((".trunk", ".stage", ".predictor"))


def _time(part: nn.Module, inputs: list[Tensor], learns: bool, backend: str) -> tuple[float, float]:
    """Time a part on all that it was given in a step; `learns`: what computes its input is trained, too."""
    part._forward_pre_hooks.clear()
    leaves = [value.requires_grad_(learns) for value in inputs]
    compiled = torch.compile(part, dynamic=True, backend=backend)
    for warm in (part, compiled):
        _pass(warm, leaves)
    return min(_pass(part, leaves) for _ in range(ROUNDS)), min(_pass(compiled, leaves) for _ in range(ROUNDS))


def _pass(part: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> float:
    """Return the seconds of a forward and a backward pass."""
    _wait(inputs[0].device)
    began = time.perf_counter()
    outputs = [tensor for value in inputs for tensor in _tensors(part(value))]
    torch.autograd.backward(outputs, [torch.ones_like(tensor) for tensor in outputs])
    _wait(inputs[0].device)
    return time.perf_counter() - began


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for part in value for tensor in _tensors(part)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
