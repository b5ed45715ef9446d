"""Parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Divide the trainable parameters into two groups: with weight decay, and without (biases, norms)."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter: lower backbone.freeze_at")
    decayed = [p for p in trainable if p.ndim > 1]
    plain = [p for p in trainable if p.ndim <= 1]
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]


def multistep(
    optimizer: Optimizer, steps: int, milestones: Sequence[float], gamma: float, warmup: int, warmup_factor: float
) -> LambdaLR:
    """Schedule the learning rate in steps, as Detectron does (`WarmupMultiStepLR`).

    Args:
        steps: number of steps of the run.
        milestones: where the rate is multiplied by `gamma`, as shares of the run.
        warmup: steps over which the rate rises linearly from `warmup_factor`; at most half the run.
    """

    def factor(step: int) -> float:
        rate = gamma ** sum(step >= round(m * steps) for m in milestones)
        return rate * _ramp(step, min(warmup, steps // 2), warmup_factor)

    return LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, steps: int, warmup: int, warmup_factor: float = 0.01, final: float = 0.0) -> LambdaLR:
    """Schedule the learning rate as half a cosine (SGDR) from 1 to `final`; the warm-up is at most half the run."""

    def factor(step: int) -> float:
        done = min(step / steps, 1.0)
        rate = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
        return rate * _ramp(step, min(warmup, steps // 2), warmup_factor)

    return LambdaLR(optimizer, factor)


def _ramp(step: int, warmup: int, start: float) -> float:
    return 1.0 if step >= warmup else start + (1 - start) * step / warmup
