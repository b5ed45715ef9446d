"""What an epoch holds: permutations, repeated images of rare classes, a share of images without objects."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.config.build import complete_dataset
from detector.data.augment import Augment
from detector.data.datamodule import DetectionDataModule
from detector.data.epochs import Epochs, class_frequencies, epochs_of, present_classes, repeat_factors
from detector.data.shapes import ShapesDataset
from detector.types import Sample
from tests.conftest import compose_config
from tests.data.test_datamodule import Numbers

PRESENT = np.array([[1, 0, 0]] * 6 + [[1, 1, 0]] * 2 + [[0, 0, 0]] * 4, dtype=bool)
"""Eight images with objects, of which class 1 is in two; class 2 occurs nowhere."""


class Rare(Numbers):
    """Twelve images of which two hold a rare class and four none."""

    classes = ("often", "rare", "never")
    category_ids = (3, 5, 9)

    def __init__(self) -> None:
        super().__init__(len(PRESENT))

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        sample.target.labels[:] = int(PRESENT[index, 1])
        return Sample(
            sample.image, sample.target.select(sample.target.labels < PRESENT[index].sum()), index, sample.size
        )

    def ground_truth(self) -> dict[str, Any]:
        images = [{"id": 100 - i} for i in range(len(PRESENT))]
        annotations = [
            {"image_id": 100 - int(i), "category_id": self.category_ids[c]}
            for i, c in zip(*PRESENT.nonzero(), strict=True)
        ]
        crowd = {"image_id": 100 - 11, "category_id": 9, "iscrowd": 1}
        return {"images": images, "annotations": [*annotations, crowd], "categories": []}


def indices(epochs: Epochs, epoch: int) -> list[int]:
    return [epochs.place(p).index for p in range(epoch * len(epochs), (epoch + 1) * len(epochs))]


def test_without_settings_the_order_is_that_of_numpys_permutations() -> None:
    epochs = Epochs(7, 5)
    for epoch in range(3):
        assert indices(epochs, epoch) == np.random.default_rng((5, epoch)).permutation(7).tolist()
        assert [epochs.place(epoch * 7 + p).copy for p in range(7)] == [0] * 7


def test_repeat_factors_are_lvis() -> None:
    assert class_frequencies(PRESENT).tolist() == [1.0, 0.25, 0.0]
    factors = repeat_factors(PRESENT, 1.0)
    assert factors.tolist() == [1.0] * 6 + [2.0] * 2 + [1.0] * 4
    assert repeat_factors(PRESENT, 0.5)[6] == pytest.approx(2**0.5)
    assert (repeat_factors(PRESENT, 0.25) == 1).all()
    for threshold in (0.0, 1.5, -1.0, "often"):
        with pytest.raises(ValueError, match=f"repeat_threshold.*{threshold}"):
            repeat_factors(PRESENT, threshold)


def test_classes_are_read_from_the_ground_truth(tmp_path: Path) -> None:
    assert np.array_equal(present_classes(Rare()), PRESENT)
    shapes = ShapesDataset(tmp_path / "shapes", "train", shares=[0.4, 0.3, 0.3], size_bins=[16, 48], image_size=192,
                           train=6, val=1, seed=0)  # fmt: skip
    for row, sample in zip(present_classes(shapes), (shapes[i] for i in range(len(shapes))), strict=True):
        assert set(np.flatnonzero(row)) == set(sample.target.labels.tolist())


def test_fractions_are_rounded_by_the_seed() -> None:
    repeats = np.array([1.0] * 20 + [2.3] * 10 + [1.71] * 3)
    epochs = Epochs(33, 1, repeats=repeats)
    assert len(epochs) == round(repeats.sum()) == 48
    totals = np.zeros(33)
    for epoch in range(300):
        counts = Counter(indices(epochs, epoch))
        assert set(counts) == set(range(33))  # none is left out
        assert all(counts[i] in (1, 2) for i in (*range(20), 30, 31, 32))
        assert all(counts[i] in (2, 3) for i in range(20, 30))
        totals += [counts[i] for i in range(33)]
    means = totals / 300
    assert np.abs(means - repeats).max() < 0.12
    places = [epochs.place(p) for p in range(48)]
    assert len(set(places)) == 48  # repetitions are told apart, and so are augmented differently
    again = Epochs(33, 1, repeats=repeats)
    assert [again.place(p) for p in range(47, -1, -1)] == places[::-1]


def test_empty_images_are_a_share_and_change_from_epoch_to_epoch() -> None:
    empty = np.arange(100) >= 60
    epochs = Epochs(100, 0, empty=empty, empty_share=0.25)
    assert len(epochs) == 80
    drawn = []
    for epoch in range(8):
        found = indices(epochs, epoch)
        assert sorted(i for i in found if i < 60) == list(range(60))
        drawn.append(frozenset(i for i in found if i >= 60))
        assert len(drawn[-1]) == 20
    assert len(set(drawn)) == 8
    assert frozenset.union(*drawn) == frozenset(range(60, 100))
    assert len(Epochs(100, 0, empty=empty, empty_share=0.9)) == 100  # all there are
    assert len(Epochs(100, 0, empty=empty, empty_share=0.0)) == 60
    for share in (1.0, -0.1, "few"):
        with pytest.raises(ValueError, match=f"empty_share.*{share}"):
            Epochs(100, 0, empty=empty, empty_share=share)
    with pytest.raises(ValueError, match="no image of the training set"):
        Epochs(3, 0, empty=np.ones(3, bool), empty_share=0.5)


def test_both_together() -> None:
    epochs = epochs_of(Rare(), 0, repeat_threshold=1.0, empty_share=1 / 6)
    assert (epochs.filled, epochs.empties) == (10, 2)
    counts = Counter(indices(epochs, 0))
    assert [counts[i] for i in range(8)] == [1] * 6 + [2] * 2
    assert epochs.summary() == (
        "An epoch has 12 images; 2 images are repeated, up to 2.0 times; 2 of 4 images without objects are drawn"
    )
    assert len(epochs_of(Rare(), 0)) == 12


def module(workers: int) -> DetectionDataModule:
    return DetectionDataModule(
        Rare(), Rare(), Augment(horizontal_flip=0.5), Augment(), steps=8, batch_size=3, workers=workers, seed=3,
        repeat_threshold=1.0, empty_share=0.2,
    )  # fmt: skip


def test_workers_and_resumption_give_the_same_batches() -> None:
    def seen(workers: int, start: int = 0) -> list[Any]:
        loader = module(workers).train_dataloader()
        loader.load_state_dict({"position": start})
        return [(batch.ids, [t.boxes.tolist() for t in batch.targets]) for batch in loader]

    whole = seen(0)
    assert seen(2) == whole
    assert seen(1, start=5) == whole[5:]


def test_repetitions_are_flipped_independently() -> None:
    data = module(0)
    loader = data.train_dataloader()
    seeds = set()
    for position in range(len(data.epochs) * 6):
        where = data.epochs.place(position)
        if where.index in (6, 7):
            seeds.add((where.epoch, where.index, where.copy, loader.dataset[where].target.boxes[0, 0].item()))
    assert len(seeds) == 24
    by_copy = {}
    for epoch, index, copy, left in seeds:
        by_copy.setdefault((epoch, index), {})[copy] = left
    assert any(pair[0] != pair[1] for pair in by_copy.values())


def test_a_share_keeps_the_images_that_it_draws_from() -> None:
    for overrides, kept in (((), False), (("dataset.empty_share=0.1",), True)):
        dataset = compose_config("dataset=coco", *overrides).dataset
        complete_dataset(dataset)
        assert dataset.train.keep_empty is kept
    complete_dataset(compose_config("dataset=shapes", "dataset.empty_share=0.1").dataset)  # it has no such key
