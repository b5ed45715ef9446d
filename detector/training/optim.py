"""Parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Split the trainable parameters into two groups: with weight decay, and without (biases, norms).

    Raises:
        ValueError: the model has no trainable parameter.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameters: lower backbone.freeze_at")
    decayed = [p for p in trainable if p.ndim > 1]
    plain = [p for p in trainable if p.ndim <= 1]
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]


def multistep(
    optimizer: Optimizer, steps: int, milestones: Sequence[float], gamma: float, warmup: int, warmup_factor: float
) -> LambdaLR:
    """Build Detectron's step schedule with linear warm-up.

    Args:
        optimizer: the optimiser.
        steps: optimiser steps of the whole run.
        milestones: fractions of the run at which the learning rate is multiplied by `gamma`.
        gamma: the factor at each milestone.
        warmup: steps over which the factor rises linearly from `warmup_factor` to 1; at most half the run.
        warmup_factor: the factor at step 0.
    """

    def factor(step: int) -> float:
        rate = gamma ** sum(step >= round(m * steps) for m in milestones)
        return rate * _ramp(step, min(warmup, steps // 2), warmup_factor)

    return LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, steps: int, warmup: int, warmup_factor: float = 0.01, final: float = 0.0) -> LambdaLR:
    """Build a cosine schedule (SGDR without restarts) with linear warm-up.

    Args:
        optimizer: the optimiser.
        steps: optimiser steps of the whole run.
        warmup: steps over which the factor rises linearly from `warmup_factor`; at most half the run.
        warmup_factor: the factor at step 0.
        final: the factor at the end of the run.
    """

    def factor(step: int) -> float:
        done = min(step / steps, 1.0)
        rate = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
        return rate * _ramp(step, min(warmup, steps // 2), warmup_factor)

    return LambdaLR(optimizer, factor)


def _ramp(step: int, warmup: int, start: float) -> float:
    return 1.0 if step >= warmup else start + (1 - start) * step / warmup
