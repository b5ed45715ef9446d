"""Networks on images of other channels than RGB."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from detector.config.images import fit_normalization
from detector.config.resolve import with_classes
from detector.models.backbone import Body
from detector.models.extracted import Extracted, torchvision_model
from detector.models.folding import fold
from detector.models.pretrained import adapt_stem, set_in_channels
from detector.models.rcnn import Normalize
from detector.models.resnet import ResNet
from detector.models.vgg import VGG16
from detector.weights import PretrainedWeights, changed_settings, load_weights
from detector.weights.checkpoints import portable_config
from tests.conftest import CLASSES, compose_config, confident, random_batch, small_model

STEMS = {"resnet": "stem.0.weight", "vgg": "conv1.0.weight", "extracted": "net.conv1.weight"}


def body(kind: str, channels: int, weights: str | None = None) -> Body:
    if kind == "resnet":
        return ResNet("resnet18", weights=weights, depth=2, in_channels=channels)
    if kind == "vgg":
        return VGG16(weights, in_channels=channels)
    return Extracted(torchvision_model("resnet18", weights, in_channels=channels), ["layer1"], in_channels=channels)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_filters_are_adapted_as_timms(channels: int) -> None:
    weight = torch.randn(4, 3, 5, 5)
    adapted = adapt_stem(weight, channels)
    assert adapted.shape == (4, channels, 5, 5)
    for d in range(channels):
        wanted = weight.sum(1) if channels == 1 else weight[:, d % 3] * 3 / channels
        assert torch.allclose(adapted[:, d], wanted)


@pytest.mark.parametrize("kind", STEMS)
def test_pretrained_stems_are_adapted_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    name = "vgg16" if kind == "vgg" else "resnet18"
    state = torch.nn.Module.state_dict(torchvision_model(name))
    if kind != "extracted":
        state = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier."))}
    torch.save(state, file := tmp_path / "weights.pth")
    first = state["features.0.weight" if kind == "vgg" else "conv1.weight"]
    adapted = {}
    with caplog.at_level(logging.INFO):
        for channels in (1, 3, 5):
            caplog.clear()
            adapted[channels] = body(kind, channels, str(file))
            assert torch.equal(adapted[channels].state_dict()[STEMS[kind]], adapt_stem(first, channels))
            how = {1: "summed", 3: "", 5: "repeated and scaled by 3/5"}[channels]
            assert how in caplog.text if how else not caplog.text
    grey = torch.rand(1, 1, 64, 64)
    for a, b in zip(adapted[1].eval()(grey), adapted[3].eval()(grey.expand(-1, 3, -1, -1)), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_networks_without_a_convolution_on_rgb_are_named() -> None:
    with pytest.raises(ValueError, match="in_channels=5: Sequential has no convolution on RGB to replace"):
        set_in_channels(nn.Sequential(nn.Conv2d(4, 8, 3)), 5)


def test_normalisation_follows_the_channels() -> None:
    for channels, wanted in ((1, [114.495]), (4, [123.675, 116.28, 103.53, 123.675])):
        config = compose_config(f"dataset.channels={channels}")
        fit_normalization(config)
        assert list(config.model.normalize.mean) == pytest.approx(wanted)
        assert len(config.model.normalize.std) == channels
    own = compose_config("dataset.channels=2", "model.normalize.mean=[1,2]", "model.normalize.std=[3,4]")
    fit_normalization(own)
    assert list(own.model.normalize.mean) == [1, 2]
    with pytest.raises(ValueError, match=r"model\.normalize\.std has 2 numbers, and dataset\.channels is 5; give as"):
        fit_normalization(compose_config("dataset.channels=5", "model.normalize.std=[3,4]"))
    with pytest.raises(ValueError, match="mean and std must have a number for each channel, not 3 and 2"):
        Normalize([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"4 channels, but model\.normalize\.mean and std have 3"):
        Normalize([1, 2, 3], [1, 2, 3])(torch.zeros(1, 4, 8, 8), [(8, 8)])


def test_weights_of_an_rgb_run_are_said_to_differ_where_more_than_the_channels_does() -> None:
    rgb = portable_config(with_classes(compose_config(), CLASSES))
    for channels in (1, 5):
        config = with_classes(compose_config(f"dataset.channels={channels}"), CLASSES)
        fit_normalization(config)
        assert changed_settings(config, rgb) == []
        config.model.normalize.mean = [7.0] * channels
        assert [line.split("=")[0] for line in changed_settings(config, rgb)] == ["model.normalize.mean"]


@pytest.mark.parametrize("channels", [1, 5])
def test_detectors_of_other_channels_train_fold_and_take_weights_of_rgb(channels: int) -> None:
    config = compose_config("backbone.channels=32", "backbone.width=64", f"dataset.channels={channels}")
    fit_normalization(config)
    numbers = [f"model.normalize.{name}={list(config.model.normalize[name])}" for name in ("mean", "std")]
    model = small_model(f"dataset.channels={channels}", *numbers)
    batch = random_batch(2, 3)
    batch.images = batch.images[:, [d % 3 for d in range(channels)]].float() * 1.1
    losses = model.loss(batch)
    torch.stack(list(losses.values())).sum().backward()
    stem = model.get_parameter("backbone.body.stem.0.weight")
    assert stem.grad is not None
    assert bool(stem.grad.abs().sum((0, 2, 3)).gt(0).all())
    model = confident(model)
    with torch.inference_mode():
        for a, b in zip(model(batch), fold(model)(batch), strict=True):
            assert len(a) == len(b) > 0
            assert torch.allclose(a.boxes, b.boxes, atol=1e-2)
    rgb = small_model(seed=3)
    report = load_weights(model, PretrainedWeights(rgb.state_dict(), [], CLASSES, "rgb.ckpt"), CLASSES)
    assert torch.equal(stem, adapt_stem(rgb.get_parameter("backbone.body.stem.0.weight"), channels))
    assert "backbone.body.stem.0.weight: the filters of R, G and B are" in str(report)
    with pytest.raises(ValueError, match="1 of another shape"):
        load_weights(
            small_model("dataset.channels=2"), PretrainedWeights(model.state_dict(), [], CLASSES, "x.ckpt"), CLASSES
        )
    assert with_classes(config, CLASSES).backbone.in_channels == channels
