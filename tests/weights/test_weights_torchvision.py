"""torchvision's detectors are converted: each tensor is used once, and the outputs are equal."""

import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detector import weights
from detector.config import build
from detector.config.resolve import with_classes
from detector.models.rcnn import RCNN
from detector.weights.torchvision import NAMES, convert
from tests.conftest import compose_config

COCO = [name for name in torchvision.models.get_model_weights(NAMES[0]).DEFAULT.meta["categories"][1:] if name != "N/A"]


def theirs(name: str, num_classes: int = 91) -> nn.Module:
    model: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
    return model


def state_of(name: str, num_classes: int = 91) -> dict[str, Tensor]:
    """Build torchvision's model on the meta device, which has names and shapes only."""
    with torch.device("meta"):
        return theirs(name, num_classes).state_dict()


def ours(conventions: list[str], classes: list[str]) -> RCNN:
    return build.build_model(with_classes(compose_config(*conventions), classes))


def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the keys of the published files of version 1: no `.0` in convolutions, no counters of frozen norms."""
    changes = [
        (r"(fpn\.(?:inner|layer)_blocks\.\d)\.0\.", r"\1."),
        (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
        (r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}."),
    ]
    result = {}
    for key, value in state.items():
        for pattern, new in changes:
            key = re.sub(pattern, new, key)  # type: ignore[arg-type]
        if not key.endswith("num_batches_tracked"):
            result[key] = value
    return result


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """Point torch's download cache to an empty folder."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_used_once_and_fits(name: str) -> None:
    state = state_of(name)
    pretrained = convert(state, name, f"torchvision:{name}")
    assert len(pretrained.state) == len(state)
    assert pretrained.conventions == [f"experiment=torchvision_{name}", "norm.eps=1e-5"]
    with torch.device("meta"):
        model = ours(pretrained.conventions, COCO)
    report = weights.load_weights(model, pretrained, COCO)
    assert report.reinitialized == []
    counters = sum(key.endswith("num_batches_tracked") for key in state)
    assert report.loaded == len(model.state_dict()) == len(state) - (0 if name.endswith("_v2") else counters)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"])
def test_published_names_convert_to_the_same_weights(name: str) -> None:
    state = {k: torch.tensor(float(i)).expand(v.shape) for i, (k, v) in enumerate(state_of(name).items())}
    old = published(state)
    assert "rpn.head.conv.weight" in old
    assert "backbone.fpn.inner_blocks.0.weight" in old
    new, found = convert(state, name, "new"), convert(old, name, "old")
    assert found.conventions == [f"experiment=torchvision_{name}", "norm.eps=0.0"]
    assert found.state.keys() == {k for k in new.state if not k.endswith("num_batches_tracked")}
    assert all(torch.equal(found.state[k], new.state[k]) for k in found.state)


def test_trained_norms_have_epsilon_with_and_without_num_batches_tracked() -> None:
    name = "fasterrcnn_resnet50_fpn_v2"
    state = {k: v for k, v in state_of(name).items() if not k.endswith("num_batches_tracked")}
    assert convert(state, name, "file").conventions == [f"experiment=torchvision_{name}", "norm.eps=1e-5"]


def test_background_row_is_last_and_its_deltas_are_dropped() -> None:
    name = "maskrcnn_resnet50_fpn"
    state = state_of(name, num_classes=4)
    rows = {"box_predictor.cls_score": 4, "box_predictor.bbox_pred": 16, "mask_predictor.mask_fcn_logits": 4}
    for layer, count in rows.items():
        weight = state[f"roi_heads.{layer}.weight"]
        state[f"roi_heads.{layer}.weight"] = torch.arange(count).view(-1, *[1] * (weight.ndim - 1)).expand(weight.shape)
        state[f"roi_heads.{layer}.bias"] = torch.arange(count)
    found = convert(state, name, "file")
    assert found.classes is None
    for leaf in ("weight", "bias"):
        assert found.state[f"heads.box_head.classify.{leaf}"].reshape(4, -1)[:, 0].tolist() == [1, 2, 3, 0]
        assert found.state[f"heads.box_head.regress.{leaf}"].reshape(12, -1)[:, 0].tolist() == list(range(4, 16))
        assert found.state[f"heads.further.mask.predictor.10.{leaf}"].reshape(3, -1)[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("name", "epsilon"), [(NAMES[2], 0.0), (NAMES[2], 1e-5), (NAMES[3], 1e-5)])
def test_converted_weights_give_equal_outputs(name: str, epsilon: float) -> None:
    """Compare each part that has weights on the same input; small variances make the norms' epsilon visible."""
    torch.manual_seed(0)
    their = theirs(name).eval()
    with torch.no_grad():
        for module in their.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = epsilon
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(5e-4, 1e-3)
                module.weight.uniform_(0.01, 0.02)
                module.bias.normal_(0, 0.1)
    state = their.state_dict()
    pretrained = convert(state if epsilon else published(state), name, name)
    model = ours(pretrained.conventions, COCO).eval()
    weights.load_weights(model, pretrained, COCO)
    names = torchvision.models.get_model_weights(name).DEFAULT.meta["categories"]
    order = [names.index(c) for c in COCO]
    image, pooled, wide = torch.randn(1, 3, 64, 64), torch.randn(2, 256, 7, 7), torch.randn(2, 256, 14, 14)
    with torch.no_grad():
        levels = list(their.backbone(image).values())
        close(model.backbone(image), levels)
        logits, deltas = their.rpn.head(levels)
        own = [model.proposer.head(level) for level in levels]
        close([pair[0] for pair in own], [x.permute(0, 2, 3, 1).flatten(1) for x in logits])
        close([pair[1] for pair in own], [x.permute(0, 2, 3, 1).reshape(1, -1, 4) for x in deltas])
        logits, deltas = their.roi_heads.box_predictor(their.roi_heads.box_head(pooled))
        predicted = model.heads.box_head(pooled)
        close([predicted.logits, predicted.deltas], [logits[:, [*order, 0]], deltas.view(2, -1, 4)[:, order]])
        masks = their.roi_heads.mask_predictor(their.roi_heads.mask_head(wide))
        close([model.heads.further["mask"].predictor(wide)], [masks[:, order]])


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_cached_files_are_used_and_downloads_need_the_suffix(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fasterrcnn_resnet50_fpn"
    path = hub / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    fetched = []

    def fetch(url: str, target: str, hash_prefix: str) -> None:
        fetched.append((url, hash_prefix))
        torch.save(published(theirs(name, num_classes=3).state_dict()), target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(FileNotFoundError, match=rf"{re.escape(str(path))}.*https://.*258fb6c6\.pth.*:download"):
        weights.read_weights(f"torchvision:{name}")
    assert fetched == []
    found = weights.read_weights(f"torchvision:{name}:download")
    assert fetched == [("https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "258fb6c6")]
    assert found.num_classes == 2
    for source in (f"torchvision:{name}", f"torchvision:{name}:download", f"torchvision:{name}:{path}"):
        again = weights.read_weights(source)
        assert again.source == source
        assert all(torch.equal(again.state[k], found.state[k]) for k in found.state)
    assert len(fetched) == 1


def test_failed_download_names_url_and_path(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(OSError, match=r"no route.*put it at"):
        weights.read_weights("torchvision:maskrcnn_resnet50_fpn_v2:download")


def test_unsupported_names_and_mismatched_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fasterrcnn_resnet50_fpn_v2, maskrcnn"):
        weights.read_weights("torchvision:retinanet_resnet50_fpn")
    with pytest.raises(FileNotFoundError, match=r"no file '/none\.pth'"):
        weights.read_weights("torchvision:maskrcnn_resnet50_fpn:/none.pth")
    path = tmp_path / "x.pth"
    model = theirs("maskrcnn_resnet50_fpn", num_classes=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict()}
    torch.save(content | {"args": Namespace(epochs=26), "epoch": 3}, path)
    assert weights.read_weights(f"torchvision:maskrcnn_resnet50_fpn:{path}").num_classes == 1
    with pytest.raises(ValueError, match=r"it looks like torchvision:maskrcnn_resnet50_fpn$"):
        weights.read_weights(f"torchvision:fasterrcnn_resnet50_fpn:{path}")
    with pytest.raises(ValueError, match=rf"give torchvision:maskrcnn_resnet50_fpn:{re.escape(str(path))}"):
        weights.read_weights(str(path))
    keypoints = state_of("keypointrcnn_resnet50_fpn", num_classes=2)
    with pytest.raises(ValueError, match="belong to no part"):
        convert(keypoints, "fasterrcnn_resnet50_fpn", "x")
