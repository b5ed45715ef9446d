"""Winograd's convolution: values, gradients and errors, beside torch's in float64."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import ops
from ops import convolution

pytestmark = pytest.mark.skipif(ops.backend().name == "torch", reason="the operators are not compiled")


def case(seed: int, images: int, inputs: int, outputs: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, inputs, height, width, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    return x, weight, torch.randn(outputs, generator=generator)


def results(compute: object, x: Tensor, weight: Tensor, bias: Tensor | None, cotangent: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
    y = compute(*leaves)  # type: ignore[operator]
    return [y, *torch.autograd.grad(y, leaves, cotangent.to(y.dtype))]


def direct(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1)


def assert_close(ours: list[Tensor], exact: list[Tensor]) -> None:
    """A sum's rounding errors are in proportion to its terms, not to what they add up to."""
    for one, other in zip(ours, exact, strict=True):
        largest = max(float(other.detach().abs().max()), 1.0)
        torch.testing.assert_close(one.double(), other, atol=4e-6 * largest, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 4), (5, 3), (17, 12), (40, 31)])
@pytest.mark.parametrize(("images", "inputs", "outputs"), [(1, 1, 1), (2, 3, 5), (3, 37, 16), (1, 64, 72)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients(
    size: tuple[int, int], images: int, inputs: int, outputs: int, memory_format: torch.memory_format, biased: bool
) -> None:
    x, weight, bias = case(0, images, inputs, outputs, *size)
    x, weight = (tensor.contiguous(memory_format=memory_format) for tensor in (x, weight))
    cotangent = torch.randn(images, outputs, *size, generator=torch.Generator().manual_seed(1))
    given = bias if biased else None
    ours = results(ops.winograd_conv2d, x, weight, given, cotangent)
    theirs = results(direct, x.double(), weight.double(), None if given is None else given.double(), cotangent)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    assert len(ours) == 3 + biased
    assert_close(ours, theirs)


def test_errors_are_a_few_times_a_plain_sums() -> None:
    x, weight, bias = case(2, 2, 256, 256, 40, 40)
    exact = direct(x.double(), weight.double(), bias.double())
    ours, plain = (
        (one(x, weight, bias).double() - exact).pow(2).mean().sqrt().item() for one in (ops.winograd_conv2d, direct)
    )
    assert ours < 8 * plain
    assert ours < 3e-6 * exact.std().item()


@pytest.mark.parametrize(("inputs", "outputs"), [(20, 24), (70, 33), (140, 130)])
def test_maps_of_many_tiles(inputs: int, outputs: int) -> None:
    x, weight, bias = case(3, 3, inputs, outputs, 38, 35)
    cotangent = torch.randn(3, outputs, 38, 35, generator=torch.Generator().manual_seed(1))
    expected = results(direct, x.double(), weight.double(), bias.double(), cotangent)
    assert_close(results(ops.winograd_conv2d, x, weight, bias, cotangent), expected)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 7), (64, 65), (130, 97), (40, 130)])
def test_images_and_threads_change_no_bit(inputs: int, outputs: int) -> None:
    x, weight, bias = case(4, 4, inputs, outputs, 50, 41)
    cotangent = torch.randn(4, outputs, 50, 41)
    whole = results(ops.winograd_conv2d, x, weight, bias, cotangent)
    for i in range(4):
        one = slice(i, i + 1)
        y, gradient, *_ = results(ops.winograd_conv2d, x[one], weight, bias, cotangent[one])
        assert torch.equal(y, whole[0][one])
        assert torch.equal(gradient, whole[1][one])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5, 8):
            torch.set_num_threads(threads)
            results(ops.winograd_conv2d, -x, weight, bias, -2 * cotangent)  # leaves other numbers in the memory
            again = results(ops.winograd_conv2d, x, weight, bias, cotangent)
            assert all(torch.equal(one, other) for one, other in zip(again[:3], whole[:3], strict=True))
    finally:
        torch.set_num_threads(before)


def test_programs_may_convolve_in_several_threads_at_once() -> None:
    cases = [case(seed, 1 + seed, 8 * seed + 3, 40 - 7 * seed, 21, 30) for seed in range(4)]

    def run(one: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        return results(ops.winograd_conv2d, *one, torch.ones(len(one[0]), len(one[1]), 21, 30))

    expected = [run(one) for one in cases]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, cases * 8))
    for i, tensors in enumerate(found):
        assert all(torch.equal(a, b) for a, b in zip(tensors, expected[i % 4], strict=True))


def test_nothing_in_nothing_out() -> None:
    x, weight, bias = case(5, 0, 4, 6, 8, 8)
    y, *gradients = results(ops.winograd_conv2d, x, weight, bias, torch.zeros(0, 6, 8, 8))
    assert y.shape == (0, 6, 8, 8)
    assert [tuple(g.shape) for g in gradients] == [(0, 4, 8, 8), (6, 4, 3, 3), (6,)]
    assert not gradients[1].any()


def test_what_needs_no_gradient_gets_none() -> None:
    x, weight, bias = case(6, 1, 4, 4, 8, 8)
    ops.winograd_conv2d(x, weight.requires_grad_(), bias).sum().backward()
    assert weight.grad is not None
    assert x.grad is bias.grad is None
    with torch.inference_mode():
        assert not ops.winograd_conv2d(x, weight, bias).requires_grad


def test_training_goes_on_after_inference() -> None:
    x, weight, bias = case(7, 1, 8, 8, 12, 12)
    with torch.inference_mode():
        expected = ops.winograd_conv2d(x, weight, bias)
    y, *_ = results(ops.winograd_conv2d, x, weight, bias, torch.ones(1, 8, 12, 12))
    assert torch.equal(y, expected)


def test_derivatives_of_derivatives() -> None:
    x, weight, bias = case(8, 2, 6, 5, 9, 8)
    found = []
    for compute, dtype in ((ops.winograd_conv2d, torch.float32), (direct, torch.float64)):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in (x, weight, bias)]
        first = torch.autograd.grad(compute(*leaves).pow(2).sum(), leaves, create_graph=True)
        found.append([*first, *torch.autograd.grad(sum(one.pow(2).sum() for one in first), leaves)])
    assert_close(*found)


def test_many_gradients_at_once() -> None:
    x, weight, bias = case(8, 2, 6, 5, 9, 8)
    many = torch.randn(3, 2, 5, 9, 8)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    found = torch.autograd.grad(ops.winograd_conv2d(*leaves), leaves, many, is_grads_batched=True)
    expected = [results(direct, x.double(), weight.double(), bias.double(), one)[1:] for one in many]
    assert_close(list(found), [torch.stack(one) for one in zip(*expected, strict=True)])


@pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")  # of torch's own code
def test_derivatives_along_a_direction() -> None:
    x, weight, bias = case(8, 2, 6, 5, 9, 8)
    with forward_ad.dual_level():
        y = forward_ad.unpack_dual(ops.winograd_conv2d(forward_ad.make_dual(x, torch.ones_like(x)), weight, bias))
    torch.testing.assert_close(y.tangent, direct(torch.ones_like(x), weight))


def test_strided_weights_and_biases() -> None:
    x, weight, bias = case(14, 1, 12, 20, 13, 9)
    cotangent = torch.randn(1, 10, 13, 9)
    for given in (bias[::2], bias[:1].expand(10)):
        ours = results(ops.winograd_conv2d, x, weight[::2], given, cotangent)
        assert_close(ours, results(direct, x.double(), weight[::2].double(), given.double(), cotangent))


@pytest.mark.parametrize(
    "around", [torch.device("meta"), torch.autocast("cpu", torch.bfloat16)], ids=["device", "autocast"]
)
def test_settings_do_not_matter(around: AbstractContextManager[object]) -> None:
    x, weight, bias = case(9, 2, 8, 8, 12, 12)
    cotangent = torch.randn(2, 8, 12, 12)
    expected = results(ops.winograd_conv2d, x, weight, bias, cotangent)
    with around:
        within = results(ops.winograd_conv2d, x, weight, bias, cotangent)
    for found in (within, results(ops.winograd_conv2d, x, weight, bias, cotangent)):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_default_dtype_does_not_matter() -> None:
    x, weight, bias = case(10, 2, 8, 8, 12, 12)
    cotangent = torch.randn(2, 8, 12, 12)
    expected = results(ops.winograd_conv2d, x, weight, bias, cotangent)
    torch.set_default_dtype(torch.float64)
    try:
        found = results(ops.winograd_conv2d, x, weight, bias, cotangent)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_hooks_may_change_the_memory_format_of_what_is_saved() -> None:
    x, weight, bias = case(11, 1, 4, 4, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.clone(memory_format=torch.contiguous_format), lambda t: t
    ):
        y = ops.winograd_conv2d(x.requires_grad_(), weight.requires_grad_(), bias)
    ones = torch.ones_like(y)
    expected = torch.autograd.grad(direct(x, weight, bias), (x, weight), ones)
    assert_close(list(torch.autograd.grad(y, (x, weight), ones)), [one.double() for one in expected])


def two(x: Tensor, weight: Tensor) -> Tensor:
    return ops.winograd_conv2d(x, weight)


def fake(x: Tensor, weight: Tensor) -> Tensor:
    with FakeTensorMode(allow_non_fake_inputs=True):
        return two(x, weight)


@pytest.mark.parametrize(
    "compute",
    [
        torch.compile(two, backend="eager", fullgraph=True),
        torch.func.vmap(lambda x, weight: two(x[None], weight)[0], (0, None)),
        lambda x, weight: torch.func.vjp(two, x, weight)[0],
        lambda x, weight: make_fx(two, tracing_mode="fake")(x, weight)(x, weight),
        lambda x, weight: torch.jit.trace(two, (x, weight), check_trace=False)(x, weight),
    ],
    ids=["compile", "vmap", "vjp", "make_fx", "trace"],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace:FutureWarning")
def test_where_more_than_numbers_are_computed_it_is_torchs(
    compute: Callable[[Tensor, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution._Winograd, "apply", lambda *_: pytest.fail("computed by Winograd's algorithm"))
    x, weight, _ = case(12, 2, 8, 8, 12, 12)
    torch.testing.assert_close(compute(x, weight), direct(x, weight), atol=1e-5, rtol=1e-4)
    assert isinstance(fake(x, weight), FakeTensor)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input": torch.zeros(4, 8, 8)}, ValueError, r"input must be Tensor\[B, C, H, W\]; got shape \(4, 8, 8\)"),
        ({"input": torch.zeros(1, 4, 8, 8).double()}, TypeError, "input must be float32; got torch.float64"),
        ({"weight": torch.zeros(4, 4, 1, 1)}, ValueError, r"weight must be Tensor\[K, 4, 3, 3\]; got shape \(4, 4, 1"),
        ({"weight": torch.zeros(4, 5, 3, 3)}, ValueError, r"weight must be Tensor\[K, 4, 3, 3\]; got shape \(4, 5"),
        ({"bias": torch.zeros(3)}, ValueError, r"bias must be Tensor\[4\]; got shape \(3,\)"),
        ({"bias": 1.0}, TypeError, "bias must be a tensor; got float"),
        ({"input": torch.zeros(1, 4, 0, 8)}, ValueError, r"must have channels and cells; got shapes \(1, 4, 0, 8\)"),
        ({"weight": torch.zeros(0, 4, 3, 3)}, ValueError, r"must have channels and cells; .* and \(0, 4, 3, 3\)"),
        ({"input": torch.zeros(1, 4, 8, 8, device="meta")}, ValueError, "input must be on the CPU; got meta"),
    ],
)
def test_malformed_arguments_are_named(change: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"input": torch.zeros(1, 4, 8, 8), "weight": torch.zeros(4, 4, 3, 3), "bias": torch.zeros(4)}
    with pytest.raises(error, match=message):
        ops.winograd_conv2d(**(given | change))  # type: ignore[arg-type]


def test_subclasses_see_the_convolution() -> None:
    class Watched(Tensor):
        pass

    x, weight, _ = case(15, 1, 4, 4, 8, 8)
    assert type(ops.winograd_conv2d(x, weight.as_subclass(Watched))) is Watched


LAST = torch.zeros(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        ("weight", (LAST.double(), LAST), r"maps must be float32 \[B, C, H, W\]"),
        ("weight", (LAST[:, :0], LAST), r"maps must be float32 \[B, C, H, W\]"),
        ("weight", (LAST, LAST[:, :, :7]), "the same images and cells"),
        ("weight", (torch.cat([LAST, LAST]), LAST), "the same images and cells"),
        ("weight", (LAST.contiguous(), LAST), "maps must be in channels_last"),
        ("weight", (LAST, LAST.contiguous()), "maps must be in channels_last"),
        ("weight", (torch.zeros(1, 1, 8, 16)[..., ::2], LAST), "maps must be in channels_last"),
        ("weight", (torch.zeros(3, 1, 1, 1).expand(3, 5, 1, 1),) * 2, "maps must be in channels_last"),
        ("conv2d", (LAST, torch.zeros(6, 5, 3, 3), None, False), r"filters must be float32 \[K, C, 3, 3\]"),
        ("conv2d", (LAST, torch.zeros(5, 4, 3, 3), None, True), r"filters must be float32 \[K, C, 3, 3\]"),
        ("conv2d", (LAST, torch.zeros(6, 4, 3, 3), torch.zeros(5), False), "one for each output channel"),
    ],
)
def test_the_operators_read_nothing_beside_their_arguments(
    operator: str, arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.aligned_rcnn, f"winograd_{operator}")(*arguments)


WITHOUT_MEMORY = """
import resource
from pathlib import Path
import torch, ops
few, many = torch.ones(1, 32, 8, 8), torch.ones(1, 1024, 8, 8)
filters = torch.ones(1024, 1024, 3, 3).contiguous(memory_format=torch.channels_last)
expected = ops.winograd_conv2d(few, filters[:32, :32])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20),) * 2)
try:
    ops.winograd_conv2d(many, filters)
except RuntimeError as error:
    print(str(error).splitlines()[0])
print(torch.equal(ops.winograd_conv2d(few, filters[:32, :32]), expected))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")
def test_what_does_not_fit_in_memory_leaves_the_thread_usable() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True)
    message, equal = run.stdout.splitlines()
    assert message.endswith("no memory for 150997248 bytes"), run.stderr
    assert equal == "True"
