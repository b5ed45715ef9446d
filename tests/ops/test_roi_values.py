"""Values and gradients of the operators: against values by hand, closed forms, the reference and torchvision."""

import pytest
import torch
import torchvision
from roi_cases import CASES, FORMATS, PS, SOME, Case, random_boxes, value_and_gradient
from torch import Tensor

import ops
from ops import native, reference

BOX = (2.2821481227874756, 0.3001725673675537, 4.599632263183594, 5.58889102935791)


@pytest.fixture(params=["compiled", "pure"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pure":
        monkeypatch.setattr(native, "available", lambda device: False)
    return str(request.param)


def hand_map() -> Tensor:
    map = torch.zeros(1, 1, 7, 7)
    map[0, 0, 0] = torch.tensor([0.5663671, 0.2577112, 0.20066682, 0.0127351, 0.07388048, 0.38410962, 0.2822853])
    map[0, 0, 1, 0], map[0, 0, 1, 6], map[0, 0, 2, 0], map[0, 0, 2, 6] = 0.3358975, 0.07561569, 0.23596162, 0.04612046
    map[0, 0, 5, 5], map[0, 0, 6, 5] = 0.18630868, 0.00289604
    return map


@pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])
@pytest.mark.parametrize(
    ("sampling_ratio", "aligned", "expected"),
    [
        (-1, False, [0.0049739, 0.0098217, 0, 0.0107874]),
        (1, False, [0, 0, 0, 0.0010068]),
        (2, False, [0.0011155, 0.0022026, 0, 0.0133942]),
        (-1, True, [0.0335841, 0.0112718, 0, 0]),
        (2, True, [0.0357522, 0.0119995, 0, 0]),
    ],
)
def test_align_by_hand(module, sampling_ratio, aligned, expected, implementation):
    result = module.roi_align(hand_map(), torch.tensor([[0, *BOX]]), (2, 2), 1.0, sampling_ratio, aligned)
    torch.testing.assert_close(result.flatten(), torch.tensor(expected), rtol=0, atol=6e-8)


@pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])
def test_pool_by_hand(module, implementation):
    result = module.roi_pool(hand_map(), torch.tensor([[0, *BOX]]), (2, 2))
    torch.testing.assert_close(result.flatten(), torch.tensor([0.2006668, 0.3841096, 0, 0.1863087]), rtol=0, atol=5e-8)


@pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])
@pytest.mark.parametrize(
    ("quantization", "rows", "columns"),
    [
        ("round", [1, 2], [1, 2]),  # rows 1 to 2 and columns 1 to 2, a bin each
        ("rfcn", [1.5, 2.5], [0.5, 1.5]),  # rows 1.5 to 3.25, of bins [1, 3) and [2, 4); columns 0.75 to 2.75
    ],
)
def test_position_sensitive_pool_by_hand(module, quantization, rows, columns, implementation):
    ramp = (10 * torch.arange(6.0)[:, None] + torch.arange(5.0)).expand(1, 4, 6, 5)
    boxes = torch.tensor([[0, 3.4, 5.6, 10.4, 12.4]])
    result = module.ps_roi_pool(ramp, boxes, (2, 2), 0.25, quantization)
    torch.testing.assert_close(result[0, 0], 10 * torch.tensor(rows).float()[:, None] + torch.tensor(columns))


def test_quantization_of_the_worked_example():
    """800 px at stride 32, a box of 665 px: 20.78 cells. Textbook RoIPool keeps 20, the one in use 22."""
    ramp = torch.arange(25.0).expand(1, 1, 25, 25)
    box = torch.tensor([[0, 0, 0, 665.0, 665.0]])
    assert ops.roi_pool(ramp, box, 7, 1 / 32, quantization="floor").max() == 19
    assert ops.roi_pool(ramp, box, 7, 1 / 32).max() == 21
    exact = ops.roi_align(ramp, box, 7, 1 / 32, 2)
    torch.testing.assert_close(exact[0, 0, 0], (torch.arange(7) + 0.5) * (665 / 32 / 7))


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3, -1])
@pytest.mark.parametrize("aligned", [False, True])
def test_a_ramp_has_its_value_at_each_bins_centre(sampling_ratio, aligned, implementation):
    y, x = torch.arange(30.0, dtype=torch.float64)[:, None], torch.arange(40.0, dtype=torch.float64)
    ramp = (2 + 0.25 * x - 3 * y)[None, None]
    boxes = torch.tensor([[0, 3.3, 4.1, 27.9, 22.2], [0, 10, 10, 12.5, 13]], dtype=torch.float64)
    result = ops.roi_align(ramp, boxes, (3, 5), 1.0, sampling_ratio, aligned)
    shift = 0.5 if aligned else 0
    for roi, (x1, y1, x2, y2) in zip(result[:, 0], boxes[:, 1:].tolist(), strict=True):
        cx = x1 - shift + (torch.arange(5, dtype=torch.float64) + 0.5) * (x2 - x1) / 5
        cy = y1 - shift + (torch.arange(3, dtype=torch.float64) + 0.5) * (y2 - y1) / 3
        torch.testing.assert_close(roi, 2 + 0.25 * cx - 3 * cy[:, None])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_inner_rois_pass_their_whole_gradient_on(case: Case, implementation):
    boxes = torch.tensor([[0, 5.2, 5.3, 20.1, 17.7], [1, 3.1, 4.2, 9.9, 22.3]], dtype=torch.float64)
    input = torch.randn(2, 12, 30, 30, dtype=torch.float64, requires_grad=True)
    output = case.run(input, boxes, (3, 4), 1.0)
    cotangent = torch.rand_like(output)
    (gradient,) = torch.autograd.grad(output, input, cotangent)
    by_channel = cotangent.reshape(2, 12) if case.own_channels else cotangent.sum((2, 3))
    torch.testing.assert_close(gradient.sum((2, 3)), by_channel)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_the_reference(case: Case, memory_format, implementation):
    input = torch.randn(2, 30, 11, 13, dtype=torch.float64).contiguous(memory_format=memory_format)
    boxes = random_boxes(14, 2, 44, 52)
    boxes[::4, 1:] = boxes[::4, [3, 2, 1, 4]]  # inverted in x
    for size in ((3, 2), (1, 5)):
        actual, gradient = value_and_gradient(case.run, input, boxes, size, 0.25)
        expected, expected_gradient = value_and_gradient(case.reference, input, boxes, size, 0.25)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", SOME + PS, ids=str)
def test_every_dtype_is_the_reference_rounded_once(case: Case, dtype, memory_format, implementation):
    """Sums are in float32 and rounded to the dtype at the end: the error is half a unit in the last place."""
    input = torch.randn(2, 42, 11, 13).to(dtype).contiguous(memory_format=memory_format)
    boxes = random_boxes(14, 2, 44, 52, dtype=torch.float32)
    actual, gradient = value_and_gradient(case.run, input, boxes, (3, 2), 0.25)
    assert actual.dtype == gradient.dtype == dtype
    exact = input.double()
    leaf = exact.clone().requires_grad_()
    expected = case.reference(leaf, boxes.double(), (3, 2), 0.25)
    generator = torch.Generator().manual_seed(11)
    cotangent = torch.randn(expected.shape, generator=generator, dtype=torch.float64).to(dtype).double()
    (expected_gradient,) = torch.autograd.grad(expected, leaf, cotangent)
    unit = torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 0.0
    torch.testing.assert_close(actual.double(), expected, rtol=unit, atol=1e-5)
    if implementation == "compiled" or dtype == torch.float32:  # in pure PyTorch autograd rounds the sum after each RoI
        torch.testing.assert_close(gradient.double(), expected_gradient, rtol=unit, atol=2e-5)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [1, 2, -1])
def test_align_equals_torchvision(sampling_ratio, aligned, memory_format):
    input = torch.randn(2, 70, 25, 33).contiguous(memory_format=memory_format)
    boxes = random_boxes(60, 2, 100, 132, dtype=torch.float32)
    arguments = (boxes, (7, 7), 0.25, sampling_ratio, aligned)
    actual, gradient = value_and_gradient(ops.roi_align, input, *arguments)
    expected, expected_gradient = value_and_gradient(torchvision.ops.roi_align, input, *arguments)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("sampling_ratio", [2, -1])
def test_position_sensitive_equals_torchvision(sampling_ratio, memory_format):
    input = torch.randn(2, 3 * 35, 25, 33).contiguous(memory_format=memory_format)
    boxes = random_boxes(60, 2, 100, 132, dtype=torch.float32)
    arguments = (boxes, (7, 5), 0.25, sampling_ratio)
    actual, gradient = value_and_gradient(ops.ps_roi_align, input, *arguments)
    expected, expected_gradient = value_and_gradient(torchvision.ops.ps_roi_align, input, *arguments)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=2e-5)
    expected = torchvision.ops.ps_roi_pool(input, boxes, (7, 5), 0.25)
    torch.testing.assert_close(ops.ps_roi_pool(input, boxes, (7, 5), 0.25), expected)
    boxes[:, 1:] = boxes[:, 1:].clamp(0, 80)  # torchvision's gradient is wrong at the map's far edges
    actual, gradient = value_and_gradient(ops.ps_roi_pool, input, boxes, (7, 5), 0.25)
    expected, expected_gradient = value_and_gradient(torchvision.ops.ps_roi_pool, input, boxes, (7, 5), 0.25)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("aligned", [False, True])
def test_sampling_equals_grid_sample(aligned):
    """RoIs inside the map: RoIAlign samples centres of equal parts (align_corners=False), crops edge to edge (True)."""
    input = torch.randn(1, 4, 20, 24, dtype=torch.float64)
    x1, y1, x2, y2 = 3.2, 2.7, 19.9, 16.1
    box = torch.tensor([[0, x1, y1, x2, y2]], dtype=torch.float64)

    def grid(height: int, width: int, align_corners: bool, shift: float) -> Tensor:
        half = torch.tensor([23 / 2, 19 / 2], dtype=torch.float64)  # align_corners: -1 and 1 are the outermost cells
        middle = torch.tensor([(x1 + x2) / 2 - shift, (y1 + y2) / 2 - shift], dtype=torch.float64) / half - 1
        theta = torch.diag(torch.tensor([(x2 - x1) / 2, (y2 - y1) / 2], dtype=torch.float64) / half)
        theta = torch.cat((theta, middle[:, None]), 1)[None]
        points = torch.nn.functional.affine_grid(theta, [1, 4, height, width], align_corners=align_corners)
        return torch.nn.functional.grid_sample(input, points, align_corners=True)

    parts = grid(6, 8, False, 0.5 if aligned else 0.0)
    expected = torch.nn.functional.avg_pool2d(parts, 2)
    torch.testing.assert_close(ops.roi_align(input, box, (3, 4), 1.0, 2, aligned), expected)
    edges = grid(6, 8, True, 0.0)
    torch.testing.assert_close(ops.crop_and_resize(input, box, (6, 8)), edges)
    torch.testing.assert_close(ops.roi_crop(input, box, (3, 4)), torch.nn.functional.max_pool2d(edges, 2))


def test_warp_is_align_on_the_rounded_roi():
    input = torch.randn(2, 5, 20, 24, dtype=torch.float64)
    boxes = random_boxes(30, 2, 40, 48)
    rounded = boxes.clone()
    rounded[:, 1:] = (boxes[:, 1:] * 0.5 + 0.5).floor() + torch.tensor([0.0, 0, 1, 1])
    for mode in ("avg", "max"):
        actual = ops.roi_warp(input, boxes, 3, 0.5, 2, mode)
        torch.testing.assert_close(actual, ops.roi_align(input, rounded, 3, 1.0, 2, mode=mode))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
def test_pool_equals_torchvision_exactly(memory_format, dtype):
    input = torch.randint(0, 50, (2, 70, 25, 33)).to(dtype).contiguous(memory_format=memory_format)  # many ties
    boxes = random_boxes(80, 2, 100, 132, dtype=dtype)
    boxes[:20] = boxes[:20].round()
    actual, gradient = value_and_gradient(ops.roi_pool, input, boxes, (7, 5), 0.25)
    expected, expected_gradient = value_and_gradient(torchvision.ops.roi_pool, input, boxes, (7, 5), 0.25)
    assert torch.equal(actual, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "channels_last"])
def test_gradcheck(case: Case, memory_format):
    input = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    input = input.contiguous(memory_format=memory_format).requires_grad_()
    boxes = torch.tensor([[0, 0.3, 0.1, 4.2, 3.9], [0, 1.1, -0.7, 7.3, 2.2]], dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        return case.run(x, boxes, (2, 1), 0.9)

    assert torch.autograd.gradcheck(run, input)
    if case.linear:
        assert torch.autograd.gradgradcheck(run, input)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")  # deprecated by torch
@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8, torch.qint32], ids=str)
def test_quantized_tensors_as_torchvision_takes_them(dtype):
    input = torch.quantize_per_tensor(torch.randint(50, 100, (1, 2, 10, 10)).float(), 0.5, 50, dtype)
    corner = torch.randint(0, 5, (40, 2)).float()
    boxes = torch.cat((torch.zeros(40, 1), corner, corner + torch.randint(0, 5, (40, 2))), 1)
    boxes = torch.quantize_per_tensor(boxes, 0.5, 50, dtype)
    actual = ops.roi_align(input, boxes, 5, aligned=True)
    expected = torchvision.ops.roi_align(input, boxes, 5, aligned=True)
    assert actual.dtype == dtype
    difference = (actual.dequantize() - expected.dequantize()).abs()
    assert difference.max() <= 0.5  # at most one step of the quantization,
    assert (difference > 0).float().mean() < 0.05  # and that only for values midway between two
    with pytest.raises(ValueError, match="boxes must be a quantized tensor"):
        ops.roi_align(input, boxes.dequantize(), 5)
    two = torch.quantize_per_tensor(torch.ones(2, 2, 10, 10), 1.0, 0, dtype)
    with pytest.raises(ValueError, match="Only one image per batch is allowed"):
        ops.roi_align(two, boxes, 5)


def test_the_maximum_of_samples_propagates_nan_and_roi_pool_does_not():
    input = torch.zeros(1, 20, 6, 6)
    input[..., 3, 3] = float("nan")
    box = torch.tensor([[0, 1.0, 1.0, 5.0, 5.0]])
    assert ops.roi_align(input, box, 1, 1.0, 2, True, "max").isnan().all()
    assert not ops.roi_pool(input, box, 1).isnan().any()


@pytest.mark.parametrize("operator", [ops.roi_align, ops.roi_pool], ids=["align", "pool"])
def test_without_compiled_kernels_training_keeps_what_the_rois_need_and_not_rois_times_map(operator, monkeypatch):
    monkeypatch.setattr(native, "available", lambda device: False)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    map = torch.rand(1, 16, 100, 100, requires_grad=True)
    rois = random_boxes(200, 1, 100, 100, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        pooled = operator(map, rois, 7)
    of_cells = 200 * 16 * 100 * 7 * 4  # each RoI's rows of the map, pooled along one axis
    assert sum(kept.values()) < 0.5 * of_cells
    pooled.sum().backward()
    assert map.grad is not None
