"""Images are checked for values outside of the range, for looking the same, and for what an epoch holds of them."""

import numpy as np
import tifffile
from omegaconf import DictConfig
from PIL import Image

from detector.data.check.pictures import thumbnail
from tests.data.check_cases import Files, few, jpeg, run, texture


def test_images_without_objects_are_told_of_training_alone(files: Files, composed: DictConfig) -> None:
    for content in (files.train, files.val):
        content["images"].append({**content["images"][0], "id": 50, "file_name": "empty.png"})
    Image.fromarray(texture(50)).save(files.image("empty.png"))
    files.write()
    printed, message = run(files, composed)
    assert message is None
    assert "images without objects: 1 (" in printed
    assert "train.json: empty.png (dataset.train.keep_empty=true trains on it)" in printed


def test_values_outside_of_the_range_are_counted(files: Files, composed: DictConfig) -> None:
    for content in (files.train, files.val):
        for image in content["images"]:
            path = files.image(image["file_name"])
            grey = np.array(Image.open(path).convert("L")).astype(np.uint16) * 16  # up to 4080
            image["file_name"] = path.with_suffix(".tif").name
            tifffile.imwrite(path.with_suffix(".tif"), grey)
    for name, count in (("train3", 2), ("train5", 7), ("train6", 0)):
        pixels = tifffile.imread(files.image(f"{name}.tif"))
        pixels.flat[:count] = 4096 + count
        pixels.flat[-1] = 4095
        tifffile.imwrite(files.image(f"{name}.tif"), pixels)
    files.write()
    config = composed.copy()
    config.dataset.range = [0, 4095]
    config.dataset.channels = 1
    printed, message = run(files, config)
    assert message is None
    lines = printed.splitlines()
    head = lines.index(
        "images with values outside of dataset.range, which are not clipped: 2 (learnt and measured as it is)"
    )
    for line, name, count in zip(lines[head + 1 :], ("train5", "train3"), (7, 2), strict=False):
        assert line.startswith(f"  {name}.tif: {count} values; the image has ")
        assert line.endswith(f" to {4096 + count}, dataset.range is [0, 4095]")
    objects = {split: len(getattr(files, split)["annotations"]) for split in ("train", "val")}
    images = {split: len(getattr(files, split)["images"]) for split in ("train", "val")}
    read = " and ".join(f"{images[split]} images with {objects[split]} objects in {split}" for split in images)
    assert lines[head + 3 :] == [f"custom can be trained on: {read}"]
    config.dataset.range = ["1%", "99%"]
    assert run(files, config) == ("nothing is wrong\n", None)


def test_an_epoch_is_described_as_training_makes_it(files: Files, composed: DictConfig) -> None:
    for number in (50, 51, 52):
        files.train["images"].append({**files.train["images"][0], "id": number, "file_name": f"empty{number}.png"})
        Image.fromarray(texture(number)).save(files.image(f"empty{number}.png"))
    few(files)
    files.write()
    for keys, wanted in (
        ({"empty_share": 0.1}, "An epoch has 11 images; 1 of 3 images without objects are drawn"),
        ({"repeat_threshold": 1.0}, "An epoch has 12 images; 4 images are repeated, up to 1.6 times"),
    ):
        config = composed.copy()
        config.dataset.update(keys)
        printed, message = run(files, config)
        assert (message, wanted in printed) == (None, True), printed
        assert ("images without objects: 3 (" in printed) == ("empty_share" not in keys)
    config.dataset.repeat_threshold = 2
    printed, message = run(files, config)
    assert "epochs that cannot be made: 1" in str(message)
    assert "repeat_threshold must be a share above 0 and up to 1, such as 0.001, not 2" in printed


def test_thumbnails_are_means() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 72, 3), dtype=np.uint8)
    wanted = pixels.reshape(32, 2, 36, 2, 3).astype(float).mean((1, 3, 4))
    assert np.abs(thumbnail(pixels) - wanted).max() <= 0.5
    assert np.array_equal(thumbnail(pixels), thumbnail(pixels.astype(np.float32)))
    assert (thumbnail(np.full((5, 7, 1), 9, np.uint8)) == 9).all()  # smaller than a thumbnail


def test_images_that_look_the_same_take_a_line_each(files: Files, composed: DictConfig) -> None:
    for i in range(2, 9):  # eight frames of a camera
        Image.fromarray(texture(1).clip(i) - i).save(files.image(f"train{i}.png"))
    jpeg("train3.png", "val2.png")(files)
    printed, message = run(files, composed)
    assert message is None
    lines = printed.splitlines()
    begin = lines.index("nearly equal images: 7 (learnt and measured as it is)")
    assert lines[begin + 1] == "  train: train2.png looks like train: train1.png and 6 others"
    assert lines[begin + 7] == "  train: train8.png looks like train: train1.png and 6 others"
    begin = lines.index("nearly equal images in train and val: 1 (learnt and measured as it is)")
    assert lines[begin + 1].startswith("  val: val2.png looks like train: train")
    assert lines[begin + 1].endswith(".png and 7 others")
