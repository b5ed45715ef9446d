"""`Detector` takes images as a user has them, and draws what it finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.boxes import iou
from detector.config import build
from detector.config.resolve import with_classes
from detector.data.image import ImageRegions
from detector.inference.detect import TestTimeAugmentation
from detector.inference.detector import Detector
from detector.inference.work import shown
from detector.types import Objects
from detector.visualize import as_rgb
from detector.weights.checkpoints import FORMAT, portable_config
from tests.conftest import CLASSES, compose_config, confident

SMALL = ["backbone.channels=16", "backbone.width=16", "trainer.precision=32-true", "model=mask_rcnn"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = with_classes(compose_config(*SMALL), CLASSES)
    torch.manual_seed(5)
    model = confident(build.build_model(config))
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    own = {"format": FORMAT, "config": portable_config(config)}
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "aligned_rcnn": own}, path)
    return path


@pytest.fixture(scope="module")
def detector(checkpoint: Path) -> Detector:
    return Detector(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph that lies on its side in its file."""
    pixels = np.random.default_rng(0).integers(0, 256, (128, 96, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def assert_same(a: Objects, b: Objects) -> None:
    assert len(a) == len(b) > 5
    assert torch.equal(a.boxes, b.boxes)
    assert torch.equal(a.scores, b.scores)
    assert torch.equal(a.labels, b.labels)
    assert a.masks is not None
    assert b.masks is not None
    assert torch.equal(a.masks, b.masks)


def test_an_image_may_be_a_path_a_picture_an_array_or_a_tensor(detector: Detector, photo: Path) -> None:
    tensor = detector.reader.read(photo)
    assert tensor.shape == (3, 96, 128)  # upright
    expected = detector([tensor])[0]
    with Image.open(photo) as picture:
        given: list[Any] = [str(photo), photo, picture, tensor.permute(1, 2, 0).numpy(), tensor]
        for image in given:
            one = detector(image)
            assert isinstance(one, Objects)
            assert_same(one, expected)
        for many in (given, tuple(given), torch.stack([tensor] * 2)):
            found = detector(many)
            assert isinstance(found, list)
            assert len(found) == len(many)
            assert found[0].labels.tolist() == expected.labels.tolist()
            torch.testing.assert_close(found[-1].boxes, expected.boxes, rtol=0, atol=1e-3)
    assert detector([]) == []


def test_grey_pictures_and_arrays_become_rgb(detector: Detector) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (96, 128), dtype=np.uint8)
    expected = detector(np.stack([grey] * 3, 2))
    for image in (grey, Image.fromarray(grey), Image.fromarray(grey).convert("LA"), np.asfortranarray(grey)):
        assert_same(detector(image), expected)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((3, 20, 30), np.uint8), ValueError, r"not \[3, 20, 30\]; this one has its channels first"),
        (np.zeros((20, 30, 3)), ValueError, r"not float64 \[20, 30, 3\]; floats are given as tensors, in 0\.\.255"),
        (np.zeros((20, 30, 4), np.uint8), ValueError, r"uint8 \[height, width, 3\], RGB, not \[20, 30, 4\]"),
        (np.zeros((0, 30, 3), np.uint8), ValueError, r"not \[0, 30, 3\]"),
        (torch.zeros(20, 30, 3, dtype=torch.uint8), ValueError, r"not \[20, 30, 3\]; this one has its channels last"),
        (torch.zeros(3, 20, 30, dtype=torch.int64), ValueError, r"torch\.int64 \[3, 20, 30\]"),
        (Image.new("I;16", (8, 8)), ValueError, r"mode I;16 cannot become 3 channels of 8 bits; give its path"),
        ("none.jpg", FileNotFoundError, r"none\.jpg: no such image file"),
        (7, TypeError, r"give an image or a list of images, not int: 7"),
        ([torch.zeros(3, 40, 40, dtype=torch.uint8), None], TypeError, r"image 1: an image is a path.*not NoneType"),
        ([np.zeros((4, 4), np.int32)], ValueError, r"image 0: an array is an image as uint8.*not int32 \[4, 4\]"),
    ],
)
def test_what_is_no_image_is_named(detector: Detector, image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        detector(image)


def test_detections_are_drawn_on_the_image(detector: Detector, photo: Path) -> None:
    objects = detector(photo)
    half = float(objects.scores.median())
    drawn = detector.draw(photo, objects, threshold=half)
    assert drawn.mode == "RGB"
    assert drawn.size == (4 * 128, 4 * 96)
    assert np.array_equal(drawn, detector.draw(detector.reader.read(photo), objects, half))
    nothing = objects.select(torch.zeros(0, dtype=torch.int64))
    assert not np.array_equal(drawn, detector.draw(photo, nothing))
    plain = detector.reader.read(photo).permute(1, 2, 0).numpy().repeat(4, 0).repeat(4, 1)
    assert np.array_equal(detector.draw(photo, nothing), plain)


def test_tiles_of_one_window_are_the_image(detector: Detector, photo: Path) -> None:
    assert_same(detector.detect_tiles(photo, tiles=128), detector(photo))
    assert_same(detector.detect_tiles(detector.reader.read(photo), tiles=128), detector(photo))
    several = detector.detect_tiles(photo, tiles=64, overlap=0.5, batch=2)
    limits = torch.tensor([128.0, 96.0])
    assert len(several) > 5
    assert (several.boxes >= 0).all()
    assert (several.boxes[:, 2:] <= limits).all()
    assert (several.scores.diff() <= 0).all()


def test_limits_of_the_rpn_and_nms_are_those_given(checkpoint: Path, photo: Path) -> None:
    """Of one proposal, each class finds one object at most."""
    detector = Detector(checkpoint, device="cpu", post_nms_topk=1)
    assert detector.model.proposer.test_limits.post_nms_topk == 1
    assert 0 < len(detector(photo)) <= len(CLASSES)
    assert len(detector.detect_tiles(photo, tiles=64, overlap=0.5)) > len(CLASSES)
    for thresh, none in ((0, True), (None, False)):
        found = Detector(checkpoint, device="cpu", nms_thresh=thresh)(photo)
        same = (iou(found.boxes, found.boxes) > 0) & (found.labels[:, None] == found.labels)
        assert (int(same.sum()) == len(found) > 5) is none
    with pytest.raises(ValueError, match="pre_nms_topk must be a number of 1 or more, not 0"):
        Detector(checkpoint, device="cpu", pre_nms_topk=0)
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, not 0"):
        detector.detect_tiles(photo, tiles=64, batch=0)


def test_flips_and_scales_find_the_same_in_a_flipped_image(checkpoint: Path, photo: Path) -> None:
    """Each of the image and its mirror image is the other's copy, so that joined detections are mirrored exactly."""
    detector = Detector(checkpoint, device="cpu", test_time_augmentation={"flip": True})
    image = detector.reader.read(photo)
    found, mirrored = detector([image, image.flip(2)])
    assert len(found) > 5
    x1, y1, x2, y2 = mirrored.boxes.unbind(1)
    torch.testing.assert_close(torch.stack((128 - x2, y1, 128 - x1, y2), 1), found.boxes, rtol=0, atol=1e-3)
    assert torch.equal(mirrored.labels, found.labels)
    assert found.masks is not None
    assert mirrored.masks is not None
    torch.testing.assert_close(mirrored.masks.flip(2), found.masks, rtol=0, atol=1e-4)


def test_a_scale_of_one_changes_nothing_and_others_are_in_pixels_of_the_image(checkpoint: Path, photo: Path) -> None:
    plain = Detector(checkpoint, device="cpu")
    one = Detector(checkpoint, device="cpu", test_time_augmentation={"scales": [1]})
    assert_same(one(photo), plain(photo))
    double = Detector(checkpoint, device="cpu", test_time_augmentation={"scales": [2]})
    pixels = np.array(Image.fromarray(plain.reader.read(photo).permute(1, 2, 0).numpy()).resize((256, 192)))
    assert len(double(photo)) > 5
    assert (double(photo).boxes[:, 2:] <= torch.tensor([128.0, 96.0])).all()
    assert double(photo).boxes[:, 2].max() > 100
    assert plain(pixels).boxes[:, 2].max() > 200


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scales": [0]}, r"scales must be factors from 0\.1 to 10, such as \[0\.8,1,1\.25\], not \[0\]"),
        ({"scales": 2}, r"scales must be a list"),
        ({"scales": []}, r"scales"),
        ({"flip": 1}, r"flip must be true or false, not 1"),
        ({"flips": True}, r"must have the keys flip, scales and nms_thresh"),
        ({"nms_thresh": 2}, r"nms_thresh must lie in 0\.\.1, not 2"),
        (True, r"not True"),
    ],
)
def test_other_test_time_augmentation_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TestTimeAugmentation.parse(given)


def test_very_large_images_are_drawn_on_a_smaller_copy() -> None:
    pixels = torch.arange(3 * 50 * 70).view(3, 50, 70).remainder(251).to(torch.uint8)
    read: list[tuple[int, int, int, int]] = []

    def region(at: tuple[int, int, int, int]) -> torch.Tensor:
        read.append(at)
        return pixels[:, at[1] : at[3], at[0] : at[2]]

    whole, factor = shown(ImageRegions((50, 70), True, region), most=3500)
    assert factor == 1
    assert torch.equal(whole, pixels)
    tall = torch.rand(1, 700, 9) * 300
    copy, factor = shown(ImageRegions((700, 9), True, lambda at: tall[:, at[1] : at[3], at[0] : at[2]]))
    assert factor == 1
    assert torch.equal(copy, as_rgb(tall))
    small, factor = shown(ImageRegions((50, 70), True, region), most=500)
    assert (factor, tuple(small.shape)) == (3, (3, 16, 23))
    expected = pixels[:, 45:48, 66:69].float().mean((1, 2)).round()
    assert torch.equal(small[:, 15, 22].float(), expected)
