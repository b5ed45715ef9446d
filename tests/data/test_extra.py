"""albumentations' transforms by name: what can be used, and that boxes and masks lie on the objects afterwards."""

import re
from dataclasses import replace
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch

from detector.config.build import complete_dataset, instantiate
from detector.data.augment import Augment
from detector.data.extra import CROPS, UNSUITABLE, WHOLE, check_nodes, is_transform
from detector.types import Masks, Sample, Target
from detector.weights.trust import check_targets, trust_packages
from tests.conftest import compose_config, dense

ARGUMENTS: dict[str, dict[str, Any]] = {
    "Affine": {"rotate": (-40, 40), "scale": (0.7, 1.4), "shear": (-10, 10)},
    "AtLeastOneBBoxRandomCrop": {"height": 70, "width": 80},
    "CenterCrop": {"height": 60, "width": 60},
    "Crop": {"x_min": 10, "y_min": 10, "x_max": 80, "y_max": 80},
    "CropAndPad": {"percent": (-0.2, 0.2)},
    "ElasticTransform": {"alpha": 40, "sigma": 5},
    "GridElasticDeform": {"num_grid_xy": (4, 4), "magnitude": 5},
    "LongestMaxSize": {"max_size": 100},
    "Pad": {"padding": 10},
    "PadIfNeeded": {"min_height": 200, "min_width": 200},
    "RandomCrop": {"height": 60, "width": 60},
    "RandomResizedCrop": {"size": (70, 80)},
    "RandomSizedBBoxSafeCrop": {"height": 70, "width": 80},
    "RandomSizedCrop": {"min_max_height": (40, 80), "size": (70, 80)},
    "Resize": {"height": 70, "width": 90},
    "Rotate": {"limit": 45},
    "SafeRotate": {"limit": 45},
    "SmallestMaxSize": {"max_size": 70},
    "XYMasking": {"num_masks_x": 2, "num_masks_y": 2, "mask_x_length": 10, "mask_y_length": 10},
}
NAMES = sorted(n for n in dir(A) if is_transform(n) and n not in ("OneOf", "SomeOf", "Sequential", "RandomOrder"))
COVERING = {"CoarseDropout", "Erasing", "FrequencyMasking", "GridDropout", "PixelDropout", "TimeMasking", "XYMasking"}


COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], dtype=torch.uint8)


def coloured(seed: int, masked: bool = True) -> Sample:
    """Rectangles of one colour each, none over another, on black."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(100, 140)), int(rng.integers(100, 140)))
    image = torch.zeros(3, *size, dtype=torch.uint8)
    boxes = []
    for i, (y, x) in enumerate(np.ndindex(2, 2)):
        height, width = rng.integers(15, 40, 2)
        top, left = (int(s / 2 * c + rng.integers(3, 9)) for s, c in zip(size, (y, x), strict=True))
        bottom, right = (min(int(e), int(s / 2 * (c + 1))) for e, s, c in
                         ((top + height, size[0], y), (left + width, size[1], x)))  # fmt: skip
        image[:, top:bottom, left:right] = COLOURS[i, :, None, None]
        boxes.append([left, top, right, bottom])
    shapes = [(image == colour[:, None, None]).all(0) for colour in COLOURS]
    flags = torch.zeros(4, dtype=torch.bool)
    masks = Masks.from_dense(shapes, size) if masked else None
    return Sample(image, Target(torch.tensor(boxes).float(), torch.arange(4), flags, flags, masks), seed, size)


def bounds(mask: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.filterwarnings("ignore::UserWarning")  # that an alias, or a slow transform, has better ones beside it
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("masked", [True, False])
def test_boxes_and_masks_lie_on_the_objects(name: str, masked: bool) -> None:
    transform = getattr(A, name)(**ARGUMENTS.get(name, {}), p=1.0)
    augment = Augment(extra=[transform])
    seen = 0
    for seed in range(3):
        before = coloured(seed, masked)
        after = augment(before, seed)
        target = after.target
        assert (after.id, after.original_size, after.image.dtype) == (seed, before.size, torch.uint8)
        assert len(set(target.labels.tolist())) == len(target)
        assert bool((target.boxes >= 0).all())
        assert bool((target.boxes[:, 2:] <= torch.tensor(after.size[::-1])).all())
        if masked:
            for box, mask in zip(target.boxes, dense(target.masks), strict=True):
                assert (box - bounds(mask)).abs().max() <= 1
        if isinstance(transform, A.ImageOnlyTransform) or name in COVERING:
            assert after.size == before.size
            if isinstance(transform, A.ImageOnlyTransform) or (
                masked and getattr(transform, "fill_mask", None) is None
            ):
                assert (target.boxes - before.target.boxes[target.labels]).abs().max() <= 1e-3
        else:  # the colours show where the objects are
            for i, label in enumerate(target.labels.tolist()):
                shown = ((after.image > 127) == (COLOURS[label, :, None, None] > 127)).all(0)
                apart = bounds(shown) - target.boxes[i]
                assert apart.abs().max() <= 2 if shown.sum() > 30 else apart.abs().max() <= 4
                seen += 1
    assert seen >= 5 or isinstance(transform, A.ImageOnlyTransform) or name in COVERING


def test_the_lists_name_transforms_of_albumentations() -> None:
    assert set(NAMES) >= WHOLE | CROPS
    assert not WHOLE & CROPS
    assert all(hasattr(A, name) for name in UNSUITABLE)


def test_a_transform_that_was_not_applied_leaves_boxes_alone() -> None:
    before = coloured(0)
    before.target.boxes += 0.25
    after = Augment(extra=[A.Rotate(limit=(30, 30), p=0.0)])(before, 0)
    torch.testing.assert_close(after.target.boxes, before.target.boxes, rtol=0, atol=1e-4)


def test_objects_without_masks_and_proposals_follow_a_turn() -> None:
    before = replace(coloured(1, masked=False), proposals=coloured(1).target.boxes)
    quarter = Augment(extra=[A.Rotate(limit=(90, 90), p=1.0)])(before, 0)
    height, width = before.size
    x1, y1, x2, y2 = (before.target.boxes - torch.tensor([width, height] * 2) / 2).T
    turned = torch.stack((y1, -x2, y2, -x1), 1) + torch.tensor([width, height] * 2) / 2
    limits = torch.tensor([width, height] * 2)
    expected = torch.minimum(turned.clamp(min=0), limits)[quarter.target.labels]
    assert (quarter.target.boxes - expected).abs().max() <= 1
    assert quarter.proposals is not None
    assert (quarter.proposals - quarter.target.boxes).abs().max() <= 1
    assert quarter.target.masks is None


def test_compositions_choose_by_the_seed() -> None:
    parts = [A.HorizontalFlip(p=1.0), A.Rotate(limit=(20, 20), p=1.0), A.InvertImg(p=1.0)]
    augment = Augment(extra=[A.OneOf(parts, p=1.0)])
    images = [augment(coloured(0), seed).image for seed in range(12)]
    assert len({image.numpy().tobytes() for image in images}) == 3
    for seed in range(12):
        after = Augment(extra=[A.OneOf(parts, p=1.0)])(coloured(0), seed)
        assert torch.equal(after.image, images[seed])
        for box, mask in zip(after.target.boxes, dense(after.target.masks), strict=True):
            assert (box - bounds(mask)).abs().max() <= 1


@pytest.mark.parametrize("name", sorted(UNSUITABLE))
def test_transforms_that_boxes_cannot_follow_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"extra\[0\]\._target_ = 'albumentations\.{name}' cannot be used: {UNSUITABLE[name][:20]}"
    ):
        check_nodes([{"_target_": f"albumentations.{name}"}], "extra")
    assert not is_transform(name)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "albumentations.GausNoise"}, "did you mean albumentations.GaussNoise?"),
        ({"_target_": "albumentations.gaussnoise"}, "did you mean albumentations.GaussNoise?"),
        ({"_target_": "GaussNoise"}, "did you mean albumentations.GaussNoise?"),
        ({"_target_": "albumentations.core.serialization.load"}, "there is no such class"),
        ({"_target_": "albumentations.Compose", "transforms": []}, "no transform"),
        ({"_target_": "albumentations.CenterCrop3D"}, "cannot move boxes or masks"),
        ({"_target_": "albumentations.GaussNoise", "std_rang": 1}, "no argument 'std_rang'; did you mean std_range?"),
        ({"_target_": "albumentations.GaussNoise", "zzz": 1}, "it takes std_range"),
        ({"_target_": "albumentations.GaussNoise", "std_range": [2, 3]}, "extra[0]: std_range: Value error"),
        ({"_target_": "albumentations.GaussNoise", "_partial_": True}, "no argument '_partial_'"),
        ({"_target_": "albumentations.Crop", "x_min": {"_target_": "os.getpid"}}, "extra[0].x_min must be numbers"),
        ({"_target_": "albumentations.Rotate", "border_mode": 4}, "extra[0]: Rotate cannot be used with border_mode=4"),
        ({"_target_": "albumentations.Rotate", "fill_mask": 255}, "fill_mask=255"),
        ({"_target_": "albumentations.Affine", "mask_interpolation": 1}, "mask_interpolation=1"),
        ({"_target_": "albumentations.PixelDropout", "mask_drop_value": 1}, "mask_drop_value=1"),
        ({"_target_": "albumentations.OneOf", "transforms": [{"_target_": "albumentations.Rotat"}]},
         "extra[0].transforms[0]._target_ = 'albumentations.Rotat' cannot be used"),
        ({"p": 0.5}, "write {_target_: albumentations.NAME"),
        ("GaussNoise", "write {_target_: albumentations.NAME"),
    ],
)  # fmt: skip
def test_mistakes_are_named(node: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_nodes([node], "extra")


def test_a_list_is_needed() -> None:
    with pytest.raises(ValueError, match="extra must be a list"):
        check_nodes({"_target_": "albumentations.GaussNoise"}, "extra")
    check_nodes([], "extra")
    check_nodes([{"_target_": "mypackage.Own", "anything": 1}], "extra")  # the user's own is for `trust`


def test_transforms_given_as_objects_are_checked_too() -> None:
    class Flat(A.DualTransform):
        _targets = (A.core.type_definitions.Targets.IMAGE,)

    for transform, message in (
        (Flat(), "Flat cannot be used: it cannot move boxes"),
        (A.ToFloat(), "albumentations.ToFloat cannot be used: it changes the range"),
        (A.OneOf([A.InvertImg(), A.Normalize()]), "albumentations.Normalize cannot"),
        (A.Compose([A.InvertImg()]), "Compose cannot be used; compositions are OneOf"),
        ("GaussNoise", "no transform of albumentations"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Augment(extra=[transform])


def test_validation_leaves_pixels_in_place() -> None:
    config = compose_config("dataset.val_augment.extra=[{_target_: albumentations.CLAHE, p: 1.0}]")
    complete_dataset(config.dataset)
    assert [type(t).__name__ for t in instantiate(config.dataset.val_augment).extra] == ["CLAHE"]
    turn = "[{_target_: albumentations.OneOf, transforms: [{_target_: albumentations.Rotate}]}]"
    moving = compose_config(f"dataset.val_augment.extra={turn}")
    with pytest.raises(ValueError, match=r"val_augment\.extra\[0\]\.transforms\[0\].*detections would be reported"):
        complete_dataset(moving.dataset)
    complete_dataset(compose_config(f"dataset.train_augment.extra={turn}").dataset)


def test_checkpoints_build_transforms_and_nothing_else_of_the_package() -> None:
    def within(key: str, target: str) -> dict[str, Any]:
        return {key: {"val_augment": {"extra": [{"_target_": target}]}}}

    for name in ("GaussNoise", "Rotate", "OneOf"):
        check_targets(within("dataset", f"albumentations.{name}"), "x.ckpt")
        with pytest.raises(ValueError, match="under `dataset` only"):
            check_targets(within("model", f"albumentations.{name}"), "x.ckpt")
    for name in (
        "Lambda",
        "load",
        "from_dict",
        "TextImage",
        "core.serialization.load",
        "A.GaussNoise",
        "BasicTransform",
    ):
        with pytest.raises(ValueError, match=r"x\.ckpt"):
            check_targets(within("dataset", f"albumentations.{name}"), "x.ckpt")


def test_trust_in_albumentations_is_accepted_and_opens_nothing() -> None:
    assert trust_packages(["albumentations"]) == ["albumentations"]
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        check_targets({"dataset": {"extra": [{"_target_": "albumentations.Lambda"}]}}, "x.ckpt")
    with pytest.raises(ValueError, match="packages of your own"):
        trust_packages(["albumentations.core"])


@pytest.mark.parametrize(
    ("transform", "channels", "message"),
    [
        (A.HEStain(p=0.1), 5, "HEStain cannot be used on images of 5 channels like image 0"),
        (A.OneOf([A.InvertImg(), A.ToGray(num_output_channels=1)], p=0.1), 3, "uint8 in 1 channels of uint8 in 3"),
        (A.RandomCrop(500, 500), 3, "RandomCrop cannot be used"),
    ],
)  # fmt: skip
def test_images_that_a_transform_cannot_take_are_told_before_training(
    transform: A.BasicTransform, channels: int, message: str
) -> None:
    sample = coloured(0)
    sample = replace(sample, image=sample.image[:1].repeat(channels, 1, 1))
    with pytest.raises(ValueError, match=message):
        Augment(extra=[transform]).check(sample)
    Augment(extra=[A.GaussNoise(), A.Rotate(), A.CoarseDropout(), A.BBoxSafeRandomCrop()]).check(sample)


def test_a_failure_names_the_image() -> None:
    with pytest.raises(ValueError, match=r"image 3, \d+x\d+ pixels: Crop size"):
        Augment(extra=[A.RandomCrop(500, 500, p=1.0)])(coloured(3), 0)
