"""Convolutions by Winograd's algorithm, where it pays, give torch's values and gradients."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import ops
from detector import convolution
from tests.conftest import random_batch, small_model


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Use it for maps of any size and on any CPU; returns the inputs that it has met."""
    met: list[torch.Size] = []
    compute = ops.winograd_conv2d

    def recorded(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        met.append(x.shape)
        return compute(x, weight, bias)

    monkeypatch.setattr(convolution, "pays", lambda *_: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(ops, "winograd_conv2d", recorded)
    return met


@pytest.mark.parametrize("size", [(1, 1), (5, 2), (9, 12)])
@pytest.mark.parametrize(("images", "inputs", "outputs"), [(1, 3, 5), (3, 8, 4), (0, 2, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients(
    everywhere: list[torch.Size], size: tuple[int, int], images: int, inputs: int, outputs: int, bias: bool
) -> None:
    theirs = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    ours = nn.Sequential(copy.deepcopy(theirs))
    convolution.fast_convolutions(ours)
    x = torch.randn(images, inputs, *size).contiguous(memory_format=torch.channels_last)
    results = []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(0)))
        results.append([y, given.grad, *(parameter.grad for parameter in layer.parameters())])
    assert len(everywhere) == 1
    for one, other in zip(*results, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, atol=4e-6 * max([1.0, *other.abs().flatten().tolist()]), rtol=0)


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
    convolution.fast_convolutions(model)
    y = model(x)
    y.sum().backward()
    assert torch.equal(y, expected)
    assert not everywhere


def within_autocast(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x)


@pytest.mark.parametrize(
    "apply",
    [
        lambda layer, x: layer(x.contiguous()),
        lambda layer, x: layer(x[0]),
        lambda layer, x: layer.double()(x.double()),
        lambda layer, x: layer.to("meta")(x.to("meta")),
        within_autocast,
        lambda layer, x: torch.compile(layer, backend="eager", fullgraph=True)(x),
        lambda layer, x: torch.export.export(layer, (x,), strict=False).module()(x),
        lambda layer, x: torch.jit.trace(layer, (x,), check_trace=False)(x),
        lambda layer, x: torch.fx.symbolic_trace(layer)(x),
        lambda layer, x: torch.func.vmap(lambda one: layer(one[None])[0])(x),
    ],
    ids=["NCHW", "unbatched", "float64", "meta", "autocast", "compile", "export", "trace", "fx", "vmap"],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace:FutureWarning")
def test_elsewhere_it_is_torchs(
    everywhere: list[torch.Size], apply: Callable[[nn.Module, torch.Tensor], torch.Tensor]
) -> None:
    plain = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1).to(memory_format=torch.channels_last))
    layer = copy.deepcopy(plain)
    convolution.fast_convolutions(layer)
    x = torch.randn(2, 4, 9, 9).contiguous(memory_format=torch.channels_last)
    y, expected = apply(layer, x), apply(plain, x)
    assert not everywhere
    assert y.device.type == "meta" or torch.equal(y, expected)


def test_on_other_processors_it_is_torchs(everywhere: list[torch.Size], monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
    convolution.fast_convolutions(layer)
    x = torch.randn(2, 4, 9, 9).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    layer(x)
    assert not everywhere
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    layer(x)
    assert len(everywhere) == 1


@pytest.mark.parametrize(
    ("maps", "filters", "expected"),
    [
        ((2, 256, 80, 80), 256, True),
        ((1, 256, 20, 32), 256, True),  # 40 tiles
        ((1, 256, 12, 52), 256, False),  # 39 tiles
        ((2, 32, 20, 20), 32, True),
        ((2, 31, 80, 80), 256, False),
        ((2, 256, 80, 80), 31, False),
        ((100, 64, 5, 8), 64, True),  # 40 of 64 cells of the tiles lie on the map
        ((100, 64, 7, 5), 64, False),  # 35
        ((100, 64, 6, 8), 64, True),
        ((100, 64, 4, 40), 64, True),
        ((0, 64, 7, 7), 64, False),
    ],
)
def test_where_it_pays(maps: tuple[int, ...], filters: int, expected: bool) -> None:
    assert convolution.pays(torch.Size(maps), torch.Size((filters, maps[1], 3, 3))) is expected


@pytest.mark.parametrize("overrides", [["model=mask_rcnn"], ["norm=frozen"]])
def test_a_detector_has_the_same_gradients(
    everywhere: list[torch.Size], overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = random_batch(2, 1, size=(64, 96))
    gradients = []
    for used in (True, False):
        monkeypatch.setattr(convolution, "pays", lambda *_, used=used: used)
        model = small_model(*overrides)
        torch.manual_seed(0)
        sum(model.loss(batch).values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert everywhere
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-3, msg=name)
