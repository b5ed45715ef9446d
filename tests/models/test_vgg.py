from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from detector.models.vgg import VGG16, VGGTrunk


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return torchvision.models.vgg16(init_weights=False).eval()


@pytest.fixture(scope="module")
def file(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(net.state_dict(), path)
    return str(path)


def test_the_body_is_torchvisions_up_to_conv5_3(net: nn.Module, file: str) -> None:
    body = VGG16(weights=file)
    assert (body.channels, body.strides) == ([512], [16])
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        (feature,) = body(image)
        torch.testing.assert_close(feature, net.features[:30](image))
        torch.testing.assert_close(nn.functional.max_pool2d(feature, 2), net.features(image))
    assert feature.shape == (1, 512, 4, 6)


def test_the_trunk_is_torchvisions_fc6_and_fc7(net: nn.Module, file: str) -> None:
    trunk = VGGTrunk(weights=file).eval()
    pooled = torch.randn(3, 512, 7, 7)
    with torch.inference_mode():
        expected = net.classifier[:6](pooled.flatten(1))
        torch.testing.assert_close(trunk(pooled), expected)
        assert expected.shape == (3, 4096)


def test_the_trunk_drops_in_training_alone() -> None:
    trunk = VGGTrunk(channels=4, size=2, width=400).train()
    pooled = torch.randn(1, 4, 2, 2)
    hidden = trunk[2](torch.ones(1, 400))
    assert set(hidden.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(trunk(pooled), trunk(pooled))
    assert torch.equal(trunk.eval()(pooled), trunk(pooled))


@pytest.mark.parametrize("count", range(6))
def test_stages_between_the_pools_are_frozen(count: int) -> None:
    body = VGG16(freeze_at=count)
    trained = {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad}
    assert trained == {f"conv{i}" for i in range(count + 1, 6)}
    if count == 2:
        body(torch.randn(1, 3, 32, 32))[0].square().mean().backward()
        moved = {name for name, p in body.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {name for name, _ in body.named_parameters() if name[:5] in ("conv3", "conv4", "conv5")}


def test_what_does_not_fit(file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be 0 to 5, the number of stages, got 6"):
        VGG16(freeze_at=6)
    with pytest.raises(ValueError, match=r"0\.weight \(4096, 25088\) for \(8, 512, 7, 7\)"):
        VGGTrunk(width=8, weights=file)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet.pth")
    for part in (VGG16, VGGTrunk):
        with pytest.raises(ValueError, match=r"resnet\.pth.*missing \['0\.weight'"):
            part(weights=str(tmp_path / "resnet.pth"))
