"""The pyramid, the single level, the norms, and detectors on each kind of backbone."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detector.config import build
from detector.config.resolve import with_classes
from detector.models.backbone import FPN, Norm, SingleLevel, frozen_batch_norm, group_norm
from detector.models.resnet import ResNet
from detector.models.vgg import VGG16
from tests.config.test_combinations import CHANNELS, KINDS
from tests.conftest import CLASSES, compose_config, confident, random_batch


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_levels_beyond_the_body_are_every_second_cell(depth: int) -> None:
    levels = FPN(ResNet("resnet18", depth=depth), channels=8, norm=nn.BatchNorm2d).eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape[-2:]) for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    for fine, coarse in zip(levels[depth - 1 : -1], levels[depth:], strict=True):
        assert torch.equal(coarse, fine[:, :, ::2, ::2])


def test_a_pyramid_begins_where_its_body_does() -> None:
    levels = FPN(VGG16(), channels=8, strides=[16, 32]).eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape) for level in levels] == [(1, 8, 4, 6), (1, 8, 2, 3)]


def test_every_weight_of_a_small_body_is_trained() -> None:
    fpn = FPN(ResNet("resnet18", depth=3), channels=8)
    torch.stack([level.square().mean() for level in fpn(torch.randn(2, 3, 64, 64))]).sum().backward()
    assert [name for name, p in fpn.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_strides_that_make_no_pyramid() -> None:
    for strides in ([4, 8, 16], [4, 8, 16, 48], [8, 16, 32, 64]):
        with pytest.raises(ValueError, match=r"must be 4, 8, 16, .* at least the body's 4, got"):
            FPN(ResNet("resnet18"), strides=strides)
    with pytest.raises(ValueError, match=r"each twice the one before; this one's are \[4, 8, 16, 16\]"):
        FPN(ResNet("resnet18", dilation=2), strides=[4, 8, 16, 16])
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        FPN(ResNet("resnet18"), channels=0)


def test_a_single_level_is_the_last_one() -> None:
    body = ResNet("resnet18", depth=3).eval()
    image = torch.randn(1, 3, 64, 96)
    (level,) = SingleLevel(body, channels=256, strides=[16])(image)
    assert torch.equal(level, body(image)[-1])
    for channels, strides in ((512, [16]), (256, [32]), (256, [8, 16])):
        with pytest.raises(ValueError, match=r"256 channels and strides \[16\], but channels is"):
            SingleLevel(body, channels, strides)


@pytest.mark.parametrize(
    ("norm", "kind", "learnt"),
    [
        (nn.BatchNorm2d, nn.BatchNorm2d, True),
        (nn.SyncBatchNorm, nn.SyncBatchNorm, True),
        (frozen_batch_norm, FrozenBatchNorm2d, False),
        (group_norm, nn.GroupNorm, True),
    ],
)
def test_norms(norm: Norm, kind: type[nn.Module], learnt: bool) -> None:
    fpn = FPN(ResNet("resnet18", norm=norm, depth=2), channels=32, norm=norm)
    made = {type(m) for m in fpn.modules() if "Norm" in type(m).__name__}
    assert made == {kind}
    # Two convolutions a level; each has a bias, if only one.
    biases = [name for name, _ in fpn.named_parameters() if name.startswith(("lateral", "output")) and "bias" in name]
    assert len(biases) == 4
    assert all(("1.bias" in name) is learnt for name in biases)
    before = [b.clone() for b in fpn.buffers()]
    torch.stack([level.square().mean() for level in fpn(torch.randn(2, 3, 64, 64))]).sum().backward()
    assert [name for name, p in fpn.named_parameters() if p.grad is None or not p.grad.any()] == []
    changed = [not torch.equal(a, b) for a, b in zip(before, fpn.buffers(), strict=True)]
    assert changed == [kind is not FrozenBatchNorm2d] * len(before)


def test_a_frozen_norm_divides_by_the_deviation() -> None:
    x = torch.randn(2, 3, 4, 4)
    norm = partial(frozen_batch_norm, eps=0.0)(3)
    mean, variance = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([4.0, 0.25, 1e-6])
    norm.load_state_dict(
        {"weight": torch.ones(3), "bias": torch.zeros(3), "running_mean": mean, "running_var": variance}
    )
    expected = (x - mean.view(3, 1, 1)) / torch.tensor([2.0, 0.5, 1e-3]).view(3, 1, 1)
    torch.testing.assert_close(norm(x), expected)
    assert not torch.allclose(frozen_batch_norm(3)(x), frozen_batch_norm(3, eps=0.5)(x))


def test_norms_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"48 channels do not make 32 groups; take norm\.groups=16"):
        group_norm(48)
    with pytest.raises(ValueError, match="0 groups"):
        group_norm(48, groups=0)
    with pytest.raises(ValueError, match=r"norm\.eps.*at least 0, got -1"):
        frozen_batch_norm(48, eps=-1)


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("choice", KINDS)
def test_a_detector_on_it_learns_everywhere_and_finds_what_it_finds(choice: str) -> None:
    width = [f"backbone.channels={CHANNELS[choice]}", f"backbone.width={128 if choice.endswith('c4') else 32}"]
    few = ["dataset.rois=16", "dataset.rpn.test.post_nms_topk=40"]
    config = compose_config(f"backbone={choice}", "model=mask_rcnn", *width, *few)
    model = build.build_model(with_classes(config, CLASSES))
    torch.stack(list(model.loss(random_batch(2, 1)).values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    model = confident(model)
    batch = random_batch(2, size=(90, 75) if config.backbone.size_divisibility == 1 else (96, 64))
    with torch.inference_mode():
        found = model(batch)[0]
        empty = [torch.zeros(0, 4)]
        nothing = model.heads(model.features(batch), empty, batch.sizes)[0]
    assert len(found) > 0
    assert found.boxes[:, 2].max() <= batch.sizes[0][1]
    assert found.masks is not None
    assert len(nothing) == 0
