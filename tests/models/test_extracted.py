"""Features read in networks of torchvision and in one that is written here."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detector.models.backbone import FPN, SingleLevel, frozen_batch_norm, group_norm
from detector.models.extracted import Extracted, torchvision_model

MOBILE = ["features.3", "features.6", "features.12", "features.16"]
CONVNEXT = ["features.1", "features.3", "features.5", "features.7"]
FOUR = [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("name", "nodes", "channels"),
    [
        ("mobilenet_v3_large", MOBILE, [24, 40, 112, 960]),
        ("convnext_tiny", CONVNEXT, [96, 192, 384, 768]),
        ("swin_t", CONVNEXT, [96, 192, 384, 768]),
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"], [64, 128, 256, 512]),
    ],
)
def test_a_pyramid_over_what_is_read(name: str, nodes: list[str], channels: list[int]) -> None:
    body = Extracted(torchvision_model(name), nodes)
    assert body.training
    assert (body.channels, body.strides) == (channels, FOUR)
    fpn = FPN(body, channels=8).eval()
    with torch.inference_mode():
        levels = fpn(torch.randn(1, 3, 96, 64))
    sides = [(24, 16), (12, 8), (6, 4), (3, 2), (2, 1)]
    assert [tuple(level.shape) for level in levels] == [(1, 8, *side) for side in sides]


def test_the_features_are_the_networks_own() -> None:
    model = torchvision_model("mobilenet_v3_large").eval()
    body = Extracted(model, MOBILE).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        for node, feature in zip(MOBILE, body(image), strict=True):
            end = int(node.rpartition(".")[2]) + 1
            torch.testing.assert_close(feature, model.features[:end](image))
    assert not any("classifier" in key for key in body.state_dict())


def test_swins_maps_are_turned() -> None:
    model = torchvision_model("swin_t").eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        (feature,) = Extracted(model, ["features.1"]).eval()(image)
        torch.testing.assert_close(feature.permute(0, 2, 3, 1), model.features[:2](image))


def test_every_weight_that_is_left_is_trained() -> None:
    level = SingleLevel(Extracted(torchvision_model("mobilenet_v3_large"), MOBILE[:3]), 112, [16])
    level(torch.randn(2, 3, 64, 64))[0].square().mean().backward()
    assert [name for name, p in level.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("name", "nodes"), [("mobilenet_v3_large", MOBILE), ("convnext_tiny", CONVNEXT)])
def test_what_frozen_nodes_come_from_is_not_trained(name: str, nodes: list[str]) -> None:
    body = Extracted(torchvision_model(name), nodes, freeze_at=2)
    last = int(nodes[1].rpartition(".")[2])

    def frozen(key: str) -> bool:
        return int(key.split(".")[2]) <= last

    before = {k: v.clone() for k, v in body.state_dict().items()}
    body(torch.randn(2, 3, 64, 64))[-1].square().mean().backward()
    for key, parameter in body.named_parameters():
        assert (parameter.grad is None) is frozen(key), key
    for key, value in body.state_dict().items():
        if "running" in key:
            assert torch.equal(value, before[key]) is frozen(key), key
    body.eval().train()
    assert {m.training for k, m in body.named_modules() if isinstance(m, nn.BatchNorm2d) and frozen(k)} <= {False}


def test_a_copy_and_its_weights_are_the_same_network() -> None:
    body = Extracted(torchvision_model("mobilenet_v3_large"), MOBILE).eval()
    other = Extracted(torchvision_model("mobilenet_v3_large"), MOBILE).eval()
    other.load_state_dict(body.state_dict())
    image = torch.randn(1, 3, 64, 64)
    for same in (other, copy.deepcopy(body).eval()):
        torch.testing.assert_close(same(image)[-1], body(image)[-1])


def test_batch_norms_are_replaced_with_all_they_know(tmp_path: Path) -> None:
    model = torchvision.models.mobilenet_v3_large()
    model(torch.randn(4, 3, 64, 64))  # statistics
    torch.save(model.eval().state_dict(), tmp_path / "weights.pth")
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model.features(image)
        for norm in (None, nn.BatchNorm2d, nn.SyncBatchNorm, frozen_batch_norm):
            loaded = torchvision_model("mobilenet_v3_large", weights=str(tmp_path / "weights.pth"), norm=norm).eval()
            torch.testing.assert_close(loaded.features(image), expected)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in loaded.modules())
    with pytest.raises(ValueError, match=r"weights\.pth.*trained with batch norms, and norm makes GroupNorm"):
        torchvision_model("resnet18", weights=_saved("resnet18", tmp_path), norm=group_norm)
    grouped = torchvision_model("resnet18", norm=group_norm)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in grouped.modules())


def _saved(name: str, folder: Path) -> str:
    path = folder / "weights.pth"
    torch.save(torchvision.models.get_model(name).state_dict(), path)
    return str(path)


class Plain(nn.Module):
    """Strides 2, 6 and 12, tokens, a branch on data, and a layer without padding."""

    def __init__(self, branch: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(2, 2), nn.MaxPool2d(4, 4)
        self.bare = nn.Conv2d(3, 4, 3, 2)
        self.tokens = nn.Flatten(2)
        self.branch = branch

    def forward(self, image: Tensor) -> Tensor:
        if self.branch and image.sum() > 0:
            image = -image
        x = self.a(image)
        return self.tokens(self.c(x)).sum() + self.b(x).sum() + self.bare(image).sum()


def test_any_module_will_do() -> None:
    body = Extracted(Plain(), ["a", "b"])
    assert (body.channels, body.strides) == ([4, 4], [2, 4])
    assert [tuple(f.shape[2:]) for f in body(torch.randn(1, 3, 64, 96))] == [(32, 48), (16, 24)]
    with pytest.raises(ValueError, match=r"each twice the one before; this one's are \[2, 8\]"):
        FPN(Extracted(Plain(), ["a", "c"]), strides=[2, 8])


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (["a", "layer7"], "Plain has no 'layer7'; it has image, a, c, tokens, .*within these"),
        ([], "at least one name"),
        (["a", "a"], "none of them twice"),
        (["tokens"], r"'tokens' gives \(1, 4, 320\).* take another node"),
        (["bare"], r"'bare' gives \(1, 4, 63, 79\) for an image of 128 by 160"),
    ],
)
def test_nodes_that_give_no_feature(nodes: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Extracted(Plain(), nodes)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"torch\.fx cannot trace Plain"):
        Extracted(Plain(branch=True), ["a"])
    with pytest.raises(ValueError, match="must be 0 to 2, the number of nodes, got 3"):
        Extracted(Plain(), ["a", "b"], freeze_at=3)
    for name in ("mobilenet", "fasterrcnn_resnet50_fpn"):
        with pytest.raises(ValueError, match=f"no '{name}'; take one of .*mobilenet_v3_large"):
            torchvision_model(name)
