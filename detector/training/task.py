"""LightningModule of a detector: training step, validation, checkpoint content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detector.evaluation import Collector, Metric
from detector.models.rcnn import RCNN
from detector.training.optim import parameter_groups
from detector.types import Batch
from detector.weights.checkpoints import FORMAT

ADVICE = "lower schedule.optimizer.lr or raise schedule.scheduler.warmup, and train again"
CHECK_EVERY = 20
"""Steps between checks that the loss is finite; each check waits for the device."""


class DetectionTask(LightningModule):
    """Train and validate a detector.

    Args:
        model: the detector.
        optimizer: builds the optimiser from parameter groups; None for evaluation only.
        scheduler: builds the learning-rate schedule, which is updated each step; None for evaluation only.
        collector: collects the detections on the validation split.
        metrics: metrics that read the collector.
        config: the configuration to store in checkpoints, plain data.
        seed: seeds the random draws of each step together with its number, so that a resumed run draws the same.
    """

    def __init__(
        self,
        model: RCNN,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        collector: Collector | None = None,
        metrics: Sequence[Metric] = (),
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.collector, self.metrics = model, collector, list(metrics)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.config, self.seed = dict(config or {}), seed
        self.results: dict[str, float] = {}
        self.measured_at: int | None = None

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimiser and its schedule."""
        assert self.make_optimizer is not None
        assert self.make_scheduler is not None
        optimizer = self.make_optimizer(parameter_groups(self.model))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"},
        }

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of the detector's losses; each is logged under `loss/`."""
        torch.manual_seed((self.seed * 1_000_003 + batch_idx) * 4096 + self.global_rank)
        losses = self.model.loss(batch)
        total = torch.stack(list(losses.values())).sum()
        if self.global_step % CHECK_EVERY == 0 and not bool(total.isfinite()):
            raise ValueError(f"the loss is {float(total)} at step {self.global_step}: {ADVICE}")
        logged = {f"loss/{name}": value.detach() for name, value in losses.items()}
        self.log_dict({"loss": total.detach(), **logged}, prog_bar=True, batch_size=len(batch))
        return total

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients by norm; Lightning's own method refuses fused optimisers under bf16, although they work."""
        del optimizer, gradient_clip_algorithm
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_validation_epoch_start(self) -> None:
        """Reset the collector."""
        if self.collector is not None:
            self.collector.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the detections of a batch."""
        assert self.collector is not None
        self.collector.update(batch.ids, [found.to("cpu") for found in self.model(batch)], batch.original_sizes)

    def on_validation_epoch_end(self) -> None:
        """Gather the detections of all ranks, compute the metrics, and log the same values on every rank."""
        assert self.collector is not None
        if dist.is_available() and dist.is_initialized():
            states: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(states, self.collector.state())
            self.collector.merge(states)
        results: dict[str, float] = {}
        for metric in self.metrics:
            results |= metric.results()
        self.results, self.measured_at = results, self.trainer.global_step
        self.log_dict({name: value for name, value in results.items() if name.count("/") == 1}, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration to a checkpoint.

        Raises:
            ValueError: weights are not finite, and would replace a good checkpoint.
        """
        if not all(bool(v.isfinite().all()) for v in self.model.state_dict().values() if v.is_floating_point()):
            raise ValueError(f"the weights are no longer finite at step {self.global_step}: {ADVICE}")
        checkpoint["aligned_rcnn"] = {"format": FORMAT, "config": self.config}
