"""The frozen RPN of one run as the proposer of another, and files of proposals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torchvision.models import detection

from detector.config import build
from detector.config.proposer import borrowed_rpn
from detector.config.resolve import with_classes
from detector.inference.detector import Detector
from detector.inference.propose import propose
from detector.models.rcnn import RCNN
from detector.weights.checkpoints import FORMAT, checkpoint_config, load_checkpoint, portable_config, read_checkpoint
from tests.conftest import CLASSES, compose_config, confident, random_batch

pytestmark = pytest.mark.usefixtures("thin")
SMALL = ["backbone.channels=16", "backbone.width=16", "trainer.precision=32-true"]


def save(path: Path, model: RCNN, config: DictConfig) -> Path:
    own = {"format": FORMAT, "config": portable_config(config)}
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "aligned_rcnn": own}, path)
    return path


def trained(path: Path, *overrides: str) -> RCNN:
    """Build a detector and save its checkpoint at `path`."""
    config = with_classes(compose_config(*SMALL, *overrides), CLASSES)
    torch.manual_seed(5)
    model = confident(build.build_model(config))
    save(path, model, config)
    return model


def adopt(config: DictConfig) -> tuple[DictConfig, Any]:
    """Return the configuration with the frozen RPN that `proposals` names, and its state dict or None."""
    borrowed = borrowed_rpn(config.get("proposals"), config.model)
    if borrowed is None:
        return config, None
    OmegaConf.set_struct(config, False)
    config.model.proposer, state = borrowed
    return config, state


def adopted(source: Path, *overrides: str) -> tuple[RCNN, DictConfig]:
    config = compose_config("model=fast_rcnn", *SMALL, *overrides)
    config.proposals = str(source)
    config, state = adopt(config)
    assert state is not None
    config = with_classes(config, ["other", "classes"])
    model = build.build_model(config)
    model.proposer.load_state_dict(state)
    return model, config


def assert_same_proposals(source: RCNN, model: RCNN) -> None:
    batch = random_batch(3, 2)
    with torch.inference_mode():
        expected = source.proposer(source.features(batch), batch)
        found = model.proposer(model.features(batch), batch)
    assert min(map(len, expected)) > 20
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn"])
def test_a_checkpoint_gives_its_rpn(model: str, tmp_path: Path) -> None:
    source = trained(
        tmp_path / "last.ckpt", f"model={model}", "model.proposer.anchors.ratios=[1.0]", "backbone.anchors=1"
    )
    other = ["backbone=resnet18_c5", "backbone.channels=128", "pooler=roipool", "dataset=voc07"]
    for overrides in ([], other):
        assert_same_proposals(source, adopted(tmp_path / "last.ckpt", *overrides)[0].eval())
    assert (
        adopted(tmp_path / "last.ckpt", *other)[0].proposer.rpn.train_limits.post_nms_topk == 256
    )  # its own, not VOC's


def test_a_checkpoint_with_a_frozen_rpn_is_self_contained(tmp_path: Path) -> None:
    source = trained(tmp_path / "rpn.ckpt")
    model, config = adopted(tmp_path / "rpn.ckpt")
    path = save(tmp_path / "last.ckpt", model, config)
    (tmp_path / "rpn.ckpt").unlink()
    content = read_checkpoint(path)
    saved = checkpoint_config(content)
    assert not build.takes_proposals(saved.model)
    again = build.build_model(saved)
    load_checkpoint(again, content, str(path))
    assert_same_proposals(source, again.eval())
    config, state = adopt(saved)  # as where a run resumes
    assert (config, state) == (saved, None)


def test_a_frozen_rpn_can_be_reused(tmp_path: Path) -> None:
    source = trained(tmp_path / "rpn.ckpt")
    first = save(tmp_path / "first.ckpt", *adopted(tmp_path / "rpn.ckpt"))
    second = adopted(first, "model=fast_mask_rcnn", "seed=4")[0]
    assert_same_proposals(source, second.eval())
    assert second.proposer.state_dict().keys() == adopted(first)[0].proposer.state_dict().keys()


def test_torchvision_weights_give_their_rpn(tmp_path: Path) -> None:
    name = "fasterrcnn_resnet50_fpn"
    torch.save(detection.fasterrcnn_resnet50_fpn(weights_backbone=None).state_dict(), tmp_path / "state.pth")
    model, config = adopted(Path(f"torchvision:{name}:{tmp_path}/state.pth"))
    (tmp_path / "state.pth").unlink()
    again = build.build_model(OmegaConf.create(portable_config(config)))
    assert again.proposer.rpn.anchors.measured
    assert again.proposer.size_divisibility == 32
    again.load_state_dict(model.state_dict())
    assert len(again.proposer([], random_batch(2))[0]) > 20


def test_unsuitable_proposals_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "given.ckpt"
    trained(path, "model=fast_rcnn")
    for overrides, message in (
        (["model=fast_rcnn"], r"needs proposals=FILE or proposals=RUN/checkpoints/last\.ckpt"),
        (["model=fast_mask_rcnn"], "needs proposals=FILE"),
        ([f"proposals={path}"], "RPN of its own; use model=fast_rcnn"),
        (["model=mask_rcnn", "proposals=a.npz"], "RPN of its own"),
        (
            ["model=fast_rcnn", "proposals=a.txt"],
            r"a\.txt: expected a file of proposals \(\*\.npz, \*\.json\) or .*no such file",
        ),
        (["model=fast_rcnn", f"proposals={tmp_path}/none.ckpt"], "none.*no such file"),
        (["model=fast_rcnn", f"proposals={tmp_path}"], r"did you mean .*last\.ckpt"),
        (["model=fast_rcnn", f"proposals={path}"], "no RPN either"),
    ):
        with pytest.raises(ValueError, match=message):
            adopt(compose_config(*overrides))
    for overrides in ([], ["model=fast_rcnn", "proposals=a.npz"], ["model=fast_rcnn", "proposals=a.json"]):
        plain = compose_config(*overrides)
        config, state = adopt(plain)
        assert config is plain
        assert state is None


def test_missing_rpn_weights_are_refused(tmp_path: Path) -> None:
    trained(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del content["state_dict"]["model.proposer.head.objectness.weight"]
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"1 weights missing.*proposer\.head\.objectness\.weight"):
        adopted(tmp_path / "last.ckpt")


def _runs_a_command(model: dict[str, Any]) -> None:
    model["proposer"]["normalize"] = {"_target_": "os.system", "command": "touch harmed"}


def _reads_a_file(model: dict[str, Any]) -> None:
    model["proposer"]["backbone"]["body"]["weights"] = "/etc/passwd"


def _is_another(model: dict[str, Any]) -> None:
    model["proposer"]["_target_"] = "detector.models.proposals.box_ops"


def _is_computed(model: dict[str, Any]) -> None:
    model["proposer"]["size_divisibility"] = "${oc.env:HOME}"


@pytest.mark.parametrize("change", [_runs_a_command, _reads_a_file, _is_another, _is_computed])
def test_a_hostile_frozen_rpn_is_refused(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    trained(tmp_path / "rpn.ckpt")
    path = save(tmp_path / "last.ckpt", *adopted(tmp_path / "rpn.ckpt"))
    read_checkpoint(path)
    content = torch.load(path, weights_only=True)
    change(content["aligned_rcnn"]["config"]["model"])
    torch.save(content, path)
    for read in (read_checkpoint, adopted):
        with pytest.raises(ValueError, match=r"last\.ckpt"):
            read(path)
    assert not Path("harmed").exists()


def test_proposals_are_in_pixels_of_the_original_image(tmp_path: Path) -> None:
    source = trained(tmp_path / "last.ckpt")
    batch = replace(random_batch(3, 2), original_sizes=[(256, 480), (128, 160)], ids=["a", 7])
    with torch.inference_mode():
        expected = source.proposer(source.features(batch), batch)
    detector = Detector(tmp_path / "last.ckpt", device="cpu")
    found = list(propose(detector, [batch], "val"))
    assert [(f.split, f.id) for f in found] == [("val", "a"), ("val", 7)]
    torch.testing.assert_close(found[0].boxes, expected[0] * torch.tensor([3.0, 2.0, 3.0, 2.0]))
    assert torch.equal(found[1].boxes, expected[1])
    assert [len(f.boxes) for f in found] == [len(f.scores) for f in found] == [128, 128]
    train = list(propose(detector, [batch], "train"))
    few = list(propose(detector, [batch], "train", post_nms_topk=9))
    fewer = list(propose(detector, [batch], "val", pre_nms_topk=1))  # of each of five levels
    for most, nine, five in zip(train, few, fewer, strict=True):
        assert len(most.boxes) > 128
        assert torch.equal(nine.boxes, most.boxes[:9])
        assert len(five.boxes) <= 5


def test_a_frozen_rpn_proposes_the_same(tmp_path: Path) -> None:
    trained(tmp_path / "rpn.ckpt")
    save(tmp_path / "last.ckpt", *adopted(tmp_path / "rpn.ckpt"))
    batch = random_batch(3, 2)
    own, lent = (list(propose(Detector(tmp_path / n, "cpu"), [batch], "train")) for n in ("rpn.ckpt", "last.ckpt"))
    for a, b in zip(own, lent, strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.scores, b.scores)


def test_a_frozen_rpn_of_another_scale_is_remarked_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained(tmp_path / "rpn.ckpt", "dataset.val_augment.short_sizes=[64]")
    model = compose_config("model=fast_rcnn", *SMALL).model
    for sizes, remarked in (([64], False), ([96], True)):
        borrowed_rpn(str(tmp_path / "rpn.ckpt"), model, OmegaConf.create({"short_sizes": sizes, "max_size": None}))
        assert ("dataset.val_augment.short_sizes=[64] (here [96])" in caplog.text) is remarked


def test_detectors_without_an_rpn_cannot_predict_on_images(tmp_path: Path) -> None:
    trained(tmp_path / "last.ckpt", "model=fast_rcnn")
    with pytest.raises(ValueError, match=r"from a file, and these images have none; train it with proposals=RUN"):
        Detector(tmp_path / "last.ckpt", device="cpu")


def test_the_path_of_proposals_may_refer_to_data_dir(tmp_path: Path) -> None:
    config = compose_config("model=fast_rcnn", "data_dir=here", r"proposals=${data_dir}/proposals.npz")
    saved = OmegaConf.create(portable_config(with_classes(config, CLASSES)))
    saved.data_dir = str(tmp_path)
    assert saved.proposals == f"{tmp_path}/proposals.npz"
