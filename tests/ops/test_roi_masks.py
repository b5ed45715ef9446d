"""RoIAlign of masks that are stored over windows, against RoIAlign on their whole images."""

import cuda_host
import pytest
import torch
from torch import Tensor

import ops
from ops import masks as roi_masks

SIZE = (37, 53)
Windows = tuple[Tensor, Tensor, Tensor]


def draw(count: int, seed: int = 0) -> tuple[Tensor, Windows]:
    """Masks [G, H, W] of blobs, some of which touch the edges or fill the image, one empty; and their windows."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.zeros(count, *SIZE, dtype=torch.bool)
    pixels, windows = [], []
    for i, mask in enumerate(dense):
        x1, x2 = torch.randint(0, SIZE[1] + 1, (2,), generator=generator).sort().values.tolist()
        y1, y2 = torch.randint(0, SIZE[0] + 1, (2,), generator=generator).sort().values.tolist()
        if i % 5 == 0:
            x1, y1, x2, y2 = 0, 0, SIZE[1], SIZE[0]
        mask[y1:y2, x1:x2] = torch.rand(y2 - y1, x2 - x1, generator=generator) < 0.7
        pixels.append(mask[y1:y2, x1:x2].reshape(-1))
        windows.append((x1, y1, x2, y2))
    lengths = torch.tensor([len(p) for p in pixels])
    return dense, (torch.cat(pixels), torch.tensor(windows), lengths.cumsum(0) - lengths)


def draw_boxes(count: int, seed: int = 1) -> Tensor:
    """Boxes of a pixel to three times the image, some on whole pixels, some off the image, some inside out."""
    generator = torch.Generator().manual_seed(seed)
    corners = (torch.rand(count, 2, 2, generator=generator) * 2.5 - 0.75) * torch.tensor(SIZE[::-1])
    boxes = corners.sort(1).values.flatten(1)
    boxes[::4] = boxes[::4].round()
    boxes[5::17] = boxes[5::17][:, [2, 3, 0, 1]]
    boxes[7::31] = torch.tensor([0, float("nan"), 5, float("inf")])
    return boxes


def on_whole_images(dense: Tensor, boxes: Tensor, index: Tensor, *rest: object) -> Tensor:
    rois = torch.cat((index[:, None].float(), boxes), 1)
    return ops.roi_align(dense[:, None].float(), rois, rest[0], 1.0, *rest[1:])[:, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [-1, 2])
@pytest.mark.parametrize("side", [28, (3, 5)])
def test_equals_roi_align_on_the_whole_image_to_the_last_bit(side, ratio, aligned):
    dense, windows = draw(20)
    boxes, index = draw_boxes(300), torch.randint(0, 20, (300,), generator=torch.Generator().manual_seed(2))
    share = ops.roi_align_masks(*windows, SIZE, boxes, index, side, ratio, aligned)
    assert torch.equal(share, on_whole_images(dense, boxes, index, side, ratio, aligned))
    assert ((share > 0) & (share < 1)).float().mean() > 0.05


def test_hand_worked_shares():
    """Two windows of an image of 4 x 6 pixels, the second one at the lower right corner."""
    pixels = torch.tensor([1, 1, 0, 1, 1, 1, 1, 1], dtype=torch.bool)
    windows = torch.tensor([[1, 0, 3, 2], [4, 2, 6, 4]])
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [1.0, 0.0, 3.0, 2.0], [4.0, 2.0, 6.0, 4.0], [0.0, 0.0, 6.0, 4.0]])
    share = ops.roi_align_masks(
        pixels, windows, torch.tensor([0, 4]), (4, 6), boxes, torch.tensor([0, 0, 1, 1]), 2, -1, True
    )
    assert share[1].tolist() == [[1, 1], [0, 1]]  # each bin is one pixel
    assert share[0].tolist() == [[0.5, 0.5], [0, 0.5]]  # each bin is one row of two pixels
    assert share[2].tolist() == [[1, 1], [1, 1]]
    assert share[3, 0].tolist() == [0, 0]
    assert share[3, 1, 1] == pytest.approx(4 / 6)  # four of the six pixels of the bin at the lower right


def test_masks_that_do_not_exist_give_zeros():
    _, windows = draw(3)
    share = ops.roi_align_masks(*windows, SIZE, draw_boxes(4).nan_to_num(0, 1), torch.tensor([-1, 3, 99, -5]), 7)
    assert share.shape == (4, 7, 7)
    assert not share.any()
    nothing = (
        torch.zeros(0, dtype=torch.bool),
        torch.zeros(0, 4, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64),
    )
    assert ops.roi_align_masks(*nothing, SIZE, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 7).shape == (
        0,
        7,
        7,
    )


def test_any_number_of_threads_gives_the_same():
    _, windows = draw(20)
    boxes, index = draw_boxes(200), torch.arange(200) % 20
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(ops.roi_align_masks(*windows, SIZE, boxes, index, 14, aligned=True))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("ratio", [-1, 2])
def test_without_compiled_kernels(ratio, monkeypatch):
    _, windows = draw(6)
    boxes, index = draw_boxes(60), torch.arange(60) % 7  # the mask 6 does not exist
    expected = ops.roi_align_masks(*windows, SIZE, boxes, index, (5, 6), ratio, True)
    monkeypatch.setattr(roi_masks.native, "available", lambda device: False)
    share = ops.roi_align_masks(*windows, SIZE, boxes, index, (5, 6), ratio, True)
    torch.testing.assert_close(share, expected)


@pytest.mark.parametrize("rule", ["align", "align_half"])
def test_cuda_on_the_host_adds_like_the_average_of_whole_images(rule):
    dense, windows = draw(12)
    boxes, index = draw_boxes(100), torch.randint(0, 12, (100,), generator=torch.Generator().manual_seed(2))
    share = cuda_host.operator("average_masks")(*windows, boxes, index, *SIZE, 6, 4, -1, rule)
    rois = torch.cat((index[:, None].float(), boxes), 1)
    cuda_host.assert_same(
        share, cuda_host.operator("average")([dense[:, None].float()], rois, None, [1.0], 6, 4, -1, rule)
    )


def test_fake_kernel_and_dispatch():
    _, windows = draw(4)
    arguments = (*windows, draw_boxes(9), torch.arange(9) % 4, *SIZE, 3, 2, -1, "align_half")
    torch.library.opcheck(torch.ops.aligned_rcnn.average_masks.default, arguments)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("pixels", torch.zeros(5), TypeError, "pixels must be torch.bool; got torch.float32"),
        ("windows", torch.zeros(3, 5, dtype=torch.int64), ValueError, r"windows must be \[N, 4\]; got shape \(3, 5\)"),
        ("windows", torch.zeros(3, 4), TypeError, "windows must be torch.int64; got torch.float32"),
        ("offsets", [0, 1, 2], TypeError, "offsets must be a tensor; got list"),
        ("offsets", torch.zeros(2, dtype=torch.int64), ValueError, "must be as many; got 2 and 3, 4 and 4"),
        ("index", torch.zeros(5, dtype=torch.int64), ValueError, "must be as many; got 3 and 3, 5 and 4"),
        ("size", (0, 5), ValueError, "size must be a height and a width of at least 1"),
        ("output_size", 0, ValueError, "output_size must be positive; got 0"),
    ],
)
def test_malformed_arguments(name, value, error, message):
    _, (pixels, windows, offsets) = draw(3)
    arguments = {"pixels": pixels, "windows": windows, "offsets": offsets, "size": SIZE, "boxes": torch.zeros(4, 4)}
    arguments |= {"index": torch.zeros(4, dtype=torch.int64), "output_size": 7, name: value}
    with pytest.raises(error, match=message):
        ops.roi_align_masks(**arguments)
