"""The Muon optimiser beside the papers' formulas and torch's AdamW."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from detector.training.optim import Muon, orthogonalize, parameter_groups


def newton_schulz(matrix: Tensor) -> Tensor:
    """Jordan et al.'s iteration as written, in float64."""
    x = matrix.double()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(32, 32), (64, 147), (256, 2304), (300, 40), (1, 5)])
def test_orthogonalize_is_the_papers_iteration(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape) * torch.logspace(0, -2, shape[1])
    found = orthogonalize(matrix)
    torch.testing.assert_close(found.double(), newton_schulz(matrix), atol=1e-4, rtol=1e-4)


def test_orthogonalize_keeps_directions_and_makes_sizes_equal() -> None:
    left, _ = torch.linalg.qr(torch.randn(48, 48))
    right, _ = torch.linalg.qr(torch.randn(200, 48))
    sizes = torch.logspace(0, -1.5, 48)
    found = left.T @ orthogonalize(left @ torch.diag(sizes) @ right.T) @ right
    assert 0.67 < found.diagonal().min() < found.diagonal().max() < 1.21
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-4


def test_orthogonalize_nothing() -> None:
    assert torch.equal(orthogonalize(torch.zeros(40, 90)), torch.zeros(40, 90))


class Small(nn.Module):
    """A layer of each kind: updated by Muon is `convolution` only."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 40, 3)
        self.few_outputs = nn.Conv2d(40, 6, 1)
        self.large = nn.Conv2d(40, 64, 9)
        self.norm = nn.BatchNorm2d(40)
        self.linear = nn.Linear(50, 70)


def with_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator).to(memory_format=torch.preserve_format)


@pytest.mark.parametrize("fused", [False, True])
def test_steps(fused: bool) -> None:
    ours, theirs = Small(), Small()
    theirs.load_state_dict(ours.state_dict())
    expected, average = ours.convolution.weight.detach().clone().double(), torch.zeros(40, 8, 3, 3).double()
    muon = Muon(parameter_groups(ours), 0.01, (0.8, 0.9), weight_decay=0.3, ratio=3, momentum=0.7, fused=fused)
    adamw = torch.optim.AdamW(parameter_groups(theirs), 0.01, (0.8, 0.9), weight_decay=0.3, fused=fused)
    for step in range(4):
        with_gradients(ours, step)
        with_gradients(theirs, step)
        given = [weight.grad for weight in ours.parameters()]
        muon.step()
        adamw.step()
        assert all(weight.grad is gradient for weight, gradient in zip(ours.parameters(), given, strict=True))
        gradient = given[0].double()
        average = 0.7 * average + 0.3 * gradient
        update = newton_schulz((0.3 * gradient + 0.7 * average).permute(0, 2, 3, 1).reshape(40, 72))
        update = 0.2 * math.sqrt(72) * update.view(40, 3, 3, 8).permute(0, 3, 1, 2)
        expected = expected * (1 - 0.01 * 0.3) - 0.03 * update
    torch.testing.assert_close(ours.convolution.weight.double(), expected, atol=2e-5, rtol=1e-4)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other) is (name != "convolution.weight")


def test_the_layout_does_not_matter() -> None:
    weights = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = Small().to(memory_format=layout)
        muon = Muon(parameter_groups(model))
        with_gradients(model, 1)
        muon.step()
        assert model.convolution.weight.is_contiguous(memory_format=layout)
        weights.append(model.convolution.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_a_closure_and_parameters_without_gradient() -> None:
    model = Small()
    before = copy.deepcopy(model.state_dict())
    muon = Muon(parameter_groups(model))

    def closure() -> float:
        loss = model.convolution(torch.ones(1, 8, 5, 5)).square().mean()
        loss.backward()
        return float(loss.detach())

    assert (muon.step(closure) or 0) > 0
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"convolution.weight", "convolution.bias"}
    assert {tuple(state) for state in muon.state.values()} == {("step", "exp_avg"), ("step", "exp_avg", "exp_avg_sq")}


def test_its_state_resumes() -> None:
    model = Small()
    muon = Muon(parameter_groups(model))
    with_gradients(model, 0)
    muon.step()
    again = copy.deepcopy(model)
    resumed = Muon(parameter_groups(again))
    resumed.load_state_dict(copy.deepcopy(muon.state_dict()))
    for one, optimizer in ((model, muon), (again, resumed)):
        with_gradients(one, 1)
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_changes_nothing_and_leaves_out_what_overflows(fused: bool) -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(3, 32, 3), nn.Flatten(), nn.Linear(32 * 4, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    plain, scaled = (Muon(model.parameters(), fused=fused) for model in models)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        x = torch.randn(2, 3, 4, 4)
        models[0](x).square().sum().backward()
        scaler.scale(models[1](x).square().sum()).backward()
        plain.step()
        scaler.step(scaled)
        scaler.update()
        for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            torch.testing.assert_close(one, other)
        plain.zero_grad()
        scaled.zero_grad()
    before = [p.clone() for p in models[1].parameters()]
    scaler.scale((models[1](x) * float("inf")).sum()).backward()
    scaler.step(scaled)
    assert all(torch.equal(p, was) for p, was in zip(models[1].parameters(), before, strict=True))
