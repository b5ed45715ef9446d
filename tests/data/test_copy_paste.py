"""Copy-paste: the objects that are chosen, and where they lie."""

import pytest
import torch

from detector.data.epochs import Place
from detector.data.mixing import CopyPaste
from detector.data.stream import Augmented
from detector.types import Sample
from tests.data.mixing_cases import FIXED, Coloured, bounds, check, mixed


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
