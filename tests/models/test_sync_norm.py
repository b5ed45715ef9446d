"""Batch normalisation over several processes."""

import torch
from torch import Tensor, nn

from detector.models.sync_norm import SyncBatchNorm
from tests.processes import in_processes

SHAPES = ((3, 4, 5, 6), (1, 4, 2, 3))  # of the batches of two processes
OPTIONS: list[dict[str, object]] = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}]


def inputs() -> tuple[list[Tensor], list[Tensor]]:
    """Return the batches of two processes in the first step, then in the second, and gradients of their shapes."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 5 for shape in SHAPES * 2]
    return batches, [torch.randn(b.shape, generator=generator, dtype=torch.float64) for b in batches]


def run(norm: nn.Module, batches: list[Tensor], gradients: list[Tensor]) -> dict[str, Tensor]:
    """Return outputs and gradients of two steps, and the norm's state."""
    found = {}
    for step, (batch, gradient) in enumerate(zip(batches, gradients, strict=True)):
        batch = batch.clone().requires_grad_()
        output = norm(batch)
        output.backward(gradient)
        assert batch.grad is not None
        found |= {f"output{step}": output.detach(), f"gradient{step}": batch.grad}
    found |= {f"d{name}": p.grad for name, p in norm.named_parameters() if p.grad is not None}
    return found | norm.state_dict()


def of_process(rank: int) -> list[dict[str, Tensor]]:
    batches, gradients = inputs()
    return [run(SyncBatchNorm(4, **options).double(), batches[rank::2], gradients[rank::2]) for options in OPTIONS]


def flat(parts: list[Tensor]) -> list[Tensor]:
    """Join the batches of each step to [1, 4, pixels]."""
    lines = [part.transpose(0, 1).reshape(1, 4, -1) for part in parts]
    return [torch.cat(lines[step : step + 2], 2) for step in range(0, len(lines), 2)]


def test_two_processes_normalise_as_one() -> None:
    batches, gradients = inputs()
    for options, *found in zip(OPTIONS, *in_processes(2, of_process), strict=True):
        expected = run(nn.BatchNorm1d(4, **options).double(), flat(batches), flat(gradients))
        assert expected.keys() == found[0].keys()
        for name, value in expected.items():
            parts = [part[name] for part in found]
            if name[:-1] in ("output", "gradient"):
                torch.testing.assert_close(flat(parts)[0], value)
            elif name.startswith("d"):
                torch.testing.assert_close(parts[0] + parts[1], value)
            else:
                assert torch.equal(parts[0], parts[1])
                torch.testing.assert_close(parts[0], value)


def test_one_process_normalises_as_a_batch_norm() -> None:
    batches, gradients = inputs()
    ours, theirs = SyncBatchNorm(4).double(), nn.BatchNorm2d(4).double()
    found = run(ours, batches, gradients)
    for name, value in run(theirs, batches, gradients).items():
        assert torch.equal(found[name], value)
    assert torch.equal(ours.eval()(batches[0]), theirs.eval()(batches[0]))


def alone(_: int) -> list[Tensor]:
    """Normalise in a group of one process; then, in training, no RoI at all."""
    batches, gradients = inputs()
    norm = SyncBatchNorm(4).double()
    found = run(norm, batches, gradients)
    return [found["output0"], found["running_var"]]


def empty(_: int) -> list[Tensor]:
    norm = SyncBatchNorm(4).double()
    output = norm(torch.zeros(0, 4, 7, 7, dtype=torch.float64))
    output.sum().backward()
    assert norm.weight.grad is not None
    return [norm.running_mean, norm.running_var, norm.weight.grad]


def test_a_group_of_one_process_normalises_as_a_batch_norm() -> None:
    batches, gradients = inputs()
    expected = run(nn.BatchNorm2d(4).double(), batches, gradients)
    ((output, variance),) = in_processes(1, alone)
    assert torch.equal(output, expected["output0"])
    assert torch.equal(variance, expected["running_var"])


def test_batches_without_rois_change_nothing() -> None:
    for mean, variance, gradient in in_processes(2, empty):
        assert torch.equal(mean, torch.zeros_like(mean))
        assert torch.equal(variance, torch.ones_like(variance))
        assert not gradient.any()
