"""A dataset that is given to a trained detector: what is read changes, what preprocesses does not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from detector.config.build import open_split
from detector.config.compose import compose_config as compose
from detector.config.conventions import check_additions
from detector.config.given import given_dataset
from detector.config.mistakes import unknown_key
from detector.config.overrides import allow_new_keys
from detector.config.resolve import resolve, with_classes
from detector.config.trained import open_checkpoint
from detector.weights import changed_settings
from detector.weights.checkpoints import FORMAT, portable_config
from tests.conftest import CLASSES, compose_config

OWN = [
    *("dataset=custom", "dataset.train.annotations=train.json", "dataset.val.annotations=val.json"),
    *("dataset.val_augment.short_sizes=[64]", "dataset.val_augment.max_size=96", "dataset.size_bins=[8,20]"),
    *("dataset.train.images=photos", "dataset.anchor_sizes=[8,16,32,64,128]", "dataset.metrics=[coco,voc]"),
]


def trained(*overrides: str) -> DictConfig:
    """The configuration in a checkpoint."""
    return OmegaConf.create(portable_config(with_classes(compose_config(*(overrides or OWN)), CLASSES)))


def given(*overrides: str, before: DictConfig | None = None) -> tuple[DictConfig, list[str]]:
    own = ["checkpoint=last.ckpt", *overrides]
    config = compose_config(*allow_new_keys(own), name="evaluate")
    return given_dataset(trained() if before is None else before, config, own)


def plain(node: Any) -> Any:
    return OmegaConf.to_container(node)


def test_a_dataset_brings_its_data_and_nothing_else() -> None:
    before = trained()
    dataset, lines = given("dataset=custom", "dataset.val.annotations=other.json", "dataset.val.images=here")
    assert (dataset.val.annotations, dataset.val.images) == ("other.json", "here")
    for key in ("val_augment", "size_bins", "metrics", "anchor_sizes", "canonical_size", "rpn", "rois", "detections"):
        assert dataset[key] == before.dataset[key], key
    (line,) = lines
    assert line.startswith("as in the detector's training: ")
    for words in (
        "dataset.val_augment.short_sizes=[64] (dataset custom by itself: [480])",
        "dataset.val_augment.max_size=96 (dataset custom by itself: 800)",
        "dataset.size_bins=[8,20] (dataset custom by itself: [32,96])",
        'dataset.metrics=["coco","voc"] (dataset custom by itself: ["coco"])',
    ):
        assert words in line
    assert "anchor" not in line


@pytest.mark.parametrize("name", ["coco", "voc07", "shapes"])
def test_datasets_of_other_formats_keep_the_scale_too(name: str) -> None:
    dataset, _ = given(f"dataset={name}", "data_dir=/datasets")
    assert dataset.val["_target_"] == compose_config(f"dataset={name}").dataset.val["_target_"]
    assert (list(dataset.val_augment.short_sizes), dataset.val_augment.max_size) == ([64], 96)


def test_generated_images_are_those_of_their_own_dataset() -> None:
    dataset, _ = given("dataset=shapes", "data_dir=data")
    assert (list(dataset.val.size_bins), list(dataset.size_bins)) == ([16, 48], [8, 20])


def test_keys_that_are_given_count() -> None:
    other = ["dataset=custom", "dataset.val.annotations=other.json"]
    dataset, lines = given(*other, "dataset.val_augment.short_sizes=[32]", "dataset.size_bins=[4,9]")
    assert (list(dataset.val_augment.short_sizes), dataset.val_augment.max_size) == ([32], 96)
    assert list(dataset.size_bins) == [4, 9]
    assert lines[1] == (
        "other than in the detector's training: dataset.val_augment.short_sizes=[32] (there [64]), "
        "dataset.size_bins=[4,9] (there [8,20])"
    )
    dataset, lines = given(*other, "dataset.val_augment={short_sizes: [480], max_size: 800}")  # though the defaults
    assert (list(dataset.val_augment.short_sizes), dataset.val_augment.max_size) == ([480], 800)
    dataset, _ = given(*other, "++dataset.val_augment={_target_: mine.Augment, least: 0.5}")
    assert {"_target_": "mine.Augment", "least": 0.5}.items() <= plain(dataset.val_augment).items()
    dataset, _ = given("dataset=coco", "~dataset.val_augment.max_size")
    assert list(dataset.val_augment) == ["_target_", "short_sizes", "extra"]


def test_the_same_settings_are_not_remarked_on() -> None:
    assert given(*OWN)[1] == []


def test_a_key_alone_changes_the_dataset_of_the_training() -> None:
    before = trained()
    dataset, lines = given("dataset.val.annotations=other.json", "dataset.val.images=here", before=before)
    expected = plain(before.dataset)
    expected["val"] |= {"annotations": "other.json", "images": "here"}
    assert plain(dataset) == expected
    assert lines == []
    dataset, lines = given("dataset.metrics=[coco]", "dataset.val.limit=3", before=before)
    assert (list(dataset.metrics), dataset.val.limit) == (["coco"], 3)
    assert lines == ['other than in the detector\'s training: dataset.metrics=["coco"] (there ["coco","voc"])']


def test_what_is_built_into_the_detector_is_said_to_have_no_effect() -> None:
    for more in ([], ["dataset=custom", "dataset.val.annotations=other.json"]):
        dataset, lines = given(*more, "dataset.rois=300", "dataset.anchor_sizes=[8,16,32,64,128]")
        assert dataset.rois == 256
        assert lines[-1] == "without effect on a trained detector: dataset.rois=300 (there 256)"


def test_a_trained_detector_may_find_more() -> None:
    for more in ([], ["dataset=custom", "dataset.val.annotations=other.json"]):
        dataset, lines = given(*more, "dataset.detections=300")
        assert dataset.detections == 300
        assert "dataset.detections=300 (there 100)" in lines[-1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.val.anotations=x", r"unknown key 'dataset.val.anotations'; did you mean dataset.val.annotations\?"),
        ("dataset.vol=x", "unknown key 'dataset.vol'; did you mean dataset.val"),
        ("dataset.val.new.key=x", "unknown key"),
    ],
)
def test_misspelt_keys_are_answered(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given(override)


def test_a_key_that_has_been_used_up_needs_the_dataset() -> None:
    before = trained("dataset=voc07", "data_dir=/datasets")
    with pytest.raises(
        ValueError, match=r"dataset\.val_split: .* give it beside dataset=voc07, or another dataset=NAME"
    ):
        given("dataset.val_split=test", before=before)
    dataset, _ = given("dataset=voc07", "dataset.val_split=test", before=before)
    assert plain(dataset.val.sets) == [["2007", "test"]]
    assert dataset.val.root == "/datasets/VOCdevkit"


def test_keys_below_dataset_alone_may_come_with_the_checkpoint() -> None:
    given = ["checkpoint=x.ckpt", "dataset.val_augment.short_sizes=[9]"]
    assert allow_new_keys(given) == [given[0], f"++{given[1]}"]
    assert allow_new_keys([*given, "dataset=coco"]) == [*given, "dataset=coco"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    """The configuration of a file of torchvision's weights."""
    path = tmp_path_factory.mktemp("torchvision") / "weights.pth"
    model = torchvision.models.get_model("fasterrcnn_resnet50_fpn", weights=None, weights_backbone=None)
    torch.save(model.state_dict(), path)
    return open_checkpoint(f"torchvision:fasterrcnn_resnet50_fpn:{path}").config


@pytest.mark.parametrize("mark", ["", "++"])
def test_weights_of_torchvision_keep_their_scale(published: DictConfig, mark: str) -> None:
    before = published.copy()
    for name in ("custom", "voc07"):
        more = ["dataset.val.annotations=x.json"] if name == "custom" else []
        for own, sizes in (([f"{mark}dataset.val_augment.short_sizes=[96]"], [96]), ([], [800])):
            dataset, _ = given(f"dataset={name}", *more, *own, before=before)
            assert (list(dataset.val_augment.short_sizes), dataset.val_augment.max_size) == (sizes, 1333)


def test_initial_weights_of_another_scale_are_remarked_on() -> None:
    config = with_classes(compose_config(*OWN[:3]), CLASSES)
    changed = changed_settings(config, portable_config(with_classes(compose_config(*OWN), CLASSES)))
    assert "dataset.val_augment.short_sizes=[64] (here [480])" in changed
    assert "dataset.val_augment.max_size=96 (here 800)" in changed
    assert "dataset.anchor_sizes=[8,16,32,64,128] (here [16,32,64,128,256])" in changed
    assert changed_settings(config, portable_config(config)) == []


def test_images_of_other_annotations_are_looked_up() -> None:
    before = trained(*OWN, "dataset.val.images=photos/val")
    split, _ = given("dataset.val.annotations=other.json", before=before)
    read = {"annotations": "other.json", "images": None, "shared_images": "photos/val"}
    read["shared_annotations"] = ["val.json"]
    assert read.items() <= plain(split.val).items()
    split, _ = given("dataset.val.annotations=other.json")
    assert read | {"shared_images": "photos", "shared_annotations": ["val.json", "train.json"]} == {
        key: split.val[key] for key in read
    }
    split, _ = given("dataset.val.annotations=x.json", before=trained("dataset=coco", "data_dir=/datasets"))
    assert split.val.images == "/datasets/coco/val2017"  # COCO's own names do not repeat


def test_the_pictures_of_the_training_are_not_taken_for_others_of_their_names(tmp_path: Path) -> None:
    def annotated(path: Path, name: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = {"id": 1, "file_name": name, "width": 20, "height": 10}
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 5, 4]}
        path.write_text(json.dumps({"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a"}]}))

    annotated(tmp_path / "all.json", "1.png")
    annotated(tmp_path / "other" / "test.json", "1.png")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "1.png")
    whole = [f"dataset.annotations={tmp_path / 'all.json'}", "dataset.val_share=0.5"]
    before = trained("dataset=custom", *whole, f"dataset.images={tmp_path / 'images'}")
    dataset, _ = given(f"dataset.val.annotations={tmp_path / 'other' / 'test.json'}", before=before)
    with pytest.raises(ValueError, match=r"test\.json and .*all\.json both name 1\.png"):
        open_split(dataset.val, "val")


OTHER = ["dataset=custom", "dataset.val.annotations=other.json"]


@pytest.mark.parametrize(
    ("key", "beside"),
    [
        *((key, []) for key in ("dataset.exif", "dataset.reader.exif", "dataset.val.reader.exif", "dataset.reader")),
        *((key, OTHER) for key in ("dataset.exif", "dataset.reader.exif", "dataset.max_pixels", "dataset.reader")),
    ],
)
def test_images_are_read_as_keys_say(key: str, beside: list[str]) -> None:
    name, value = ("max_pixels", 9) if "pixels" in key else ("exif", False)
    override = f"{key}={{exif: false}}" if key == "dataset.reader" else f"{key}={str(value).lower()}"
    dataset, lines = given(*beside, override)
    assert dataset.val.reader[name] == value
    assert dataset.val.reader.channels == 3
    assert not any("effect" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "beside"),
    [
        *((key, []) for key in ("dataset.range", "dataset.reader.range", "dataset.val.reader.range")),
        *((key, OTHER) for key in ("dataset.range", "dataset.reader.range")),
    ],
)
def test_the_range_is_that_of_the_training_or_given(key: str, beside: list[str]) -> None:
    for trained_by in ("dataset.range", "dataset.reader.range"):
        before = trained(*OWN, f"{trained_by}=[0,4095]")
        other, _ = given(*(beside or ["dataset.val.limit=3"]), before=before)
        assert list(other.val.reader.range) == [0, 4095]
        dataset, _ = given(*beside, f"{key}=[0,255]", before=before)
        assert list(dataset.val.reader.range) == [0, 255]
        assert list(dataset.train.reader.range) == [0, 4095 if "val" in key else 255]
    channels = key.replace("range", "channels")
    with pytest.raises(ValueError, match=rf"{channels}=1: the detector was trained on 3; leave it out"):
        given(*beside, f"{channels}=1")


def test_a_key_below_a_reference_is_answered_by_the_one_that_is_set() -> None:
    known = compose_config("dataset=custom")
    assert unknown_key("dataset.val.reader.exif", known) == ("dataset.val.reader.exif follows dataset.exif; set that")
    assert unknown_key("dataset.val.reader._target_", known).startswith(
        "dataset.val.reader._target_ follows dataset.re"
    )
    with pytest.raises(ValueError, match=r"dataset\.val\.reader\.exif follows dataset\.exif"):
        compose([*OTHER, "dataset.val.reader.exif=false"])
    with pytest.raises(ValueError, match=r"dataset\.val\.reader\.exif follows dataset\.exif"):
        check_additions("train", [*OTHER, "++dataset.val.reader.exif=false"])


def without_reader() -> DictConfig:
    """The configuration of a detector that was trained when there was no reader."""
    before = trained()
    for key in ("channels", "range", "exif", "max_pixels", "reader"):
        del before.dataset[key]
    del before.dataset.train.reader, before.dataset.val.reader
    return before


@pytest.mark.parametrize("key", ["dataset.exif=false", "dataset.reader.exif=false", "dataset.val.reader.exif=false"])
def test_detectors_from_before_there_were_readers_take_their_keys(key: str) -> None:
    dataset, _ = given(key, before=without_reader())
    assert dataset.val.reader == {**trained().dataset.reader, "exif": False}
    dataset, _ = given(key.replace("exif=false", "range=[0,4095]"), before=without_reader())
    assert list(dataset.val.reader.range) == [0, 4095]
    with pytest.raises(ValueError, match="trained on 3; leave it out"):
        given(key.replace("exif=false", "channels=5"), before=without_reader())
    assert "reader" not in given("dataset.val.limit=3", before=without_reader())[0]
    with pytest.raises(ValueError, match=r"unknown key 'dataset.exiff'; did you mean dataset.exif\?"):
        given("dataset.exif=false", "dataset.exiff=false", before=without_reader())


class Unread:
    """A dataset that reads its images itself."""

    def __init__(self, path: str) -> None: ...


def test_a_dataset_that_takes_no_reader_is_named() -> None:
    before = trained()
    before.dataset.val = {"_target_": f"{__name__}.Unread", "path": "x"}
    _, lines = given("dataset.exif=false", before=before)
    assert lines == [
        "without effect on a trained detector: dataset.exif (dataset.val reads its images itself: "
        f"{__name__}.Unread takes no `reader`)"
    ]


NOTHING = "without effect on a trained detector: "
READ = "(images of dataset.val are read)"


def test_keys_that_only_a_training_uses_are_said_to_have_no_effect() -> None:
    before = trained("dataset=shapes", "data_dir=data")
    _, lines = given("dataset.train.seed=3", "dataset.train.masks=false", before=before)
    assert lines == [f"{NOTHING}dataset.train.seed {READ}, dataset.train.masks {READ}"]
    dataset, lines = given("dataset=shapes", "dataset.train.seed=3", before=before)  # val's refers to it
    assert (dataset.val.seed, lines) == (3, [])
    custom = ["dataset=custom", "dataset.val.annotations=o.json", "dataset.train.images=photos"]
    _, lines = given(*custom, "dataset.train.keep_empty=true", "dataset.empty_share=0.2", "dataset.mixing.mosaic.p=1")
    assert lines[-1] == (f"{NOTHING}dataset.train.keep_empty {READ}, dataset.empty_share, dataset.mixing.mosaic.p")
    assert given("dataset.repeat_threshold=0.1")[1] == [f"{NOTHING}dataset.repeat_threshold"]
    _, lines = given("dataset.train_augment.horizontal_flip=0.25", before=before)
    assert lines == [f"{NOTHING}dataset.train_augment.horizontal_flip=0.25 (there 0.5)"]


def test_keys_of_a_split_that_is_opened_have_an_effect() -> None:
    own = ["checkpoint=last.ckpt", "dataset.train.limit=2", "dataset.val.limit=3"]
    config = compose_config(*allow_new_keys(own), name="proposals")
    for splits, useless in (
        (["train", "val"], []),
        (["train"], [f"{NOTHING}dataset.val.limit (images of dataset.train are read)"]),
    ):
        dataset, lines = given_dataset(trained(), config, own, splits)
        assert (dataset.train.limit, lines) == (2, useless)


@pytest.mark.parametrize("name", ["train", "val", "train_augment", "val_augment"])
def test_parts_that_are_null_are_answered(name: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    config = with_classes(compose_config(*OWN), CLASSES)
    torch.save({"aligned_rcnn": {"format": FORMAT, "config": portable_config(config)}, "state_dict": {}}, path)
    for script, own in (
        ("train", ["dataset=shapes"]),
        ("evaluate", [f"checkpoint={path}"]),
        ("evaluate", [f"checkpoint={path}", *OTHER]),
    ):
        overrides = [*own, f"dataset.{name}=null"]
        config = compose_config(*allow_new_keys(overrides), name=script)
        with pytest.raises(ValueError, match=rf"^dataset\.{name}=null: "):
            resolve(config, overrides)
