"""Average the weights over the steps of a run."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from detector.weights.checkpoints import model_state

TRAINED = "trained_weights"
"""Key of a checkpoint for the weights that are trained, where its `state_dict` holds their average."""


class WeightAverage(Callback):
    """Keep an exponential moving average of the weights, and validate and save it in place of the trained ones.

    After each step, average = d · average + (1 - d) · weights with d = min(decay, (1 + step) / (10 + step)), so that
    the random weights of the beginning are soon forgotten; the norms' running averages likewise. A checkpoint's
    `state_dict` is the average, and the trained weights lie beside it, so that a run resumes exactly. Lightning's
    `WeightAveraging` (2.6) remembers the beginning, copies the whole task with its dataset, and at the end puts the
    average in the place of the trained weights, from where a run cannot go on.

    Args:
        decay: in (0, 1); 1 / (1 - decay) is the number of steps that the average looks back.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.swapped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the initial weights, unless the run is resumed."""
        own = _state(pl_module)
        self.average = {name: self.average.get(name, value).to(value, copy=True) for name, value in own.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after the last batch of a step."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.average[name], value) for name, value in _state(pl_module).items()]
        floats = [(kept, value) for kept, value in pairs if kept.is_floating_point()]
        torch._foreach_lerp_([kept for kept, _ in floats], [value for _, value in floats], share)
        for kept, value in pairs:
            if not kept.is_floating_point():
                kept.copy_(value)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in the place of the trained weights."""
        if trainer.state.fn == "fit":
            self.swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trained weights back."""
        if trainer.state.fn == "fit":
            self.swap(pl_module)

    @torch.no_grad()
    def swap(self, pl_module: LightningModule) -> None:
        """Exchange the trained weights and the average."""
        for name, value in _state(pl_module).items():
            kept = self.average[name].clone()
            self.average[name].copy_(value)
            value.copy_(kept)
        self.swapped = not self.swapped

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store both: the average as `state_dict`."""
        own = {f"model.{name}": value for name, value in self.average.items()}
        average, trained = (checkpoint["state_dict"], own) if self.swapped else (own, checkpoint["state_dict"])
        checkpoint["state_dict"], checkpoint[TRAINED] = average, trained

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both."""
        self.average = model_state(checkpoint)
        pl_module.load_state_dict(checkpoint[TRAINED])


def _state(pl_module: LightningModule) -> dict[str, Tensor]:
    """Return the model's weights and running averages, by name."""
    return pl_module.model.state_dict()  # type: ignore[union-attr]
