"""The operators under PyTorch's opcheck, compile, export, tracing and autocast."""

import copy

import pytest
import torch
import torch.fx
from roi_cases import CASES, FORMATS, SOME, Case, random_boxes
from torch import Tensor, nn
from torchvision.models.feature_extraction import get_graph_node_names

import ops
from ops import native

SCALES = [0.5, 0.25]


def pyramid(memory_format: torch.memory_format = torch.contiguous_format, grad: bool = False) -> list[Tensor]:
    maps = [torch.randn(2, 20, 16, 16), torch.randn(2, 20, 8, 8)]
    return [f.contiguous(memory_format=memory_format).requires_grad_(grad) for f in maps]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own
@pytest.mark.parametrize(
    ("with_levels", "memory_format"),
    [
        (False, FORMATS[0]),
        (True, FORMATS[1]),
        pytest.param(True, FORMATS[0], marks=pytest.mark.slow),
        pytest.param(False, FORMATS[1], marks=pytest.mark.slow),
    ],
)
def test_opcheck(with_levels, memory_format):
    operators = torch.ops.aligned_rcnn
    features = pyramid(memory_format, grad=True)
    boxes = random_boxes(9, 2, 32, 32, dtype=torch.float32)
    levels = torch.arange(9) % 2 if with_levels else None
    sizes = [n for f in features for n in f.shape]
    last = memory_format == torch.channels_last
    grad = torch.randn(9, 20, 3, 2, requires_grad=True)
    for rule, ratio in (("align", -1), ("align_half", 2)):
        torch.library.opcheck(operators.average.default, (features, boxes, levels, SCALES, 3, 2, ratio, rule))
        torch.library.opcheck(
            operators.average_backward.default, (grad, boxes, levels, sizes, SCALES, ratio, rule, last)
        )
        many = [torch.randn(2, 12, 9, 8, requires_grad=True), torch.randn(2, 12, 5, 5)]
        many = [f.contiguous(memory_format=memory_format).detach().requires_grad_() for f in many]
        torch.library.opcheck(operators.ps_average.default, (many, boxes, levels, SCALES, 3, 2, ratio, rule))
        many_sizes = [n for f in many for n in f.shape]
        torch.library.opcheck(
            operators.ps_average_backward.default, (grad[:, :2], boxes, levels, many_sizes, SCALES, ratio, rule, last)
        )
    for rule in ("align_half", "pool_round"):
        arguments = (features, boxes, levels, SCALES, 3, 2, 2, rule)
        torch.library.opcheck(operators.maximum.default, arguments)
        _, argmax = operators.maximum([f.detach() for f in features], *arguments[1:])
        torch.library.opcheck(
            operators.maximum_backward.default, (grad.detach(), argmax, boxes, levels, sizes, SCALES, 2, rule, last)
        )


class Head(nn.Module):
    """A small RoI head: pooling, then an elementwise operation."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, first: Tensor, second: Tensor, boxes: Tensor) -> Tensor:
        pooled = ops.multiscale_roi_align([first, second], boxes, 3, SCALES, 2, True, self.mode)
        return (pooled + ops.multiscale_roi_pool([first, second], boxes, 3, SCALES)).relu()


@pytest.mark.parametrize(
    ("mode", "memory_format"),
    [
        ("avg", FORMATS[0]),
        ("max", FORMATS[1]),
        pytest.param("max", FORMATS[0], marks=pytest.mark.slow),
        pytest.param("avg", FORMATS[1], marks=pytest.mark.slow),
    ],
)
def test_compile_whole_and_dynamic(mode, memory_format):
    torch.compiler.reset()
    head = Head(mode)
    compiled = torch.compile(head, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (5, 12, 7):
        features = pyramid(memory_format, grad=True)
        boxes = random_boxes(count, 2, 32, 32, dtype=torch.float32)
        expected, actual = head(*features, boxes), compiled(*features, boxes)
        torch.testing.assert_close(actual, expected)
        assert actual.stride() == expected.stride()
        cotangent = torch.randn_like(expected)
        for a, e in zip(
            torch.autograd.grad(actual, features, cotangent),
            torch.autograd.grad(expected, features, cotangent),
            strict=True,
        ):
            torch.testing.assert_close(a, e)


class Alone(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(self, input: Tensor, boxes: Tensor) -> Tensor:
        return self.case.run(input, boxes, (3, 2), 0.5)


@pytest.mark.parametrize(
    "case", [case if case in SOME else pytest.param(case, marks=pytest.mark.slow) for case in CASES], ids=str
)
def test_every_operator_compiles_whole_and_exports(case: Case):
    torch.compiler.reset()
    module = Alone(case)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    input = torch.randn(2, 12, 16, 20, requires_grad=True)
    first = random_boxes(6, 2, 32, 40, dtype=torch.float32)
    rois = torch.export.Dim("rois", min=0, max=4096)
    program = torch.export.export(module, (input.detach(), first), dynamic_shapes=(None, {0: rois})).module()
    for count in (6, 11, 1):
        boxes = random_boxes(count, 2, 32, 40, seed=count, dtype=torch.float32)
        expected, actual = module(input, boxes), compiled(input, boxes)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(program(input.detach(), boxes), expected.detach())
        cotangent = torch.randn_like(expected)
        (gradient,) = torch.autograd.grad(actual, input, cotangent)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, input, cotangent)[0])


def test_export_with_a_dynamic_number_of_rois():
    features = pyramid()
    boxes = random_boxes(6, 2, 32, 32, dtype=torch.float32)
    shapes = (None, None, {0: torch.export.Dim("rois", min=0, max=4096)})
    program = torch.export.export(Head("avg"), (*features, boxes), dynamic_shapes=shapes)
    for count in (1, 6, 11):
        boxes = random_boxes(count, 2, 32, 32, dtype=torch.float32)
        torch.testing.assert_close(program.module()(*features, boxes), Head("avg")(*features, boxes))


class Wrapper(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, a: Tensor, b: Tensor) -> None:
        self.layer(a, b)


MODULES = [ops.RoIAlign((5, 5), 1, -1), ops.RoIPool((5, 5), 1), ops.PSRoIAlign((5, 5), 1, 2), ops.PSRoIPool((5, 5), 1)]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_fx_traces_a_module_to_one_node(module):
    names = get_graph_node_names(Wrapper(module))
    assert len(names[0]) == len(names[1]) == 3  # two inputs and the operator
    traced = torch.fx.symbolic_trace(module)
    input, boxes = torch.rand(2, 50, 10, 10), random_boxes(6, 2, 10, 10, dtype=torch.float32)
    torch.testing.assert_close(traced(input, boxes), module(input, boxes))


def test_modules_are_their_functions():
    input, boxes = torch.rand(2, 4, 10, 10), random_boxes(6, 2, 20, 20, dtype=torch.float32)
    align = ops.RoIAlign(output_size=(3, 2), spatial_scale=0.5, sampling_ratio=2, aligned=True)
    assert repr(align) == "RoIAlign(output_size=(3, 2), spatial_scale=0.5, sampling_ratio=2, aligned=True)"
    assert torch.equal(copy.deepcopy(align)(input, boxes), ops.roi_align(input, boxes, (3, 2), 0.5, 2, True))
    assert repr(ops.RoIPool(3, 0.5)) == "RoIPool(output_size=3, spatial_scale=0.5)"
    floor = ops.RoIPool(3, 0.5, quantization="floor")
    assert torch.equal(floor(input, boxes), ops.roi_pool(input, boxes, 3, 0.5, "floor"))
    rfcn = ops.PSRoIPool(2, 0.5, quantization="rfcn")
    assert repr(rfcn) == "PSRoIPool(output_size=2, spatial_scale=0.5, quantization=rfcn)"
    assert torch.equal(rfcn(input, boxes), ops.ps_roi_pool(input, boxes, 2, 0.5, "rfcn"))
    ps_align, ps_pool = ops.PSRoIAlign(2, 0.5, 2), ops.PSRoIPool(2, 0.5)
    assert repr(ps_align) == "PSRoIAlign(output_size=2, spatial_scale=0.5, sampling_ratio=2)"
    assert repr(ps_pool) == "PSRoIPool(output_size=2, spatial_scale=0.5)"
    assert torch.equal(ps_align(input, boxes), ops.ps_roi_align(input, boxes, 2, 0.5, 2))
    assert torch.equal(ps_pool(input, boxes), ops.ps_roi_pool(input, boxes, 2, 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("box_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_autocast_and_any_pair_of_dtypes(dtype, box_dtype):
    input = torch.rand(2, 25, 10, 10, dtype=dtype, requires_grad=True)
    boxes = torch.tensor([[0, 0, 0, 9, 9], [0, 0, 5, 4, 9], [1, 0, 0, 9, 9]], dtype=box_dtype)
    for case in CASES:
        with torch.autocast("cpu", torch.bfloat16):
            output = case.run(input, boxes, 5, 1.0)
        assert output.dtype == dtype
        assert torch.equal(output, case.run(input, boxes.double(), 5, 1.0))
        output.sum().backward()


def test_the_pure_path_ignores_autocast(monkeypatch):
    monkeypatch.setattr(native, "available", lambda device: False)
    input, boxes = torch.rand(2, 6, 10, 10), random_boxes(5, 2, 10, 10, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = ops.roi_align(input, boxes, 3)
    assert torch.equal(output, ops.roi_align(input, boxes, 3))


@pytest.mark.parametrize("case", SOME, ids=str)
def test_boxes_as_a_list_by_image(case: Case):
    input = torch.rand(3, 4, 10, 10)
    boxes = random_boxes(9, 3, 10, 10, dtype=torch.float32)
    boxes = boxes[boxes[:, 0].argsort(stable=True)]
    per_image = [boxes[boxes[:, 0] == i, 1:] for i in range(3)]
    assert torch.equal(case.run(input, per_image, 2, 1.0), case.run(input, boxes, 2, 1.0))
    assert torch.equal(case.run(input, tuple(per_image), [2, 2], 1.0), case.run(input, boxes, 2, 1.0))
    assert torch.equal(case.run(input, per_image[:1], 2, 1.0), case.run(input, boxes[boxes[:, 0] == 0], 2, 1.0))
    assert case.run(input, [], 2, 1.0).shape == (0, 4, 2, 2)
    many = [torch.rand(1, 4).half() * 4 for _ in range(2100)]  # image indices that float16 cannot hold
    images = torch.arange(2100.0)[:, None, None, None].expand(-1, 1, 6, 6).contiguous()
    torch.testing.assert_close(ops.roi_align(images, many, 1).flatten(), torch.arange(2100.0))


def test_works_under_deterministic_algorithms():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for case in CASES:
            input = torch.rand(1, 4, 10, 10, requires_grad=True)
            case.run(input, torch.tensor([[0, 1.0, 1, 8, 8]]), 2, 1.0).sum().backward()
    finally:
        torch.use_deterministic_algorithms(before)


def test_the_features_are_not_kept_for_the_gradient():
    """Changing the features in place after pooling is allowed: only the boxes are saved for the gradient."""
    base = torch.rand(1, 4, 10, 10, requires_grad=True)
    feature = base * 1
    output = ops.roi_align(feature, torch.tensor([[0, 1.0, 1, 8, 8]]), 2)
    feature.add_(1)
    output.sum().backward()
    assert base.grad.sum() == pytest.approx(16)


def test_backend_says_what_runs_and_why():
    name, reason = ops.backend()
    assert name == ("cuda" if torch.cuda.is_available() else "cpu")
    assert "compiled" in reason
