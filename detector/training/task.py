"""LightningModule of a detector: training step, validation, checkpoint content."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from detector.evaluation import Collector, Metric
from detector.models.rcnn import RCNN
from detector.training.optim import parameter_groups
from detector.types import Batch, Objects
from detector.weights.checkpoints import FORMAT

ADVICE = "lower schedule.optimizer.lr or raise schedule.scheduler.warmup, and train again"
CHECK_EVERY = 20
"""Steps between checks that the loss is finite, on a GPU, for which a check waits."""

log = logging.getLogger(__name__)


def is_logged(trainer: Trainer, step: int) -> bool:
    """Return whether a step is among those whose numbers are logged, or the first, for the progress bar.

    Lightning's `log` takes about a millisecond a number, also in the other steps.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return step == 0 or (step + 1) % max(every, 1) == 0


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
        skip_bad_steps: so many steps may have gradients that are not finite: they change nothing, and are counted.
        validation_loss: log the losses of the validation batches as `val_loss`, too.
        detect: detects the objects of each image of a batch in validation, by the model; None: the model itself.
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
        skip_bad_steps: int = 0,
        validation_loss: bool = False,
        detect: Callable[[Batch], list[Objects]] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.collector, self.metrics = model, collector, list(metrics)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.config, self.seed = dict(config or {}), seed
        self.results: dict[str, float] = {}
        self.losses: dict[str, float] = {}  # of the last validation
        self.measured_at: int | None = None
        self.validated_at: int | None = None
        self.skip_bad_steps, self.skipped = skip_bad_steps, 0
        self.validation_loss = validation_loss
        self._detect = detect
        self._batch: Batch | None = None
        self._losses: dict[str, Tensor] = {}
        self._step_losses: dict[str, Tensor] = {}
        self._validation_losses: dict[str, Tensor] = {}
        self._statistics: list[Tensor] = []
        self._cpus: Any = None  # the group of processes, for numbers on CPUs

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimiser and its schedule."""
        assert self.make_optimizer is not None
        assert self.make_scheduler is not None
        optimizer = self.make_optimizer(parameter_groups(self.model))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"},
        }

    def on_train_start(self) -> None:
        """Set the learning rate of a resumed run, and do the validation during which it was stopped.

        The checkpoint holds the last step's rate; where the run was given more steps, the schedule has another one.
        """
        trainer = self.trainer
        step = trainer.global_step
        for schedule in (held.scheduler for held in trainer.lr_scheduler_configs):
            if isinstance(schedule, LambdaLR):
                groups = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
                for group, base, factor in groups:
                    group["lr"] = base * factor(schedule.last_epoch)
        every = trainer.val_check_interval
        due = isinstance(every, int) and step * trainer.accumulate_grad_batches % every == 0
        if step and due and self.validated_at != step:
            validation = trainer.fit_loop.epoch_loop.val_loop
            validation.restarting = False  # the checkpoint's counters are those of the validation before
            trainer.validating = True
            validation.run()
            trainer.training = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of the detector's losses; each is logged under `loss/`.

        Raises:
            ValueError: the loss is not finite, and `skip_bad_steps` is 0.
        """
        torch.manual_seed((self.seed * 1_000_003 + batch_idx) * 4096 + self.global_rank)
        batch = self._padded(batch)
        self._batch, self._losses = batch, {}
        if self.skip_bad_steps and batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._statistics = [buffer.clone() for buffer in self._averages()]
        losses = self.model.loss(batch)
        total = torch.stack(list(losses.values())).sum()
        self._losses = {name: value.detach() for name, value in losses.items()}
        values = self._of_all_processes(torch.stack([total.detach(), *self._losses.values()]))
        check = self.device.type == "cpu" or self.global_step % CHECK_EVERY == 0
        if check and not self.skip_bad_steps and not bool(values[0].isfinite()):
            if bool(total.isfinite()):
                raise ValueError(f"the loss of another process is {float(values[0])} in step {self.global_step}")
            raise ValueError(
                f"the loss is {float(total.detach())} in {self.doing()}: {ADVICE}; or schedule.skip_bad_steps=10 "
                "leaves such steps out"
            )
        self._log_losses(values, batch_idx)
        return total

    def _padded(self, batch: Batch) -> Batch:
        """Pad a batch as one process would that had those of all: to the largest height and width."""
        if self.trainer.world_size == 1:
            return batch
        if self._cpus is None:
            self._cpus = dist.new_group(backend="gloo")  # NCCL has only tensors on GPUs, for which we would wait
        height, width = batch.images.shape[-2:]
        largest = torch.tensor([height, width])
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._cpus)
        below, right = int(largest[0]) - height, int(largest[1]) - width
        if not below and not right:
            return batch
        images = F.pad(batch.images, (0, right, 0, below)).contiguous(memory_format=torch.channels_last)
        return replace(batch, images=images)

    def _of_all_processes(self, values: Tensor) -> Tensor:
        """Average over the processes, which have equally many images of a batch."""
        if self.trainer.world_size > 1:
            dist.all_reduce(values)
            values /= self.trainer.world_size
        return values

    def _log_losses(self, values: Tensor, batch_idx: int) -> None:
        """Log the losses of a step: their sum, then each; the mean over its batches, where gradients accumulate."""
        batches = self.trainer.accumulate_grad_batches
        number = batch_idx % batches
        if not is_logged(self.trainer, self.global_step):
            return
        sums = self._step_losses if number else {}
        for name, value in zip(["loss", *(f"loss/{name}" for name in self._losses)], values / batches, strict=True):
            sums[name] = sums.get(name, 0.0) + value
        self._step_losses = sums
        if number == batches - 1:
            self.log_dict(sums, prog_bar=True, batch_size=1)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients by norm, and leave out steps whose gradients are not finite, as many as may be.

        Lightning's own method refuses fused optimisers under bf16, although they work, and under fp16.

        Raises:
            ValueError: there are more such steps.
        """
        del gradient_clip_algorithm
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # of fp16
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # a fused one would do so in its step, after the clipping
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if is_logged(self.trainer, self.global_step):
            self.log("gradient_norm", norm)
        if self.skip_bad_steps and not bool(norm.isfinite()):
            self._skip()
            return
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(self.parameters(), gradient_clip_val, norm)

    def _skip(self) -> None:
        """Leave out the present step: drop the gradients, which all processes share, and what norms have averaged."""
        self.skipped += 1
        if self.skipped > self.skip_bad_steps:
            raise ValueError(
                f"the gradients are not finite in {self.doing()}, after {self.skipped - 1} such steps "
                f"(schedule.skip_bad_steps={self.skip_bad_steps}): {ADVICE}"
            )
        if self.trainer.is_global_zero:
            log.warning(
                "%s is left out (%d of %d): its gradients are not finite",
                self.doing(),
                self.skipped,
                self.skip_bad_steps,
            )
        for parameter in self.parameters():
            parameter.grad = None
        for buffer, before in zip(self._averages(), self._statistics, strict=True):
            buffer.copy_(before)

    def _averages(self) -> list[Tensor]:
        """Return the running averages of the norms."""
        return [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]

    def doing(self) -> str:
        """Describe the present step and its batch, for messages."""
        step = f"step {self.trainer.global_step}"
        if self._batch is None:
            return step
        shape = " x ".join(map(str, self._batch.images.shape))
        losses = ", ".join(f"{name} {float(value):.3g}" for name, value in self._losses.items())
        return f"{step} (images {self._batch.ids}, batch {shape}{', losses: ' if losses else ''}{losses})"

    def detect(self, batch: Batch) -> list[Objects]:
        """Detect the objects of each image, as in validation."""
        found: list[Objects] = self.model(batch) if self._detect is None else self._detect(batch)
        return found

    def on_validation_epoch_start(self) -> None:
        """Reset what is collected."""
        self._validation_losses = {}
        if self.collector is not None:
            self.collector.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the detections of a batch; in a training, its losses too."""
        del batch_idx
        assert self.collector is not None
        if self.validation_loss and self.make_optimizer is not None:
            detections, losses = self.model.detect_and_loss(batch)
            for name, value in losses.items():
                before = self._validation_losses.get(name, 0.0)
                self._validation_losses[name] = before + len(batch) * value.double()
        else:
            detections = self.detect(batch)
        self.collector.update(batch.ids, [found.to("cpu") for found in detections], batch.original_sizes)

    def on_validation_epoch_end(self) -> None:
        """Gather the detections and losses of all ranks, and log the same values on every rank.

        Lightning's own mean over ranks (2.6) divides by a number of images that it rounds down, half of an odd one.
        """
        assert self.collector is not None
        own = {name: float(value) for name, value in self._validation_losses.items()}
        losses = [own]
        if dist.is_available() and dist.is_initialized():
            states: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(states, (self.collector.state(), own))
            self.collector.merge([state for state, _ in states])
            losses = [sums for _, sums in states]
        if own:
            images = len(self.collector.images)
            means = {name: sum(part[name] for part in losses) / images for name in own}
            self.losses = {"val_loss": sum(means.values()), **{f"val_loss/{n}": v for n, v in means.items()}}
            self.log_dict(self.losses, sync_dist=True, batch_size=1)
        results: dict[str, float] = {}
        for metric in self.metrics:
            results |= metric.results()
        self.results, self.measured_at = results, self.trainer.global_step
        self.validated_at = self.measured_at
        logged = {name: value for name, value in results.items() if name.count("/") == 1}
        self.log_dict(logged, sync_dist=True, batch_size=1)  # equal everywhere; without it Lightning warns

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration to a checkpoint.

        Raises:
            ValueError: weights are not finite, and would replace a good checkpoint.
        """
        if not all(bool(v.isfinite().all()) for v in self.model.state_dict().values() if v.is_floating_point()):
            raise ValueError(f"the weights are no longer finite at step {self.global_step}: {ADVICE}")
        own = {"format": FORMAT, "config": self.config, "validated_at": self.validated_at, "skipped": self.skipped}
        checkpoint["aligned_rcnn"] = own

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what the run has counted, and the place of a finished run that goes on to more steps."""
        own = checkpoint["aligned_rcnn"]
        self.skipped = own.get("skipped", 0)
        self.validated_at = own.get("validated_at", checkpoint["global_step"])
        if checkpoint["global_step"] < self.trainer.max_steps:
            _reopen(checkpoint["loops"]["fit_loop"], checkpoint["global_step"])


def _reopen(loops: dict[str, Any], step: int) -> None:
    """Let a run that has ended go on, in place: for Lightning its only epoch is over, and the next would begin anew.

    The counters become those of a checkpoint in the middle of a run, which Lightning (2.6) saves before it counts the
    last batch as completed.
    """
    batches, epoch = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    if batches["is_last_batch"] or epoch["current"]["processed"]:
        batches["is_last_batch"] = False
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] = step - 1
        for part in ("total", "current"):
            batches[part]["completed"] = batches[part]["processed"] - 1
            epoch[part] |= {"processed": 0, "completed": 0}
