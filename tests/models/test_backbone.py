import pytest
import torch
from torch import nn

from detector.models.backbone import FPN, ResNet


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_body_of_fewer_stages(depth: int) -> None:
    body = ResNet("resnet18", depth=depth)
    assert body.channels == [64, 128, 256, 512][:depth]
    image = torch.randn(1, 3, 64, 96)
    features = body.eval()(image)
    whole = ResNet("resnet18", depth=4).eval()
    assert whole.load_state_dict(body.state_dict(), strict=False).unexpected_keys == []
    for feature, expected in zip(features, whole(image), strict=False):
        torch.testing.assert_close(feature, expected)
    assert [tuple(f.shape[-2:]) for f in features] == [(16, 24), (8, 12), (4, 6), (2, 3)][:depth]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_levels_beyond_the_body_are_every_second_cell(depth: int) -> None:
    levels = FPN(ResNet("resnet18", depth=depth), channels=8, norm=nn.BatchNorm2d).eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape[-2:]) for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    for fine, coarse in zip(levels[depth - 1 : -1], levels[depth:], strict=True):
        assert torch.equal(coarse, fine[:, :, ::2, ::2])


def test_every_weight_of_a_small_body_is_trained() -> None:
    fpn = FPN(ResNet("resnet18", depth=3), channels=8)
    torch.stack([level.square().mean() for level in fpn(torch.randn(2, 3, 64, 64))]).sum().backward()
    assert [name for name, p in fpn.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_depths_and_levels_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="1 to 4, got 5"):
        ResNet("resnet18", depth=5)
    with pytest.raises(ValueError, match="of 4, got 5"):
        ResNet("resnet18", depth=3, freeze_at=5)
    for strides in ([4, 8, 16], [4, 8, 16, 48], [8, 16, 32, 64]):
        with pytest.raises(ValueError, match="at least the body's 4, got"):
            FPN(ResNet("resnet18"), strides=strides)
