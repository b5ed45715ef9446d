"""Batch normalisation over the batches of all processes, on CPUs too."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is the gradient, since each process's loss depends on all addends."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = values.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class SyncBatchNorm(nn.BatchNorm2d):
    """Normalise by the statistics of the batches of all processes.

    torch's own, `nn.SyncBatchNorm`, computes it on GPUs. It refuses CPUs, and there `DistributedDataParallel` refuses
    models with it, so that this is no subclass of it. In evaluation mode, or with one process, it is batch
    normalisation.
    """

    process_group = None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, D, H, W] over all but the channels, in the shape and type of the input."""
        group = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
        if not self.training or group is None or dist.get_world_size(group) == 1:
            return super().forward(input)
        if input.device.type != "cpu":
            normal: Tensor = nn.SyncBatchNorm.forward(self, input)  # type: ignore[arg-type]
            return normal
        axes = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        sums = _sum(torch.cat((x.sum(axes), x.new_tensor([x.numel() / x.shape[1]]))), group)
        count = sums[-1].detach().clamp(min=1)  # there may be no RoI at all
        centred = x - (sums[:-1] / count).view(shape)
        variance = _sum(centred.square().sum(axes), group) / count
        if count > 1:
            self._average(sums[:-1].detach() / count, variance.detach() * count / (count - 1))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    def _average(self, mean: Tensor, variance: Tensor) -> None:
        """Add a batch's statistics to the running ones, as `nn.BatchNorm2d` does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _sum(values: Tensor, group: Any) -> Tensor:
    total: Tensor = _Sum.apply(values, group)
    return total
