"""Parameter groups, the Muon optimiser, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
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


class Muon(AdamW):
    """Update convolutions by Muon, and all other parameters by AdamW.

    Muon (Jordan et al., 2024) takes the averaged gradient of a layer as a matrix, one row per output channel, and makes
    its singular values nearly equal: directions of small gradient are learnt as fast as the others. Such an update is
    scaled to the size of AdamW's (Liu et al., 2025, section 2.2), so that learning rates compare. `torch.optim.Muon`
    takes matrices only, and computes in bfloat16, which most CPUs emulate.

    The last layers of a head are left to AdamW, as the authors advise, and so is the box head's first layer, whose
    matrix is too large to be worth its time: the cost grows with the square of the output channels.

    Args:
        params: parameters, or groups of them.
        lr: AdamW's learning rate.
        betas: decay rates of AdamW's averages.
        eps: added to AdamW's denominator.
        weight_decay: of all parameters, times `lr`.
        ratio: Muon's learning rate, in multiples of `lr`.
        momentum: decay rate of Muon's average of the gradient, as in Nesterov's method.
        min_outputs: convolutions with fewer output channels are left to AdamW,
        max_inputs: as are those with more numbers in a filter (input channels × height × width).
        fused: as of `torch.optim.AdamW`.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1.5e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
        ratio: float = 10.0,
        momentum: float = 0.95,
        min_outputs: int = 32,
        max_inputs: int = 2304,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, fused=fused)
        # A fused AdamW unscales gradients itself, and leaves out the step where they overflow: let the scaler do both.
        self._step_supports_amp_scaling = False
        self.ratio, self.momentum = ratio, momentum
        self.min_outputs, self.max_inputs = min_outputs, max_inputs

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient.

        Args:
            closure: computes the loss and the gradients first.

        Returns:
            the closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = []
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and self._takes(weight):
                    self._update(weight, weight.grad, group["lr"], group["weight_decay"])
                    gradients.append((weight, weight.grad))
                    weight.grad = None  # AdamW leaves out what has no gradient
        super().step()
        for weight, gradient in gradients:
            weight.grad = gradient
        return loss

    def _takes(self, weight: Tensor) -> bool:
        return weight.ndim == 4 and len(weight) >= self.min_outputs and weight[0].numel() <= self.max_inputs

    def _update(self, weight: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(weight)}  # named as AdamW's
        state["step"] += 1
        average = state["exp_avg"].lerp_(gradient, 1 - self.momentum)
        rows = gradient.lerp(average, self.momentum).permute(0, 2, 3, 1)  # a view, in channels_last
        update = orthogonalize(rows.flatten(1))
        size = 0.2 * math.sqrt(max(update.shape))  # a matrix of such a root mean square as AdamW's updates have
        weight.mul_(1 - lr * weight_decay)
        weight.add_(update.view(rows.shape).permute(0, 3, 1, 2), alpha=-lr * self.ratio * size)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of a matrix [M, N] near 1, between 0.68 and 1.14, and keep its singular vectors.

    Jordan et al.'s Newton-Schulz iteration, X <- (a + b·XXᵀ + c·(XXᵀ)²) X. Each step's factor is a polynomial of the
    first XXᵀ: the factors are multiplied as square matrices of the smaller side, and their product with the matrix.
    Singular values below a hundredth of the Frobenius norm come less near.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonalize(matrix.T, steps).T
    a, b, c = 3.4445, -4.7750, 2.0315
    matrix = matrix / (matrix.norm() + 1e-7)
    gram = matrix @ matrix.T
    product = None
    for step in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ (factor @ gram)
    assert product is not None
    return product @ matrix


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
