import json
import math
import weakref

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn.functional import grid_sample

from detector.masks import MaskOutput, Paste, paste, paste_on_whole_pixels, paste_probabilities
from detector.run_lengths import encode
from detector.types import Masks, Objects, Size, Target
from tests.conftest import dense


def paste_by_grid_sample(masks: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Detectron2's way, on the whole image at once, in float64."""
    height, width = size
    x1, y1, x2, y2 = (c[:, None] for c in boxes.double().unbind(1))
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - x1) / (x2 - x1) * 2 - 1
    n = len(masks)
    grid = torch.stack((x[:, None, :].expand(n, height, width), y[:, :, None].expand(n, height, width)), -1)
    return grid_sample(masks.double()[:, None], grid, align_corners=False)[:, 0]


def soft_of(masks: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """The probabilities over the whole image, [N, H, W]."""
    soft = torch.zeros(len(masks), *size, dtype=torch.float64)
    for image, (window, (x, y)) in zip(soft, paste_probabilities(masks, boxes, size), strict=True):
        image[y : y + window.shape[0], x : x + window.shape[1]] = window
    return soft


def random_boxes(n: int, size: Size, generator: torch.Generator) -> Tensor:
    height, width = size
    centre = torch.rand(n, 2, generator=generator) * torch.tensor([width, height]) * 1.4 - 0.2 * width
    half = torch.exp(torch.rand(n, 2, generator=generator) * 5 - 2)
    return torch.cat((centre - half, centre + half), 1)


@pytest.mark.parametrize("shape", [(28, 28), (14, 14), (1, 1), (3, 5)])
def test_paste_equals_grid_sample_on_the_whole_image(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(7)
    size = (37, 53)
    masks = torch.rand(60, *shape, generator=generator)
    boxes = random_boxes(60, size, generator)
    expected = paste_by_grid_sample(masks, boxes, size)
    soft = soft_of(masks, boxes, size)
    assert (soft > 0).any(0).any()
    torch.testing.assert_close(soft, expected, atol=1e-6, rtol=1e-6)
    far = (expected - 0.5).abs() > 1e-9
    hard = dense(paste(masks, boxes, size))
    assert hard.dtype == torch.bool
    assert torch.equal(hard[far], (expected >= 0.5)[far])


def test_full_mask_covers_the_pixels_whose_centres_lie_in_the_box() -> None:
    box = torch.tensor([[2.0, 1.0, 7.0, 4.0], [1.4, 0.6, 3.6, 2.4], [1.5, 0.0, 2.6, 1.0]])
    hard = dense(paste(torch.ones(3, 28, 28), box, (6, 9)))
    expected = torch.zeros(3, 6, 9, dtype=torch.bool)
    expected[0, 1:4, 2:7] = True  # whole pixels, no +1
    expected[1, 1:2, 1:4] = True  # centres 1.5, 2.5, 3.5 in x; 1.5 in y
    expected[2, 0:1, 1:3] = True  # a centre on the very edge reads exactly one half
    assert torch.equal(hard, expected)


def test_hand_worked_values() -> None:
    mask = torch.tensor([[0.0, 1.0], [0.5, 0.25]])
    soft = soft_of(mask[None], torch.tensor([[1.0, 0.0, 5.0, 4.0]]), (4, 6)).float()
    # cells are 2 pixels wide: the pixel centres lie at -0.75, -0.25, 0.25, ... cells from the first cell's centre
    rows = torch.tensor([[0.75, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 0.75]])
    columns = torch.tensor([[0.25, 0], [0.75, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 0.75], [0.0, 0.25]])
    expected = rows @ mask @ columns.T
    assert torch.allclose(soft[0], expected, atol=1e-7)


@pytest.mark.parametrize(
    "box",
    [
        [3.0, 3.0, 3.0, 8.0],
        [5.0, 5.0, 2.0, 2.0],
        [math.nan, 0.0, 5.0, 5.0],
        [0.0, 0.0, math.inf, 5.0],
        [-math.inf, 0.0, math.inf, 5.0],
        [50.0, 50.0, 60.0, 60.0],
        [-30.0, -30.0, -20.0, -20.0],
    ],
)
def test_boxes_without_a_pixel_give_nothing(box: list[float]) -> None:
    assert not paste(torch.ones(1, 28, 28), torch.tensor([box]), (10, 10)).dense(0).any()


def test_huge_box_fills_the_image() -> None:
    assert paste(torch.ones(1, 28, 28), torch.tensor([[-1e9, -1e9, 1e9, 1e9]]), (10, 12)).dense(0).all()


def test_no_objects_and_half_precision() -> None:
    assert len(paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6))) == 0
    boxes = torch.tensor([[0.3, 0.2, 4.1, 4.9]])
    mask = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(soft_of(mask, boxes, (5, 6)), soft_of(mask.float(), boxes, (5, 6)))


@pytest.mark.parametrize(("masks", "boxes"), [((2, 28, 28), (3, 4)), ((2, 1, 28, 28), (2, 4)), ((2, 28, 28), (2, 5))])
def test_shapes_that_do_not_fit(masks: tuple[int, ...], boxes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[N, 4\]"):
        paste(torch.zeros(masks), torch.zeros(boxes), (5, 5))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own, in decode
def test_encode_is_json_and_decodes_to_the_same_pixels() -> None:
    masks = torch.rand(5, 13, 17, generator=torch.Generator().manual_seed(1)) > 0.5
    masks[2] = False
    masks[3] = True
    rles = json.loads(json.dumps(encode(Masks.from_dense(masks, (13, 17)))))
    assert [rle["size"] for rle in rles] == [[13, 17]] * 5
    assert np.array_equal(coco_mask.decode(rles).transpose(2, 0, 1), masks.numpy())
    assert encode(Masks.from_dense(masks[:0], (13, 17))) == []


@pytest.mark.parametrize("way", [paste, paste_on_whole_pixels])
def test_masks_are_pasted_and_encoded_one_at_a_time(way: Paste) -> None:
    generator = torch.Generator().manual_seed(2)
    size = (60, 80)
    boxes = random_boxes(20, size, generator)
    objects = Objects(boxes, torch.ones(20), torch.zeros(20), torch.rand(20, 14, 14, generator=generator))
    pasted: list[weakref.ref[Tensor]] = []

    def watched(masks: Tensor, boxes: Tensor, size: Size) -> Masks:
        assert len(masks) == 1
        assert all(pixels() is None for pixels in pasted)
        result = way(masks, boxes, size)
        pasted.append(weakref.ref(result.pixels))
        return result

    assert objects.masks is not None
    assert MaskOutput(watched)(objects, size) == encode(way(objects.masks, boxes, size))
    assert len(pasted) == 20
    nothing = Objects(boxes[:0], torch.zeros(0), torch.zeros(0), objects.masks[:0])
    assert MaskOutput(way)(nothing, size) == []


def test_torchvision_s_paste_by_hand() -> None:
    # A box of 10.6 x 8.2 whose grid of 4 is one cell wider on each side: 15.9 x 12.3 from (0.35, 1.95), cut to (0, 1).
    box = torch.tensor([[3.0, 4.0, 13.6, 12.2]])
    mask = dense(paste_on_whole_pixels(torch.ones(1, 4, 4), box, (20, 30)))
    assert mask.dtype == torch.bool
    assert mask.shape == (1, 20, 30)
    rows, columns = mask[0].any(1).nonzero().flatten(), mask[0].any(0).nonzero().flatten()
    # 17 pixels for 6 cells: the ring of zeros and a half of it fade by pixel 2.83; in y 14 pixels, by 2.33.
    assert columns.tolist() == list(range(3, 14))
    assert rows.tolist() == list(range(3, 13))
    exact = dense(paste(torch.ones(1, 4, 4), box, (20, 30)))
    assert (exact != mask).any()
    assert len(paste_on_whole_pixels(torch.ones(0, 4, 4), box[:0], (20, 30))) == 0


def test_whether_masks_are_known_goes_with_them() -> None:
    masks = Masks.from_dense(torch.ones(3, 4, 5, dtype=torch.bool), (4, 5))
    assert masks.known.tolist() == [True] * 3
    some = Masks.from_windows(
        [masks.window(i) for i in range(3)], [(0, 0)] * 3, (4, 5), torch.tensor([True, False, True])
    )
    for keep in (torch.tensor([2, 1]), torch.tensor([False, True, True])):
        assert sorted(some.select(keep).known.tolist()) == [False, True]
    assert some.select(torch.tensor([1])).to("cpu").known.tolist() == [False]
    target = Target(torch.zeros(3, 4), torch.zeros(3).long(), torch.zeros(3).bool(), torch.zeros(3).bool(), some)
    chosen = target.select(torch.tensor([1, 0])).masks
    assert chosen is not None
    assert chosen.known.tolist() == [False, True]
