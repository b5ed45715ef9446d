"""Convolutions with a weight gradient of our own give torch's gradients."""

import copy

import pytest
import torch
from torch import nn

from detector.models import convolution
from tests.conftest import random_batch, small_model


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Use it for maps of any size and on any CPU; returns the inputs that it has met."""
    met: list[torch.Size] = []
    compute = convolution.weight_gradient

    def recorded(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        met.append(x.shape)
        return compute(x, gradient)

    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", 0)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(convolution, "weight_gradient", recorded)
    return met


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2), (9, 12)])
@pytest.mark.parametrize(("images", "inputs", "outputs"), [(1, 3, 5), (3, 8, 4), (0, 2, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients(
    everywhere: list[torch.Size], size: tuple[int, int], images: int, inputs: int, outputs: int, bias: bool
) -> None:
    theirs = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    ours = nn.Sequential(copy.deepcopy(theirs))
    convolution.fast_weight_gradients(ours)
    x = torch.randn(images, inputs, *size).contiguous(memory_format=torch.channels_last)
    results = []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(0)))
        results.append([y, given.grad, *(parameter.grad for parameter in layer.parameters())])
    assert len(everywhere) == 1
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_what_needs_no_gradient_gets_none(everywhere: list[torch.Size]) -> None:
    layer = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
    convolution.fast_weight_gradients(layer)
    x = torch.randn(1, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    layer(x).sum().backward()
    assert x.grad is None
    layer.requires_grad_(False)
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert len(everywhere) == 1


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 1),
    ],
)
def test_other_convolutions_are_torchs(everywhere: list[torch.Size], layer: nn.Conv2d) -> None:
    x = torch.randn(2, 4, 9, 9).contiguous(memory_format=torch.channels_last)
    expected = layer(x)
    model = nn.Sequential(layer)
    convolution.fast_weight_gradients(model)
    y = model(x)
    y.sum().backward()
    assert torch.equal(y, expected)
    assert not everywhere


@pytest.mark.parametrize("overrides", [["model=mask_rcnn"], ["norm=frozen"]])
def test_a_detector_has_the_same_gradients(
    everywhere: list[torch.Size], overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = random_batch(2, 1, size=(64, 96))
    gradients = []
    for least in (0, 1 << 60):
        monkeypatch.setattr(convolution, "LEAST_PRODUCTS", least)
        model = small_model(*overrides)
        torch.manual_seed(0)
        sum(model.loss(batch).values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert everywhere
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-3, msg=name)
