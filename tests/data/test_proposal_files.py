"""Proposals from files, and what becomes of them on their way to the model."""

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.data.augment import Augment
from detector.data.collate import collate
from detector.data.datamodule import DetectionDataModule
from detector.data.proposal_files import ImageProposals, attach_proposals, read_proposals, write_proposals
from detector.types import Sample, Target

SIZE = (40, 60)


class Images:
    """A dataset of images of one size, with the ids given."""

    classes = ("thing",)
    category_ids = (1,)
    has_masks = False

    def __init__(self, *ids: int | str) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        flag = torch.zeros(1, dtype=torch.bool)
        target = Target(torch.tensor([[1.0, 2.0, 10.0, 12.0]]), torch.zeros(1, dtype=torch.int64), flag, flag)
        return Sample(torch.zeros(3, *SIZE, dtype=torch.uint8), target, self.ids[index], SIZE)

    def ground_truth(self) -> dict[str, Any]:
        images = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in self.ids]
        return {"images": images, "annotations": [], "categories": []}


def some(split: str, image: int | str, count: int, seed: int = 0) -> ImageProposals:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 20
    boxes = torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=generator) * 15), 1)
    return ImageProposals(split, image, boxes, torch.rand(count, generator=generator).sort(descending=True).values)


@pytest.mark.parametrize("ending", [".npz", ".json"])
@pytest.mark.parametrize("ids", [(7, 2, 139), ("000007", "2008_000002", "x.y")])
def test_what_is_written_is_read_to_the_last_bit(ending: str, ids: tuple[int | str, ...], tmp_path: Path) -> None:
    path = tmp_path / "deep" / f"proposals{ending}"
    train = [some("train", image, count, count) for image, count in zip(ids, (5, 1, 40), strict=True)]
    val = [some("val", ids[0], 3, 9)]  # the same id in another split is another image
    write_proposals(path, [*train, *val])
    for split, images in (("train", train), ("val", val)):
        found = read_proposals(path, split)
        assert list(found.rows) == [image.id for image in images]
        for image in images:
            assert found[image.id].dtype == torch.float32
            assert torch.equal(found[image.id], image.boxes)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_no_half_of_a_file_is_left(tmp_path: Path) -> None:
    before = [some("train", 1, 2)]
    for ending in (".npz", ".json"):
        path = tmp_path / f"proposals{ending}"
        write_proposals(path, before)
        with pytest.raises(AttributeError):
            write_proposals(path, [*before, None])  # type: ignore[list-item]
        assert torch.equal(read_proposals(path, "train")[1], before[0].boxes)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_image_may_have_none_in_an_npz(tmp_path: Path) -> None:
    images = [some("val", i, count) for i, count in ((1, 0), (2, 2), (3, 0), (4, 1), (5, 0))]
    write_proposals(tmp_path / "p.npz", images)
    found = read_proposals(tmp_path / "p.npz", "val")
    assert [len(found[i]) for i in range(1, 6)] == [0, 2, 0, 1, 0]
    with pytest.raises(ValueError, match="numbers and strings"):
        write_proposals(tmp_path / "p.npz", [some("val", 1, 1), some("val", "a", 1)])


def entry(image: Any, box: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "bbox": box, **more}


def test_the_best_come_first_and_equals_stay_in_order(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    scores = [(1, 0.2), (2, 0.9), (1, 0.7), (1, 0.2), (2, 0.1), (1, 0.9)]
    rows = [entry(image, [i, i, 5, 6], score=score) for i, (image, score) in enumerate(scores)]
    path.write_text(json.dumps(rows))
    for split in ("train", "val"):  # without splits it serves both
        found = read_proposals(path, split)
        assert found[1].tolist() == [[i, i, i + 5, i + 6] for i in (5, 2, 0, 3)]
        assert found[2][:, 0].tolist() == [1, 4]
    path.write_text(json.dumps([{k: v for k, v in row.items() if k != "score"} for row in rows]))
    assert read_proposals(path, "val")[1][:, 0].tolist() == [0, 2, 3, 5]
    arrays = {"ids": np.array([1, 2]), "counts": np.array([2, 3]), "boxes": np.arange(20.0).reshape(5, 4)}
    np.savez(tmp_path / "p.npz", scores=np.array([0.1, 0.5, 0.6, 0.9, 0.7]), **arrays)
    found = read_proposals(tmp_path / "p.npz", "train")
    assert (found[1][:, 0].tolist(), found[2][:, 0].tolist()) == ([4, 0], [12, 16, 8])
    np.savez(tmp_path / "p.npz", **arrays)
    assert read_proposals(tmp_path / "p.npz", "train")[2][:, 0].tolist() == [8, 12, 16]


GOOD = entry(1, [0, 0, 5, 5], score=0.5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["not JSON"]),
        ({"annotations": []}, ["list of entries"]),
        ([], ["list of entries"]),
        ([GOOD, 3], ["entry 1"]),
        ([GOOD, entry(1, [0, 0, 5], score=0.5)], ["entry 1", "x, y, width, height"]),
        ([GOOD, entry(1, [0, 0, 5, "5"], score=0.5)], ["entry 1"]),
        ([GOOD, entry(1, [0, 0, 5, 5])], ["entry 1", "`score`"]),
        ([GOOD, entry(1, [0, 0, 5, 5], score=0.5, split="val")], ["entry 1"]),
        ([entry(1, [0, 0, 5, 5], split=3)], ["entry 0"]),
        ([entry(1.5, [0, 0, 5, 5])], ["entry 0", "image_id"]),
        ([entry(None, [0, 0, 5, 5])], ["entry 0", "image_id"]),
        ([GOOD, entry("a", [0, 0, float("nan"), 5], score=0.5)], ["image 'a'", "not finite"]),
        ([GOOD, entry("a", [0, 0, 5, 5], score=float("inf"))], ["image 'a'", "not finite"]),
        ([GOOD, entry("a", [0, 0, 1e300, 5], score=0.5)], ["image 'a'", "not finite"]),
        ([GOOD, entry("a", [0, 0, 10**400, 5], score=0.5)], ["too large"]),
        ([GOOD, entry(2, [9, 9, -3, 5], score=0.5)], ["1 of 2 boxes", "image 2", "ends before it begins"]),
    ],
)
def test_faulty_json_is_named(content: Any, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=r"p\.json") as raised:
        read_proposals(path, "train")
    assert all(word in str(raised.value) for word in words), raised.value


NPZ: dict[str, Any] = {"ids": [3, 5], "counts": [1, 1], "boxes": [[0.0, 0, 5, 5], [1, 1, 4, 4]], "scores": [0.5, 0.6]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": None}, ["`ids`"]),
        ({"boxes": None}, ["`boxes`"]),
        ({"boxes": [[0.0, 0, 5], [1, 1, 4]]}, ["(2, 3)"]),
        ({"boxes": 1.0}, ["()"]),
        ({"boxes": [["a", "b", "c", "d"]] * 2}, ["`boxes`", "type"]),
        ({"ids": [1.0, 2.0]}, ["`ids`", "float64"]),
        ({"ids": [5, 5]}, ["twice", "train"]),
        ({"ids": [3]}, ["`ids` [N]"]),
        ({"counts": [1, 2]}, ["sum to 3", "2 boxes"]),
        ({"counts": [3, -1]}, ["`counts`"]),
        ({"counts": [2**62, 2]}, ["`counts`"]),
        ({"scores": [0.5]}, ["`scores`"]),
        ({"splits": ["train"]}, ["`splits`"]),
        ({"boxes": [[0.0, 0, 5, 5], [1, 1, np.nan, 4]]}, ["image 5", "not finite"]),
        ({"boxes": [[0.0, 0, 5, 5], [1, 1, 1e300, 4]]}, ["image 5", "not finite"]),
        ({"boxes": [[9.0, 0, 5, 5], [1, 1, 4, 4]]}, ["1 of 2", "image 3", "ends before it begins"]),
    ],
)
def test_faulty_npz_is_named(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", **NPZ)
    assert len(read_proposals(tmp_path / "good.npz", "train")[5]) == 1
    np.savez(tmp_path / "p.npz", **{k: v for k, v in {**NPZ, **changes}.items() if v is not None})
    with pytest.raises(ValueError, match=r"p\.npz") as raised:
        read_proposals(tmp_path / "p.npz", "train")
    assert all(word in str(raised.value) for word in words), raised.value


class Harmful:
    """A pickle that makes a folder when it is read carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    harmful = np.array([Harmful(tmp_path / "harmed"), 1], dtype=object)
    np.savez(tmp_path / "a.npz", allow_pickle=True, **{**NPZ, "ids": harmful})
    (tmp_path / "b.npz").write_bytes(pickle.dumps(harmful[0]))
    np.save(tmp_path / "c.npy", np.zeros(3))
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", **NPZ)
    (tmp_path / "d.npz").write_bytes((tmp_path / "d.npz").read_bytes()[:-200])
    (tmp_path / "e.npz").write_bytes(b"")
    for name in "abcde":
        with pytest.raises(ValueError, match=rf"{name}\.npz.*plain numbers"):
            read_proposals(tmp_path / f"{name}.npz", "train")
    assert not (tmp_path / "harmed").exists()


def test_files_of_other_names_are_refused(tmp_path: Path) -> None:
    for name in ("p.pkl", "p", "last.ckpt"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=r"\*\.npz or \*\.json"):
            read_proposals(tmp_path / name, "train")
        with pytest.raises(ValueError, match=r"\*\.npz or \*\.json"):
            write_proposals(tmp_path / name, [])
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        read_proposals(tmp_path / "missing.npz", "train")
    with pytest.raises(ValueError, match="needs proposals=FILE"):
        attach_proposals(Images(1), None, "train")


def test_samples_carry_what_of_the_proposals_lies_in_the_image(tmp_path: Path) -> None:
    boxes = torch.tensor([[-3.0, -4, 5.5, 6], [50, 30, 70, 50], [60, 0, 80, 10], [1, 1, 1, 9], [2, 3, 4, 5]])
    write_proposals(tmp_path / "p.npz", [ImageProposals("val", "b", boxes, torch.ones(5)), some("val", "a", 3)])
    data = attach_proposals(Images("a", "b"), tmp_path / "p.npz", "val")
    assert len(data) == 2
    assert (data.classes, data.category_ids, data.has_masks) == (("thing",), (1,), False)
    assert [i["id"] for i in data.ground_truth()["images"]] == ["a", "b"]
    sample = data[1]
    assert sample.proposals is not None
    assert sample.proposals.tolist() == [[0, 0, 5.5, 6], [50, 30, 60, 40], [2, 3, 4, 5]]
    storage = sample.proposals.untyped_storage().nbytes()
    assert storage < 5 * 16 + 1  # of its own: a worker would send the whole file's


def test_a_dataset_with_proposals_tells_what_else_it_has(tmp_path: Path) -> None:
    write_proposals(tmp_path / "p.npz", [some("val", "a", 3)])

    class Pointed(Images):
        has_points = True

    data = attach_proposals(Pointed("a"), tmp_path / "p.npz", "val")
    assert data.has_points is True
    assert not hasattr(data, "has_tracks")
    assert not hasattr(data, "points")
    copied = copy.deepcopy(data)
    assert copied.has_points is True


def test_images_that_a_file_lacks_are_named(tmp_path: Path) -> None:
    write_proposals(tmp_path / "p.npz", [some("train", 1, 2), some("val", 2, 2)])
    with pytest.raises(ValueError, match=r"p\.npz.* 2 of the dataset's 3 images .*\[2, 3\].* 1 images .*\[1\]"):
        attach_proposals(Images(1, 2, 3), tmp_path / "p.npz", "train")


def test_boxes_in_other_pixels_are_remarked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near = [ImageProposals("val", i, torch.tensor([[-0.9, 0, 60.9, 40.9]]), torch.ones(1)) for i in (1, 2, 3)]
    write_proposals(tmp_path / "p.npz", near)
    attach_proposals(Images(1, 2, 3), tmp_path / "p.npz", "val")
    assert not caplog.records
    far = [ImageProposals("val", i, torch.tensor([[0.0, 0, 90, 10]]), torch.ones(1)) for i in (1, 2)]
    write_proposals(tmp_path / "p.npz", [*far, near[2]])
    attach_proposals(Images(1, 2, 3), tmp_path / "p.npz", "val")
    assert "2 of 3 images" in caplog.text


def test_augmentation_moves_them_as_boxes_in_their_order() -> None:
    proposals = some("val", 1, 50).boxes
    sample = Images(1)[0]
    sample.proposals = proposals
    after = Augment([80], horizontal_flip=1.0)(sample, 0)
    expected = 2 * torch.stack((60 - proposals[:, 2], proposals[:, 1], 60 - proposals[:, 0], proposals[:, 3]), 1)
    assert after.proposals is not None
    torch.testing.assert_close(after.proposals, expected, rtol=0, atol=1e-4)
    assert (len(after.target), after.size) == (1, (80, 120))
    left = torch.arange(57.0, 2, -1)
    sample.proposals = torch.stack((left, torch.zeros(55), left + 3, torch.full((55,), 40.0)), 1)
    counts = set()
    for seed in range(10):
        cropped = Augment(crop=0.3)(sample, seed)
        kept = cropped.proposals
        assert kept is not None
        assert (kept[:, 2:] > kept[:, :2]).all()
        assert (kept >= 0).all()
        assert (kept <= torch.tensor([*cropped.size[::-1]] * 2)).all()
        assert (kept[:, 0::2].sum(1).diff() < 0).all()
        counts.add(len(kept))
    assert min(counts) < 55
    assert len(counts) > 5


def test_batches_carry_them_also_through_workers(tmp_path: Path) -> None:
    images = [some("train", i, 3 + i, i) for i in range(4)]
    write_proposals(tmp_path / "p.npz", [*images, *(ImageProposals("val", i.id, i.boxes, i.scores) for i in images)])
    batches = []
    for workers in (0, 1):
        train, val = (attach_proposals(Images(*range(4)), tmp_path / "p.npz", split) for split in ("train", "val"))
        module = DetectionDataModule(
            train,
            val,
            Augment(horizontal_flip=0.5),
            Augment(),
            steps=3,
            batch_size=2,
            val_batch_size=3,
            workers=workers,
        )
        batches.append([*module.train_dataloader(), *module.val_dataloader()])
    assert len(batches[0]) == 5
    for a, b in zip(*batches, strict=True):
        assert [len(p) for p in a.proposals] == [3 + i for i in a.ids]
        assert all(torch.equal(p, q) for p, q in zip(a.proposals, b.proposals, strict=True))
    for image, given in zip(images[:3], batches[0][3].proposals, strict=True):
        assert torch.equal(image.boxes, given)
    assert collate([Images(1)[0]], 32).proposals is None
