"""Mosaic and copy-paste: boxes and masks lie on the objects that are seen."""

from dataclasses import replace
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch

from detector.config.build import build_mixing, pastes_masks
from detector.data.augment import Augment
from detector.data.datamodule import DetectionDataModule
from detector.data.epochs import Place
from detector.data.mixing import CopyPaste, Mosaic
from detector.data.stream import Augmented
from detector.data.visible import join, seen
from detector.types import Masks, Sample, Target
from detector.weights.checkpoints import portable_config
from detector.weights.trust import check_targets
from tests.conftest import compose_config, dense
from tests.data.mixing_cases import FIXED, FLIPS, Coloured, bounds, check, mixed


@pytest.mark.parametrize("augment", [FLIPS, Augment(fixed_size=(50, 66)), Augment(extra=[A.RandomCrop(50, 50, p=1.0)])])
@pytest.mark.parametrize(
    "mixing",
    [
        [CopyPaste(1.0, min_visible=0.0)],
        [Mosaic(1.0, scale=(1.0, 1.0), min_visible=0.0)],
        [Mosaic(0.5, scale=(1.0, 1.0), min_visible=0.0), CopyPaste(0.5, max_objects=2, min_visible=0.0)],
    ],
)  # fmt: skip
def test_boxes_and_masks_lie_on_what_is_seen(augment: Augment, mixing: list[Any]) -> None:
    changed = 0
    plain = mixed([], augment)
    for sample, alone in zip(mixed(mixing, augment), plain, strict=True):
        assert (sample.id, sample.size, sample.original_size) == (alone.id, alone.size, alone.original_size)
        assert (sample.image.dtype, sample.image.shape) == (alone.image.dtype, alone.image.shape)
        check(sample, 0.0)
        changed += not torch.equal(sample.image, alone.image)
    assert changed >= 8


def test_small_rests_are_dropped() -> None:
    for mixing in ([CopyPaste(1.0, min_visible=0.4)], [Mosaic(1.0, scale=(1.0, 1.0), min_visible=0.4)]):
        whole = {int(v): 0 for v in range(60)}
        dataset = Coloured()
        for index in range(len(dataset)):
            for label, mask in zip(dataset[index].target.labels, dense(dataset[index].target.masks), strict=True):
                whole[int(label)] = int(mask.sum())
        shares = []
        for sample in mixed(mixing, Augment(horizontal_flip=0.5)):
            check(sample, 1.0)
            labels = sample.target.labels.tolist()
            shares += [int(m.sum()) / whole[c] for c, m in zip(labels, dense(sample.target.masks), strict=True)]
        assert 0.4 <= min(shares) < 0.6
        assert max(shares) == 1


def test_a_scaled_mosaic_shows_objects_where_their_boxes_are() -> None:
    seen_labels = 0
    for sample in mixed([Mosaic(1.0, scale=(0.5, 1.0))], Augment(horizontal_flip=0.5)):
        for box, mask in zip(sample.target.boxes, dense(sample.target.masks), strict=True):
            if mask.any():
                assert (box - bounds(mask)).abs().max() <= 1.05  # a pixel, and the box's fractions
        seen_labels += len(sample.target)
        grey = (sample.image == 128).all(0)
        assert bool((~grey).any())
        assert not bool((dense(sample.target.masks).any(0) & grey).any())
    assert seen_labels > 80


def test_edges_move_only_where_something_is_hidden() -> None:
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[4:12, 5:15] = True
    flags = torch.zeros(3, dtype=torch.bool)
    boxes = torch.tensor([[4.75, 4.25, 15.5, 11.75], [20.0, 2.0, 28.0, 10.0], [4.75, 4.25, 15.5, 11.75]])
    masks = Masks.from_dense(torch.stack([mask, torch.zeros_like(mask), mask]), (20, 30))
    target = Target(boxes, torch.arange(3), flags, ~flags, masks)
    region = np.ones((20, 30), bool)
    region[:, 12:] = False  # the right part is hidden
    left = seen(target, (20, 30), region, (0, 0), 0.5)
    assert left.labels.tolist() == [0, 2]
    assert left.boxes[0].tolist() == [4.75, 4.25, 12.0, 11.75]
    assert int(dense(left.masks)[0].sum()) == 8 * 7
    assert seen(target, (20, 30), region, (0, 0), np.array([0.8, 0.1, 0.1])).labels.tolist() == [2]
    region[:, 12:] = True
    region[6:8, 7:9] = False  # a hole moves nothing
    hole = seen(target, (20, 30), region, (0, 0), 0.1)
    assert torch.equal(hole.boxes, target.boxes)
    assert dense(hole.masks).sum((1, 2)).tolist() == [76, 0, 76]  # without a mask, the box counts
    shifted = seen(target, (20, 30), np.ones((20, 30), bool), (-8, 2), 0.1)
    assert shifted.boxes[:2].tolist() == [[6.75, 0.0, 17.5, 3.75], [22.0, 0.0, 30.0, 2.0]]
    crowded = replace(target, crowd=~flags)
    region[:] = False
    region[4, 5] = True
    assert seen(crowded, (20, 30), region, (0, 0), 0.5).boxes[0].tolist() == [4.75, 4.25, 6.0, 5.0]
    assert len(seen(target, (20, 30), region, (0, 0), 0.5)) == 0


def test_proposals_move_with_a_mosaic() -> None:
    class Given(Coloured):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return replace(sample, proposals=sample.target.boxes.clone())

    mosaic = Mosaic(1.0, scale=(0.7, 1.0), min_visible=0.0)
    mosaic.prepare(Given())
    pool = Augmented(Given(masked=False), FIXED, 0, [mosaic])
    for index in range(8):
        sample = pool[Place(0, index)]
        assert sample.proposals is not None
        assert len(sample.proposals) >= len(sample.target)
        for box in sample.target.boxes:
            assert (sample.proposals - box).abs().max(1).values.min() <= 1
    with pytest.raises(ValueError, match="copy_paste: given proposals do not know of pasted objects"):
        CopyPaste(1.0).prepare(Given())


def test_other_annotations_are_refused() -> None:
    class Keypoints(Coloured):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return replace(
                sample, target=replace(sample.target, extra={"keypoints": torch.zeros(len(sample.target), 3)})
            )

    for mix in (Mosaic(0.1), CopyPaste(0.1)):
        with pytest.raises(ValueError, match=r"cannot move keypoints of the objects.*p=0"):
            mix.prepare(Keypoints())
    CopyPaste(0.0).prepare(Keypoints())


def test_any_number_of_channels_and_floats() -> None:
    class Floats(Coloured):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return replace(sample, image=sample.image.float())

    for mix in (Mosaic(1.0, scale=(1.0, 1.0)), CopyPaste(1.0)):
        whole = Augmented(Coloured(), Augment(), 0, [mix])[Place(0, 1)]
        five = Augmented(Floats(channels=5), Augment(), 0, [mix])[Place(0, 1)]
        assert five.image.dtype == torch.float32
        assert five.image.shape == (5, *whole.size)
        assert torch.equal(five.image[4], whole.image[0].float())


@pytest.mark.parametrize("mixing", [Mosaic(1.0), CopyPaste(1.0)])
def test_depths_of_one_set_are_mixed_in_a_type_that_holds_both(mixing: Any) -> None:
    sides = torch.tensor([[2.0, 2.0, 30.0, 30.0]])
    flags = torch.zeros(1, dtype=torch.bool)
    plain, deep = (
        Sample(image, Target(sides, torch.zeros(1, dtype=torch.int64), flags, flags), 1, (40, 40))
        for image in (torch.full((3, 40, 40), 200, dtype=torch.uint8), torch.full((3, 40, 40), 300.5))
    )

    class Deep:
        def __len__(self) -> int:
            return 5

        def read(self, index: int, seed: int) -> Sample:
            return deep

    found = mixing(plain, Deep(), np.random.default_rng(0)).image
    assert found.dtype == torch.float32
    assert found.max() == 300.5
    assert 200 in found.unique()


def test_without_probability_nothing_changes() -> None:
    for sample, alone in zip(mixed([Mosaic(0.0), CopyPaste(0.0)]), mixed([]), strict=True):
        assert torch.equal(sample.image, alone.image)
        assert torch.equal(sample.target.boxes, alone.target.boxes)


def test_workers_and_resumption_give_the_same_batches() -> None:
    def batches(workers: int, start: int = 0) -> list[Any]:
        data = DetectionDataModule(
            Coloured(), Coloured(), FIXED, Augment(), steps=6, batch_size=4, workers=workers, seed=2,
            mixing=[Mosaic(0.5), CopyPaste(0.5)],
        )  # fmt: skip
        loader = data.train_dataloader()
        loader.load_state_dict({"position": start})
        return [(b.ids, b.images.numpy().tobytes(), [t.boxes.tolist() for t in b.targets]) for b in loader]

    whole = batches(0)
    assert batches(2) == whole
    assert batches(1, start=3) == whole[3:]


def test_targets_are_joined() -> None:
    one, two = Coloured()[0], Coloured()[1]
    size = (120, 120)
    region = np.ones(size, bool)
    parts = [seen(s.target, s.size, region, (10, 15), 0.0) for s in (one, two)]
    both = join(parts, size)
    assert both.labels.tolist() == [*one.target.labels.tolist(), *two.target.labels.tolist()]
    expected = torch.zeros(len(both), *size, dtype=torch.bool)
    for row, mask in enumerate([*dense(one.target.masks), *dense(two.target.masks)]):
        expected[row, 10 : 10 + mask.shape[0], 15 : 15 + mask.shape[1]] = mask
    assert torch.equal(dense(both.masks), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mosaic(1.5), "mosaic: p must be from 0 to 1, not 1.5"),
        (lambda: Mosaic(centre=(0.0, 1.0)), "centre"),
        (lambda: Mosaic(scale=(2.0, 1.0)), "scale"),
        (lambda: CopyPaste(-0.1), "copy_paste: p"),
        (lambda: CopyPaste(min_visible=2.0), "min_visible"),
        (lambda: CopyPaste(max_objects=0), "max_objects"),
        (lambda: CopyPaste(max_side=0.5), "max_side"),
        (lambda: CopyPaste(rare_threshold=0.0), "rare_threshold"),
        (lambda: CopyPaste(classes="helmet"), r"classes must be a list of names, such as \[helmet\], not 'helmet'"),
        (lambda: CopyPaste(classes=[]), "classes must be a list"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_configuration_builds_them() -> None:
    chosen = "dataset.mixing.copy_paste.classes=[ring,cross]"
    config = compose_config("dataset.mixing.mosaic.p=0.3", "dataset.mixing.copy_paste.rare_threshold=0.1", chosen)
    mosaic, paste = build_mixing(config.dataset)
    assert (mosaic.p, paste.p, paste.rare_threshold) == (0.3, 0.0, 0.1)
    assert paste.classes == ["ring", "cross"]
    check_targets(portable_config(config), "own")
    assert not pastes_masks(config.dataset, "train")
    on = compose_config("dataset.mixing.copy_paste.p=0.3", "dataset.mixing.mosaic=null")
    assert [type(part) for part in build_mixing(on.dataset)] == [CopyPaste]
    assert pastes_masks(on.dataset, "train")
    assert not pastes_masks(on.dataset, "val")
    del on.dataset.mixing
    assert build_mixing(on.dataset) == []
