"""Augmentation against boxes computed by hand."""

import albumentations as A
import numpy as np
import pytest
import torch

from detector.data.augment import Augment
from detector.data.transforms import resized
from detector.types import Masks, Sample, Target
from tests.conftest import dense

H, W = 40, 60
BOXES = torch.tensor([[3.25, 5.5, 20.75, 17.125], [0.0, 0.0, 60.0, 40.0], [41.3, 22.7, 59.9, 39.1]])


def sample() -> Sample:
    masks = torch.zeros(3, H, W, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.round().int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, H, W), dtype=np.uint8))
    flags = torch.tensor([False, True, False])
    target = Target(BOXES.clone(), torch.tensor([4, 1, 2]), flags, ~flags, Masks.from_dense(masks, (H, W)))
    return Sample(image, target, "id", (H, W), BOXES[[2, 0]] + 0.05)


def flipped(boxes: torch.Tensor, width: float) -> torch.Tensor:
    return torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)


def test_without_arguments_nothing_changes():
    before = sample()
    assert Augment()(before, 1) is before


def test_horizontal_flip():
    before, after = sample(), Augment(horizontal_flip=1.0)(sample(), 0)
    assert torch.equal(after.image, before.image.flip(2))
    assert torch.equal(dense(after.target.masks), dense(before.target.masks).flip(2))
    torch.testing.assert_close(after.target.boxes, flipped(before.target.boxes, W), rtol=0, atol=1e-4)
    torch.testing.assert_close(after.proposals[1], flipped(before.proposals, W)[1], rtol=0, atol=1e-4)
    assert after.target.boxes.dtype == torch.float32
    assert after.target.labels.tolist() == [4, 1, 2]
    assert (after.id, after.original_size) == ("id", (H, W))


def test_vertical_flip_and_quarter_turns_keep_boxes_on_their_masks():
    augment = Augment(vertical_flip=0.5, horizontal_flip=0.5, quarter_turns=True)
    sizes, corners = set(), set()
    for seed in range(24):
        after = augment(sample(), seed)
        sizes.add(after.size)
        corners.add((after.size, *after.target.boxes[0].int().tolist()))
        for box, mask in zip(after.target.boxes, dense(after.target.masks), strict=True):
            rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
            tight = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert (box - tight).abs().max() <= 0.51
    assert sizes == {(H, W), (W, H)}
    assert len(corners) == 8  # every symmetry of the rectangle: the choices are independent of each other


def test_resize_scales_boxes_by_the_true_ratio():
    after = Augment([53], 70)(sample(), 0)
    assert after.size == (47, 70)
    scale = torch.tensor([70 / W, 47 / H] * 2)
    torch.testing.assert_close(after.target.boxes, BOXES * scale, rtol=0, atol=1e-4)
    assert (len(after.target.masks), after.target.masks.size) == (3, (47, 70))
    assert after.original_size == (H, W)
    assert after.image.dtype == torch.uint8


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((313, 640), 800, 1333, (652, 1333)),
        ((500, 375), 600, 1000, (800, 600)),
        ((500, 100), 600, 1000, (1000, 200)),
        ((192, 192), 192, None, (192, 192)),
        ((100, 300), 50, None, (50, 150)),
    ],
)
def test_shortest_edge_rule(size, short, longest, expected):
    assert resized(size, short, longest) == expected


def test_short_sizes_and_scale_are_all_drawn():
    assert {Augment([30, 40, 50])(sample(), s).size[0] for s in range(20)} == {30, 40, 50}
    heights = [Augment(scale=(0.5, 2.0))(sample(), s).size[0] for s in range(30)]
    assert 20 <= min(heights) < 30
    assert 60 < max(heights) <= 80


def test_a_crop_clips_boxes_and_drops_objects_in_step():
    dropped = 0
    for seed in range(20):
        before, after = sample(), Augment(crop=0.4)(sample(), seed)
        height, width = after.size
        # The window is where the image's pixels, all random, are found again.
        places = [
            (y, x)
            for y in range(H - height + 1)
            for x in range(W - width + 1)
            if torch.equal(before.image[:, y : y + height, x : x + width], after.image)
        ]
        assert len(places) == 1
        y, x = places[0]
        shift, limit = torch.tensor([x, y, x, y]), torch.tensor([width, height, width, height])

        def expected(boxes: torch.Tensor, shift=shift, limit=limit) -> tuple[torch.Tensor, torch.Tensor]:
            moved = torch.minimum((boxes - shift).clamp(min=0), limit)
            return moved, (moved[:, 2:] > moved[:, :2]).all(1)

        boxes, kept = expected(before.target.boxes)
        torch.testing.assert_close(after.target.boxes, boxes[kept], rtol=0, atol=1e-4)
        for field in ("labels", "crowd", "difficult"):
            assert torch.equal(getattr(after.target, field), getattr(before.target, field)[kept])
        masks = dense(before.target.masks)[kept, y : y + height, x : x + width]
        assert torch.equal(dense(after.target.masks), masks)
        proposals, near = expected(before.proposals)
        torch.testing.assert_close(after.proposals, proposals[near], rtol=0, atol=1e-4)
        dropped += int((~kept).sum())
    assert dropped > 0


def test_nothing_is_left_of_a_box_that_ends_where_the_crop_begins():
    left = torch.arange(57.0, -1, -1)
    columns = torch.stack((left, torch.zeros(58), left + 3, torch.full((58,), 40.0)), 1)
    flags = torch.zeros(58, dtype=torch.bool)
    counts = set()
    for seed in range(20):
        given = Sample(sample().image, Target(columns, torch.arange(58), flags, flags), "id", (H, W), columns)
        after = Augment(crop=0.3)(given, seed)
        assert (after.target.labels.diff() == 1).all()
        assert torch.equal(after.target.boxes, after.proposals)
        assert (after.proposals[:, 2:] - after.proposals[:, :2]).min() > 0.99  # the crop is one of whole pixels
        counts.add(len(after.target))
    assert len(counts) > 5


def test_the_seed_alone_decides():
    make = {"short_sizes": [40, 50], "horizontal_flip": 0.5, "vertical_flip": 0.5, "crop": 0.5, "colour": 0.4}
    first, second = Augment(**make), Augment(**make)
    for _ in range(3):
        second(sample(), 99)  # history does not matter
    images = []
    for seed in range(6):
        a, b = first(sample(), seed), second(sample(), seed)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target.boxes, b.target.boxes)
        images.append(a.image)
    assert any(not torch.equal(images[0], other) for other in images[1:])


def test_colour_leaves_geometry_alone():
    after = Augment(colour=0.5)(sample(), 3)
    assert not torch.equal(after.image, sample().image)
    torch.testing.assert_close(after.target.boxes, BOXES, rtol=0, atol=1e-5)


def test_images_without_objects_masks_or_proposals():
    bare = sample()
    bare.target, bare.proposals = bare.target.select(torch.zeros(3, dtype=torch.bool)), None
    after = Augment([20], horizontal_flip=1.0)(bare, 0)
    assert after.target.boxes.shape == (0, 4)
    assert (len(after.target.masks), after.target.masks.size) == (0, (20, 30))
    assert after.proposals is None
    bare.target.masks = None
    assert Augment([20])(bare, 0).target.masks is None
    given = sample()
    given.target = given.target.select(torch.zeros(3, dtype=torch.bool))
    assert Augment([20])(given, 0).proposals.shape == (2, 4)


def test_large_scale_jitter_crops_and_pads_to_a_fixed_size():
    augment = Augment([64], 64, scale=(0.1, 2.0), fixed_size=(48, 64), horizontal_flip=0.5)
    wide = 0
    for seed in range(40):
        before = sample()
        before.target.boxes = BOXES.round()  # as the masks are
        after = augment(before, seed)
        assert after.size == after.target.masks.size == (48, 64)
        assert after.image.dtype == torch.uint8
        sides = after.target.boxes[:, 2:] - after.target.boxes[:, :2]
        assert bool((sides >= 0.99).all())
        assert bool((after.target.boxes >= 0).all())
        assert bool((after.target.boxes <= torch.tensor([64, 48, 64, 48])).all())
        for box, mask in zip(after.target.boxes, dense(after.target.masks), strict=True):
            rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
            tight = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert (box - tight).abs().max() <= 1
        whole = after.target.boxes[after.target.labels == 1]  # the object that fills the image shows where it is
        right, bottom = (whole[0, 2:] + 0.5).int().tolist()
        assert bool((after.image[:, bottom:] == 128).all())
        assert bool((after.image[:, :, right:] == 128).all())
        assert not bool((after.image[:, :bottom, :right] == 128).all())
        wide += (bottom, right) == (48, 64)
    assert 10 < wide < 30


def test_large_scale_jitter_drops_what_has_no_pixel_left():
    small = sample()
    small.target = Target(
        torch.tensor([[10.0, 10, 13, 13], [20.0, 20, 60, 40]]), torch.tensor([7, 8]), *torch.zeros(2, 2).bool(),
        Masks.from_dense(torch.stack([(torch.arange(60) == 11).expand(40, 60) & (torch.arange(40) == 11)[:, None],
                                      (torch.arange(60) >= 20).expand(40, 60)]), (40, 60)),
    )  # fmt: skip
    for factor, left in ((1.0, [7, 8]), (0.2, [8])):
        assert Augment(scale=(factor, factor), fixed_size=(40, 60))(small, 0).target.labels.tolist() == left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"short_sizes": []}, "short_sizes"),
        ({"short_sizes": [0]}, "short_sizes"),
        ({"short_sizes": [800], "max_size": 600}, "max_size 600"),
        ({"scale": (2.0, 1.0)}, "scale"),
        ({"crop": 0.0}, "crop"),
        ({"fixed_size": [100]}, "fixed_size"),
        ({"fixed_size": [100, 0]}, "fixed_size"),
        ({"colour": 1.5}, "colour"),
        ({"horizontal_flip": 1.5}, "horizontal_flip"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)


def many_objects(seed: int) -> Sample:
    """Twelve objects with random masks, which are empty, touch the edges, or leave their boxes."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(20, 90)), int(rng.integers(20, 90)))
    masks = torch.zeros(12, *size, dtype=torch.bool)
    for mask in masks[1:]:
        (y1, y2), (x1, x2) = (np.sort(rng.integers(0, side + 1, 2)) for side in size)
        mask[y1:y2, x1:x2] = torch.from_numpy(rng.random((y2 - y1, x2 - x1)) < 0.8)
    corners = rng.uniform(0, 0.7, (12, 2)) * size[::-1]
    boxes = np.concatenate((corners, corners + rng.uniform(2, 0.3 * np.array(size[::-1]), (12, 2))), 1)
    flags = torch.zeros(12, dtype=torch.bool)
    held = Masks.from_dense(masks, size)
    held.known = torch.arange(12) % 3 > 0
    target = Target(torch.tensor(boxes).float(), torch.arange(12), flags, flags, held)
    image = torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))
    return Sample(image, target, seed, size)


@pytest.mark.parametrize(
    "augment",
    [
        Augment([40, 57, 111], 130, horizontal_flip=0.5),
        Augment(horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=True, crop=0.3, scale=(0.3, 2.5)),
        Augment([64], quarter_turns=True, extra=[A.GaussNoise(p=1.0)]),
        Augment([90], scale=(0.3, 2.0), fixed_size=(70, 80), horizontal_flip=0.5),
        Augment([64], crop=0.6, horizontal_flip=0.5, extra=[A.Affine(rotate=(-40, 40), scale=(0.6, 1.5), p=1.0)]),
        Augment(quarter_turns=True, extra=[A.ElasticTransform(alpha=40, sigma=5, p=1.0), A.Perspective(p=0.5)]),
    ],
)
def test_masks_go_where_albumentations_moves_whole_ones(augment):
    """The same transforms with the same seeds, on all masks as images."""
    moved = 0
    for seed in range(25):
        before = many_objects(seed)
        after = augment(before, seed)
        seeds = np.random.SeedSequence(seed).generate_state(len(augment.transforms))
        for transform, own in zip(augment.transforms, seeds, strict=True):
            transform.set_random_seed(int(own))
        masks = dense(before.target.masks).numpy().astype(np.uint8)
        image = np.ascontiguousarray(before.image.permute(1, 2, 0).numpy())
        whole = augment.compose(image=image, masks=masks, bboxes=before.target.boxes.numpy(), index=np.arange(12))
        height, width = whole["image"].shape[:2]  # what is beyond is padding
        assert np.array_equal(after.image.permute(1, 2, 0).numpy()[:height, :width], whole["image"])
        expected = torch.from_numpy(np.stack(whole["masks"])).bool()[after.target.labels]
        assert after.target.masks.size == after.size
        assert torch.equal(dense(after.target.masks)[:, :height, :width], expected)
        assert dense(after.target.masks).sum() == expected.sum()
        assert torch.equal(after.target.masks.known, after.target.labels % 3 > 0)
        moved += int(expected.any(2).any(1).sum())
    assert moved > 50


def test_objects_that_are_mostly_outside_of_a_window_are_ignored():
    """Shares of boxes left in random windows, after resizing and turning, computed from where the windows begin."""
    boxes = torch.tensor([[10.0, 10.0, 30.0, 20.0], [40.0, 5.0, 44.0, 35.0], [2.0, 30.0, 58.0, 38.0]])
    flags = torch.tensor([False, False, True])
    rows = torch.arange(H, dtype=torch.uint8)[:, None].expand(H, W)
    columns = torch.arange(W, dtype=torch.uint8)[None].expand(H, W)
    one = Sample(
        torch.stack((rows, columns, rows)), Target(boxes, torch.arange(3), flags, ~flags & False), "id", (H, W)
    )
    ignored = kept = 0
    for seed in range(60):
        after = Augment(fixed_size=(24, 24), min_inside=0.5)(one, seed)
        y, x = (int(after.image[i, 0, 0]) for i in (0, 1))
        window = torch.tensor([x, y, x + 24, y + 24]).float()
        side = (torch.minimum(boxes[:, 2:], window[2:]) - torch.maximum(boxes[:, :2], window[:2])).clamp(min=0)
        share = side.prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
        expected = {int(i): bool(flags[i] or share[i] < 0.5) for i in torch.nonzero((side >= 1).all(1))[:, 0]}
        assert dict(zip(after.target.labels.tolist(), after.target.crowd.tolist(), strict=True)) == expected
        ignored += sum(expected.values())
        kept += len(expected) - sum(expected.values())
        larger = Augment([80], fixed_size=(48, 48), quarter_turns=True, min_inside=0.5)(one, seed)
        side = larger.target.boxes[:, 2:] - larger.target.boxes[:, :2]
        whole = 4 * (boxes[:, 2:] - boxes[:, :2]).prod(1)[larger.target.labels]
        assert torch.equal(larger.target.crowd, flags[larger.target.labels] | (side.prod(1) < 0.5 * whole))
    assert min(ignored, kept) > 20
    plain = [Augment(fixed_size=(24, 24))(one, seed).target for seed in range(10)]
    assert all(torch.equal(target.crowd, flags[target.labels]) for target in plain)


def test_min_inside_out_of_range():
    with pytest.raises(ValueError, match=r"min_inside must be a share of a box from 0 to 1, not 1\.5"):
        Augment(min_inside=1.5)
    with pytest.raises(ValueError, match="leave out transforms of `extra` that move pixels"):
        Augment(min_inside=0.5, extra=[A.Affine(scale=2.0)])
