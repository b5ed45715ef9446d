"""Mosaic and copy-paste: boxes and masks lie on the objects that are seen."""

from dataclasses import replace
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from torch import Tensor

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


class Coloured:
    """Images of several sizes with ellipses, each of a colour of its own, which is also its label plus one."""

    classes = tuple(f"object {i}" for i in range(60))
    category_ids = tuple(range(60))

    def __init__(self, masked: bool = True, crowd: bool = False, channels: int = 3) -> None:
        self.masked, self.crowd, self.channels = masked, crowd, channels
        self.has_masks = masked

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        size = (int(rng.integers(60, 100)), int(rng.integers(60, 100)))
        y, x = np.mgrid[: size[0], : size[1]] + 0.5
        image = np.zeros(size, np.uint8)
        for k in range(5):
            height, width = rng.uniform(12, 40, 2)
            cy, cx = (rng.uniform(n / 2, s - n / 2) for n, s in zip((height, width), size, strict=True))
            image[((y - cy) / height * 2) ** 2 + ((x - cx) / width * 2) ** 2 <= 1] = index * 5 + k + 1
        labels = np.unique(image)[1:]
        shapes = [torch.from_numpy(image == label) for label in labels]
        boxes = torch.stack([bounds(shape) for shape in shapes]).float()
        crowd = torch.zeros(len(labels), dtype=torch.bool)
        crowd[0] = self.crowd
        masks = Masks.from_dense(shapes, size) if self.masked else None
        target = Target(
            boxes, torch.from_numpy(labels.astype(np.int64)) - 1, crowd, torch.from_numpy(labels % 2 == 0), masks
        )
        return Sample(torch.from_numpy(image).expand(self.channels, *size).contiguous(), target, index, size)

    def ground_truth(self) -> dict[str, Any]:
        samples = [self[i] for i in range(len(self))]
        annotations = [
            {"image_id": s.id, "category_id": int(c), "iscrowd": int(o)}
            for s in samples
            for c, o in zip(s.target.labels, s.target.crowd, strict=True)
        ]
        return {"images": [{"id": s.id} for s in samples], "annotations": annotations, "categories": []}


def bounds(mask: Tensor) -> Tensor:
    rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


FLIPS = Augment(horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=True)
FIXED = Augment(horizontal_flip=0.5, fixed_size=(70, 80))


def mixed(mixing: list[Any], augment: Augment = FLIPS, epochs: int = 2, **options: Any) -> list[Sample]:
    dataset = Coloured(**options)
    for mix in mixing:
        mix.prepare(dataset)
    pool = Augmented(dataset, augment, 7, mixing)
    return [pool[Place(e, i)] for e in range(epochs) for i in range(len(dataset))]


def check(sample: Sample, least: float) -> None:
    """Boxes, masks and labels are those of the colours in the image; what has no label is little."""
    target = sample.target
    assert target.masks is not None
    assert target.masks.size == sample.size
    for box, label, mask, hard in zip(target.boxes, target.labels, dense(target.masks), target.difficult, strict=True):
        shown = sample.image[0] == label + 1
        assert bool(mask.any())
        assert bool(shown[mask].all())
        assert (box - bounds(mask)).abs().max() <= 1
        assert bool(hard) is bool((label + 1) % 2 == 0)
    covered = dense(target.masks).sum(0)
    assert int(covered.max()) <= 1  # nothing lies over anything
    objects = (sample.image[0] > 0) & (sample.image[0] < 100)
    assert int((objects & (covered == 0)).sum()) <= least * objects.sum()


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


def test_whole_boxes_are_pasted_without_masks() -> None:
    pasted = 0
    for sample, alone in zip(
        mixed([CopyPaste(1.0, max_objects=1)], FIXED, masked=False), mixed([], FIXED, masked=False), strict=True
    ):
        assert sample.target.masks is None
        new = set(sample.target.labels.tolist()) - set(alone.target.labels.tolist())
        for box, label in zip(sample.target.boxes, sample.target.labels.tolist(), strict=True):
            shown = sample.image[0] == label + 1
            if label in new and shown.any():  # other objects may lie over it within its box
                x1, y1, x2, y2 = bounds(shown).tolist()
                assert box[0] <= x1 + 1
                assert box[1] <= y1 + 1
                assert box[2] >= x2 - 1
                assert box[3] >= y2 - 1
        pasted += bool(new)
        changed = (sample.image != alone.image).any(0)
        if changed.any() and new:
            inside = torch.zeros_like(changed)
            for x1, y1, x2, y2 in sample.target.boxes[[c in new for c in sample.target.labels.tolist()]].int().tolist():
                inside[y1 : y2 + 1, x1 : x2 + 1] = True
            assert bool((changed & ~inside).sum() <= 0.5 * changed.sum())
    assert pasted > 6


def test_only_small_objects_or_rare_classes_are_pasted() -> None:
    dataset = Coloured()
    for mixing, allowed in (
        (CopyPaste(1.0, max_side=18), lambda t: (t.boxes[:, 2:] - t.boxes[:, :2]).prod(1).sqrt() <= 18.5),
        (CopyPaste(1.0, rare_threshold=1.0), None),
    ):
        new = 0
        for sample, alone in zip(mixed([mixing], FIXED), mixed([], FIXED), strict=True):
            is_new = torch.tensor([c not in alone.target.labels.tolist() for c in sample.target.labels.tolist()])
            if allowed is not None and is_new.any():
                assert bool(allowed(sample.target.select(is_new)).all())
            new += int(is_new.sum())
        assert new > 5
    once = CopyPaste(1.0, rare_threshold=0.2)
    once.prepare(dataset)  # each label is in one image of eight
    assert once.sources is not None
    assert once.sources.tolist() == list(range(8))
    with pytest.raises(ValueError, match=r"rare_threshold=0\.1 of the images; the rarest is in 0\.125"):
        CopyPaste(1.0, rare_threshold=0.1).prepare(dataset)


def test_rare_classes_come_from_the_images_that_have_them() -> None:
    class OneRare(Coloured):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            sample.target.labels[:] = 0
            sample.target.labels[0] = int(index == 3)
            return sample

    mix = CopyPaste(1.0, rare_threshold=0.5)
    mix.prepare(OneRare())
    pool = Augmented(OneRare(), FIXED, 0, [mix])
    for index in (0, 1, 2):
        counts = [int((pool[Place(e, index)].target.labels == 1).sum()) for e in range(6)]
        assert max(counts) == 1
        assert sum(counts) >= 4


def test_classes_to_paste_are_chosen_by_name() -> None:
    class Two(Coloured):
        def __init__(self) -> None:
            super().__init__()
            self.classes = ["person", "hard hat", *self.classes[2:]]

        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            sample.target.labels[:] = 0
            sample.target.labels[0] = int(index == 3)
            return sample

    mix = CopyPaste(1.0, classes=["hard hat"])
    mix.prepare(Two())
    pool = Augmented(Two(), FIXED, 0, [mix])
    for index in (0, 1, 2):
        own = int((Augmented(Two(), FIXED, 0)[Place(0, index)].target.labels == 0).sum())
        for sample in (pool[Place(e, index)] for e in range(6)):
            assert int((sample.target.labels == 0).sum()) <= own
        assert sum(int((pool[Place(e, index)].target.labels == 1).sum()) for e in range(6)) >= 4
    message = r"copy_paste: classes: there is no class 'hard hats' among \['person', .*; did you mean 'hard hat'\?"
    with pytest.raises(ValueError, match=message):
        CopyPaste(1.0, classes=["hard hats"]).prepare(Two())
    with pytest.raises(ValueError, match=f"no image has an object of \\['{Two().classes[2]}'\\] to paste"):
        CopyPaste(1.0, classes=[Two().classes[2]]).prepare(Two())
    with pytest.raises(ValueError, match=r"rare_threshold=0\.5 of the images; the rarest is in 1"):
        CopyPaste(1.0, classes=["person"], rare_threshold=0.5).prepare(Two())


def test_crowds_are_not_pasted_and_stay_where_they_are() -> None:
    kept = 0
    for sample, alone in zip(mixed([CopyPaste(1.0)], FIXED, crowd=True), mixed([], FIXED, crowd=True), strict=True):
        check(sample, 1.0)
        own = set(alone.target.labels[alone.target.crowd].tolist())
        for label in sample.target.labels[sample.target.crowd].tolist():
            kept += label in own
            assert label % 5 == 0 or label in own
    assert kept > 5


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
