"""Compile the parts of a detector that `torch.compile` makes faster."""

from __future__ import annotations

import copy
import gc
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch._inductor.config
import torch.compiler.config
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.cpu_vec_isa import pick_vec_isa

from detector.models.rfcn import PositionSensitiveMaps
from detector.models.rpn import RPNHead
from detector.types import Batch

log = logging.getLogger(__name__)

ROUNDS = 5
"""Timed passes of each part, as it is and compiled, in turns."""
LEAST_GAIN = 1.05
"""How many times as fast a compiled part must be: compiling takes up to a minute, and noise is a few percent."""

Context = Callable[[], AbstractContextManager[Any]]


class Compilation(Callback):
    """Compile what gains by it, and say what it gained.

    At the first batch each part of the detector that computes a tensor from one tensor, as backbone and heads do, is
    timed, forward and backward, as it is and compiled. Those that are at least `LEAST_GAIN` times as fast are compiled
    for all sizes of images and numbers of RoIs. A resumed run compiles the same parts. Validation is not compiled, so
    that a checkpoint is measured as `evaluate.py` measures it.

    Args:
        parts: names of the parts to compile, such as `backbone`; None: those that gain.
        backend: of `torch.compile`.
    """

    def __init__(self, parts: Sequence[str] | None = None, backend: str = "inductor") -> None:
        self.backend = backend
        self.parts = self.given = None if parts is None else list(parts)
        self._calls: dict[nn.Module, Any] | None = None  # what each compiled part calls

    def state_dict(self) -> dict[str, Any]:
        """Return the parts that gained, for the checkpoint."""
        return {"parts": self.parts if self.given is None else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the parts that gained before, unless parts are given."""
        self.parts = state_dict["parts"] if self.given is None else self.given

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Choose and compile the parts at the first batch.

        Raises:
            ValueError: a part has another name, or `torch.compile` does not work on this machine.
        """
        if self._calls is not None:
            return
        warnings.filterwarnings("ignore", message=".*grad attribute of a Tensor that is not a leaf.*")  # torch's own
        torch._dynamo.config.optimize_ddp = False  # parts are compiled, not the step
        torch._dynamo.config.recompile_limit = 64  # which all parts share; sides and numbers of 0 and 1 count anew
        torch._inductor.config.fallback_random = True  # dropout draws what it draws as it is
        _name_cpu_in_cache()
        model: nn.Module = pl_module.model  # type: ignore[assignment]
        if self.parts is None:
            gains = measure(model, batch, self.backend, trainer.precision_plugin.forward_context)
            gains = trainer.strategy.broadcast(gains)  # all processes compile the same
            self.parts = [name for name, (before, after) in gains.items() if before >= LEAST_GAIN * after]
            if trainer.is_global_zero:
                log.info(describe(gains, self.parts))
        chosen = chosen_parts(model, self.parts)
        for module in chosen:
            module.compile(dynamic=True, backend=self.backend)
        self._calls = {module: module._compiled_call_impl for module in chosen}

    def _switch(self, on: bool) -> None:
        for module, call in (self._calls or {}).items():
            module._compiled_call_impl = call if on else None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate as it is."""
        self._switch(False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on, compiled."""
        self._switch(trainer.state.fn == "fit")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the detector as it was."""
        self._switch(False)


def _name_cpu_in_cache() -> None:
    """Keep apart what the compiler's cache holds for CPUs of different instructions.

    torch 2.15 finds again what was compiled for other vector instructions, such as those that `ATEN_CPU_CAPABILITY`
    has chosen, or those of another machine that shares the folder; it then computes wrongly or ends.
    """
    name = f" for {pick_vec_isa()}"
    if not torch.compiler.config.cache_key_tag.endswith(name):
        torch.compiler.config.cache_key_tag += name


def chosen_parts(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Return the parts of a detector that have these names.

    Raises:
        ValueError: a name is not that of a part.
    """
    parts = {name: module for name, module in model.named_modules() if _is_part(name, module)}
    if unknown := [name for name in names if name not in parts]:
        raise ValueError(f"trainer.compile: {', '.join(unknown)} is not a part; the parts are {', '.join(parts)}")
    return [parts[name] for name in names]


def measure(
    model: nn.Module, batch: Batch, backend: str = "inductor", context: Context = nullcontext
) -> dict[str, tuple[float, float]]:
    """Time the forward and backward passes of a detector's parts on a batch, as they are and compiled.

    The model and the random numbers stay as they are.

    Args:
        context: around each forward pass, such as autocast.

    Returns:
        by the part's name, the seconds of the fastest of `ROUNDS` passes: as it is, and compiled.

    Raises:
        ValueError: `torch.compile` does not work here.
    """
    device = batch.images.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        gains = _measured(copy.deepcopy(model), batch, backend, context)
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return gains


def _measured(model: nn.Module, batch: Batch, backend: str, context: Context) -> dict[str, tuple[float, float]]:
    """Record what the parts of a model are given in a step, and time them."""
    calls: dict[str, list[Tensor]] = {}
    parts = {name: module for name, module in model.named_modules() if _is_part(name, module)}
    for name, module in parts.items():

        def record(_: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], name: str = name) -> None:
            if len(inputs) == 1 and not named and isinstance(inputs[0], Tensor) and inputs[0].numel():
                calls.setdefault(name, []).append(inputs[0].detach().clone())

        module.register_forward_pre_hook(record, with_kwargs=True)
    with torch.no_grad(), context():
        model.loss(batch)  # type: ignore[operator]
    return {name: _time(parts[name], inputs, name != "backbone", backend, context) for name, inputs in calls.items()}


def describe(gains: Mapping[str, tuple[float, float]], chosen: Sequence[str]) -> str:
    """Say what is compiled, and what each part gains or would lose."""
    rows = [f"{name}: {1000 * a:.1f} -> {1000 * b:.1f} ms, {a / b:.2f} times as fast" for name, (a, b) in gains.items()]
    before = sum(a for a, _ in gains.values())
    after = sum(b if name in chosen else a for name, (a, b) in gains.items())
    what = f"{', '.join(chosen)}; all parts together {before / after:.2f} times as fast" if chosen else "nothing"
    return f"trainer.compile compiles {what} ({'; '.join(rows)})"


def not_compiled(error: Exception) -> str:
    """Say that `torch.compile` does not work here, and the way out."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("backend=")]
    reason = lines[0] if lines else type(error).__name__
    return f"torch.compile fails on this machine ({reason}): give trainer.compile=false, also with resume="


def _is_part(name: str, module: nn.Module) -> bool:
    """Whether a module computes from one tensor alone, and learns."""
    whole = name == "backbone" or isinstance(module, RPNHead | PositionSensitiveMaps)
    whole = whole or name.endswith((".trunk", ".stage", ".predictor"))
    return whole and any(parameter.requires_grad for parameter in module.parameters())


def _time(
    part: nn.Module, inputs: list[Tensor], input_needs_gradient: bool, backend: str, context: Context
) -> tuple[float, float]:
    """Time all that a part does in a step, as it is and compiled."""
    part._forward_pre_hooks.clear()
    part._forward_pre_hooks_with_kwargs.clear()
    leaves = [value.requires_grad_(input_needs_gradient) for value in inputs]
    compiled = torch.compile(part, dynamic=True, backend=backend)
    _pass(part, leaves, context)
    try:
        _pass(compiled, leaves, context)
    except TorchDynamoException as error:
        raise ValueError(not_compiled(error)) from error
    turns = [(_pass(part, leaves, context), _pass(compiled, leaves, context)) for _ in range(ROUNDS)]
    return min(turn[0] for turn in turns), min(turn[1] for turn in turns)


def _pass(part: Callable[[Tensor], Any], inputs: Sequence[Tensor], context: Context) -> float:
    """Return the seconds of a forward and a backward pass."""
    _wait(inputs[0].device)
    began = time.perf_counter()
    with context():
        outputs = [tensor for value in inputs for tensor in _tensors(part(value)) if tensor.requires_grad]
    torch.autograd.backward(outputs, [torch.ones_like(tensor) for tensor in outputs])
    _wait(inputs[0].device)
    return time.perf_counter() - began


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for part in value for tensor in _tensors(part)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
