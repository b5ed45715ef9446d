"""ResNets as bodies: the same numbers as torchvision's, and where theirs are not wanted, those worked out otherwise."""

from functools import cache
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detector.models.backbone import Norm, frozen_batch_norm, group_norm
from detector.models.resnet import ResNet, ResNetStage


def worn(net: nn.Module) -> nn.Module:
    """The network with statistics and weights of norms that no new one has, in evaluation."""
    generator = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.3, 0.8, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return net.eval()


@cache
def network(name: str) -> nn.Module:
    return worn(torchvision.models.get_model(name))


def theirs(net: nn.Module, image: Tensor) -> list[Tensor]:
    """Torchvision's C2, C3, C4, C5, step by step."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(image))))
    features = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        features.append(x)
    return features


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_body_of_fewer_stages(depth: int) -> None:
    body = ResNet("resnet18", depth=depth)
    assert body.channels == [64, 128, 256, 512][:depth]
    assert body.strides == [4, 8, 16, 32][:depth]
    image = torch.randn(1, 3, 64, 96)
    features = body.eval()(image)
    whole = ResNet("resnet18", depth=4).eval()
    assert whole.load_state_dict(body.state_dict(), strict=False).unexpected_keys == []
    for feature, expected in zip(features, whole(image), strict=False):
        torch.testing.assert_close(feature, expected)
    assert [tuple(f.shape[-2:]) for f in features] == [(16, 24), (8, 12), (4, 6), (2, 3)][:depth]


def test_resnet10_is_resnet18_with_one_block_a_stage(tmp_path: Path) -> None:
    net = worn(torchvision.models.resnet18())
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        del stage[1]
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    body = ResNet("resnet10", weights=str(tmp_path / "weights.pth")).eval()
    image = torch.randn(1, 3, 64, 96)
    for feature, expected in zip(body(image), theirs(net, image), strict=True):
        torch.testing.assert_close(feature, expected)
    with pytest.raises(ValueError, match=r"torchvision has none of resnet10; give a file of weights, or .*null"):
        ResNet("resnet10", weights="imagenet")
    with pytest.raises(ValueError, match=r"'resnet11' is no ResNet of torchvision; take one of resnet10, .*resnet18"):
        ResNet("resnet11")


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm, frozen_batch_norm])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_weights_from_a_file_give_torchvisions_features(name: str, norm: Norm, tmp_path: Path) -> None:
    net = network(name)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    body = ResNet(name, norm=norm, weights=str(tmp_path / "weights.pth")).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        features = body(image)
        for feature, expected, channels in zip(features, theirs(net, image), body.channels, strict=True):
            assert feature.shape[1] == channels
            torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, frozen_batch_norm])
def test_c4_and_the_fifth_stage_make_the_whole(name: str, norm: Norm, tmp_path: Path) -> None:
    net = network(name)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    arguments = {"name": name, "norm": norm, "weights": str(tmp_path / "weights.pth")}
    body, stage = ResNet(**arguments, depth=3).eval(), ResNetStage(**arguments).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(stage(body(image)[-1]), theirs(net, image)[-1], rtol=1e-5, atol=1e-5)
        assert stage(torch.randn(2, body.channels[-1], 14, 14)).shape == (2, 2 * body.channels[-1], 7, 7)
    assert all(key.startswith("layer4.") for key in stage.state_dict())


def test_frozen_norms_of_the_fifth_stage_stay() -> None:
    stage = ResNetStage("resnet18", norm=frozen_batch_norm).train()
    before = {k: v.clone() for k, v in stage.state_dict().items()}
    stage(torch.randn(2, 256, 14, 14)).square().mean().backward()
    assert all(torch.equal(v, before[k]) for k, v in stage.state_dict().items())
    assert all(p.ndim == 4 for p in stage.parameters())
    assert [name for name, p in stage.named_parameters() if p.grad is None or not p.grad.any()] == []


def strides(net: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: m.stride for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)}


@pytest.mark.parametrize("part", [ResNet, ResNetStage])
def test_the_stride_may_be_in_the_1x1(part: type[nn.Module]) -> None:
    plain, caffe = part("resnet50").eval(), part("resnet50", stride_in_1x1=True).eval()
    stages = [2, 3, 4] if part is ResNet else [4]
    shared = {f"layer{i}.0.downsample.0" for i in stages}
    stem = {"stem.0"} if part is ResNet else set()
    assert strides(plain).keys() == stem | shared | {f"layer{i}.0.conv2" for i in stages}
    assert strides(caffe).keys() == stem | shared | {f"layer{i}.0.conv1" for i in stages}
    caffe.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64) if part is ResNet else torch.randn(1, 1024, 14, 14)
    ours, expected = caffe(x), plain(x)
    for mine, other in zip(ours, expected, strict=True):
        assert mine.shape == other.shape
    assert not torch.allclose(ours[-1], expected[-1])
    # A convolution of one cell that strides sees every second cell alone.
    x = torch.randn(1, 1024, 14, 14)
    beside = x.clone()
    beside[:, :, 1::2] = 0
    assert torch.equal(caffe.layer4[0](x), caffe.layer4[0](beside))
    assert not torch.allclose(plain.layer4[0](x), plain.layer4[0](beside))


@pytest.mark.parametrize(
    ("name", "caffe"), [("resnet18", False), ("resnet50", False), ("resnet50", True), ("resnext50_32x4d", False)]
)
def test_a_dilated_stage_is_the_plain_one_on_every_second_cell(name: str, caffe: bool) -> None:
    plain = ResNet(name, stride_in_1x1=caffe).double()
    dilated = ResNet(name, dilation=2, stride_in_1x1=caffe).double().eval()
    assert dilated.channels == plain.channels
    assert dilated.strides == [4, 8, 16, 16]
    dilated.load_state_dict(plain.state_dict())
    stage = plain.eval().layer4
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    image = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    with torch.inference_mode():
        *_, c4, c5 = dilated(image)
        torch.testing.assert_close(c4, plain(image)[2])
        assert c5.shape[-2:] == c4.shape[-2:] == (6, 8)
        for row in (0, 1):
            for column in (0, 1):
                expected = stage(c4[:, :, row::2, column::2])
                torch.testing.assert_close(c5[:, :, row::2, column::2], expected)


@pytest.mark.parametrize("count", range(6))
def test_frozen_stages_are_neither_trained_nor_counted(count: int) -> None:
    body = ResNet("resnet18", freeze_at=count)
    frozen = ("stem", "layer1", "layer2", "layer3", "layer4")[:count]
    for mode in (None, True):  # as built, and where training is told to begin
        if mode is not None:
            body.eval().train(mode)
        before = {k: v.clone() for k, v in body.state_dict().items()}
        features = body(torch.randn(2, 3, 64, 64))
        stays = {k for k, v in body.state_dict().items() if "running" in k and torch.equal(v, before[k])}
        assert stays == {k for k in before if "running" in k and k.startswith(frozen)}
    if count < 5:
        features[-1].square().mean().backward()
    assert {k for k, p in body.named_parameters() if p.grad is None} == {
        k for k, _ in body.named_parameters() if k.startswith(frozen)
    }


def test_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match="1 to 4, got 5"):
        ResNet("resnet18", depth=5)
    with pytest.raises(ValueError, match="must be 0 to 4, the number of stages, got 5"):
        ResNet("resnet18", depth=3, freeze_at=5)
    for name in ("resnet19", "vgg16"):
        with pytest.raises(ValueError, match=f"{name}.*resnet18.*resnext50_32x4d"):
            ResNet(name)
    for part in (ResNet, ResNetStage):
        with pytest.raises(ValueError, match=r"stride_in_1x1.*resnet34.*resnet50"):
            part("resnet34", stride_in_1x1=True)
    for dilation, depth in ((2, 3), (3, 4), (0, 4)):
        with pytest.raises(ValueError, match=f"1, or 2 with depth=4, got dilation={dilation}"):
            ResNet("resnet18", dilation=dilation, depth=depth)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    net = torchvision.models.resnet18()
    torch.save(net.state_dict(), file)
    with pytest.raises(ValueError, match=r"weights\.pth.*batch norms, which this network does not have.*norm=frozen"):
        ResNet("resnet18", norm=group_norm, weights=str(file))
    with pytest.raises(ValueError, match=r"weights\.pth.*missing \['layer1\.2\.conv1\.weight'"):
        ResNet("resnet34", weights=str(file))
    torch.save(torchvision.models.resnet18(norm_layer=group_norm).state_dict(), file)
    ResNet("resnet18", norm=group_norm, weights=str(file))
    with pytest.raises(ValueError, match=r"weights\.pth.*without batch norms; take norm=group"):
        ResNet("resnet18", weights=str(file))
    torch.save(net.state_dict() | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, file)
    with pytest.raises(ValueError, match=r"conv1\.weight \(64, 1, 7, 7\) for \(64, 3, 7, 7\)"):
        ResNet("resnet18", weights=str(file))
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="state dict was expected, the file holds a list"):
        ResNet("resnet18", weights=str(file))
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="not a file of weights"):
        ResNet("resnet18", weights=str(file))
    with pytest.raises(ValueError, match=r"IMAGENET1K_V9.*resnet18 has IMAGENET1K_V1"):
        ResNet("resnet18", weights="IMAGENET1K_V9")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ResNet("resnet18", weights=str(tmp_path / "nowhere"))


def test_imagenets_weights_are_taken_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    net = worn(torchvision.models.resnet18())
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    torch.save(net.state_dict(), folder / url.rsplit("/", 1)[-1])
    for weights in ("imagenet", "IMAGENET1K_V1"):
        body = ResNet("resnet18", weights=weights, norm=frozen_batch_norm, depth=3, freeze_at=2).eval()
        image = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(body(image)[-1], theirs(net, image)[2])
