"""Batch norms with a single value per channel are refused before the first step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.augment import Augment
from detector.training.normalisation import SingleValueError, check_smallest_image, watch_batch_norms
from detector.types import Sample, Target
from tests.conftest import random_batch, small_model
from tests.scripts.conftest import run_script


class Images:
    """Images of given sizes (height, width) without objects."""

    classes, category_ids, has_masks = ["a"], [1], False

    def __init__(self, *sizes: tuple[int, int]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        flags = torch.zeros(0, dtype=torch.bool)
        target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), flags, flags)
        return Sample(torch.zeros(3, *self.sizes[index], dtype=torch.uint8), target, index, self.sizes[index])

    def ground_truth(self) -> dict[str, Any]:
        images = [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(self.sizes)]
        return {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}


def check(*overrides: str, sizes: list[tuple[int, int]], augment: Any = None, images: int = 1) -> None:
    model = small_model("backbone=resnet18_fpn", *overrides)
    watch_batch_norms(model)
    check_smallest_image(model.backbone, Images(*sizes), augment or Augment(), images, 32)


def test_the_smallest_image_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"image 1 \(1\.png\) can be as small as 32 x 32 .*layer4.*batch_size=2.*norm=group"
    ):
        check(sizes=[(64, 64), (20, 30), (25, 33)])
    with pytest.raises(ValueError, match="32 x 32"):
        check("norm=sync", sizes=[(20, 20)])  # of one process


@pytest.mark.parametrize(
    ("overrides", "arguments"),
    [
        ([], {"sizes": [(20, 33)]}),
        ([], {"sizes": [(20, 20)], "images": 2}),
        (["norm=group"], {"sizes": [(20, 20)]}),
        (["norm=frozen"], {"sizes": [(20, 20)]}),
        ([], {"sizes": [(20, 20)], "augment": Augment([33], 64)}),
        ([], {"sizes": [(20, 20), (10, 10)], "augment": Augment([33], 64, crop=0.3)}),
        ([], {"sizes": [(20, 20)], "augment": lambda sample, seed: sample}),  # which nobody can foresee
    ],
)
def test_what_can_be_trained_passes(overrides: list[str], arguments: dict[str, Any]) -> None:
    check(*overrides, **arguments)


@pytest.mark.parametrize("augment", [Augment([32], 64), Augment([48], 64, scale=(0.5, 1)), Augment(crop=0.3)])
def test_what_augmentation_can_make_is_refused(augment: Augment) -> None:
    with pytest.raises(ValueError, match="32 x 32"):
        check(sizes=[(90, 90)], augment=augment)


def test_the_statistics_of_the_model_stay() -> None:
    model = small_model("backbone=resnet18_fpn")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    watch_batch_norms(model)
    check_smallest_image(model.backbone, Images((20, 40)), Augment(), 1, 32)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unforeseen_images_are_refused_in_the_same_words() -> None:
    model = small_model("backbone=resnet18_fpn")
    watch_batch_norms(model)
    with pytest.raises(SingleValueError, match=r"backbone\.body\.layer4\.0\.bn1 is given a single value.*norm=group"):
        model.loss(tiny())
    model.loss(random_batch(1))
    model.eval()(tiny())


def tiny() -> Any:
    batch = random_batch(0)
    batch.images, batch.sizes = batch.images[:, :, :32, :32], [(32, 32)]
    return batch


@pytest.mark.parametrize(
    "augment",
    [
        Augment([40, 57, 111], 130, crop=0.3),
        Augment([30], 45),
        Augment(crop=0.4, quarter_turns=True),
        Augment([64], 80, scale=(0.3, 2.0)),
        Augment(horizontal_flip=0.5),
    ],
)
@pytest.mark.parametrize("size", [(40, 60), (90, 31)])
def test_the_least_size_is_that_of_many_augmentations(augment: Callable[..., Sample], size: tuple[int, int]) -> None:
    assert isinstance(augment, Augment)
    sample = Images(size)[0]
    longest = [max(augment(sample, seed).size) for seed in range(300)]
    least = max(augment.least_size(size))
    assert min(longest) >= least
    assert min(longest) <= 1.15 * least + 1


def test_a_run_is_refused_before_the_first_step(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": 20, "height": 20}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9], "area": 81}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    own = ["dataset=custom", *(f"dataset.{split}.annotations=a.json" for split in ("train", "val")), "workers=0"]
    own += ["dataset.val_augment.short_sizes=[20]", "dataset.val_augment.max_size=20", "backbone=resnet18_fpn"]
    done = run_script("train", *own, "schedule.batch_size=1", "hydra.run.dir=run", "logger=none", cwd=tmp_path)
    assert done.returncode == 1
    assert all(words in done.stderr for words in ("a.png", "schedule.batch_size=2", "norm=group")), done.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()
