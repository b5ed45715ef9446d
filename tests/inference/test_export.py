"""Exported models give the detector's detections, on images of other sizes than the one they were traced with."""

import json
import sys
from pathlib import Path

import pytest
import torch

from detector.config import build
from detector.config.resolve import with_classes
from detector.data.augment import Augment
from detector.data.image import ImageReader
from detector.inference.detect import Detect
from detector.inference.detector import Detector
from detector.inference.export.files import write, writer_of
from detector.inference.export.graph import build_graph, resizing_of
from detector.inference.export.metadata import describe
from detector.inference.export.parity import Difference, compare
from detector.inference.export.runners import Runner, open_file
from detector.inference.export.script import drawn
from detector.models.folding import fold
from tests.conftest import CLASSES, compose_config, confident

NARROW = ("backbone.channels=16", "backbone.width=32")


def detector_of(*overrides: str, short: int | None = None) -> Detector:
    """A narrow detector of random weights that finds things of every class."""
    config = with_classes(compose_config(*overrides), CLASSES)
    torch.manual_seed(0)
    detector = Detector.__new__(Detector)
    detector.classes, detector.dtype, detector.device = CLASSES, None, torch.device("cpu")
    model = confident(build.build_model(config))
    for name, weight in model.named_parameters():
        if name.startswith("heads.further.mask.predictor"):
            torch.nn.init.normal_(weight, std=0.1)  # else rounding decides on pixels of a probability of one half
    detector.model, detector.reader = fold(model), ImageReader()
    detector.augment = Augment(None if short is None else [short], None if short is None else short * 5 // 3)
    detector.size_divisibility = config.backbone.size_divisibility
    detector._detect = Detect(detector.model, detector.augment, detector.size_divisibility)
    return detector


def exported(detector: Detector, path: Path, masks: str = "grids") -> Runner:
    graph = build_graph(detector, masks)
    write(path, graph, describe(detector, graph))
    return open_file(path, threads=1)


def differences(detector: Detector, runner: Runner) -> list[Difference]:
    select = detector.model.heads.select
    found = []
    for name, image in list(drawn(3))[1:5]:
        size = (image.shape[1], image.shape[2])
        pair = detector([image])[0], runner(image)
        found.append(compare(*pair, size, name, select.score_thresh, select.topk_per_image))
    return found


@pytest.mark.slow(minutes=0.4)
def test_mask_rcnn_with_resizing_in_onnx_runtime(tmp_path: Path, thin: None) -> None:
    detector = detector_of(*NARROW, "model=mask_rcnn", short=200)
    runner = exported(detector, tmp_path / "model.onnx")
    found = differences(detector, runner)
    assert all(row.equal for row in found), found
    assert min(row.matched for row in found) > 20
    assert json.loads(runner.metadata["classes"]) == CLASSES
    assert json.loads(runner.metadata["score_thresh"]) == 0.05
    assert json.loads(runner.metadata["short_size"]) == 200
    assert json.loads(runner.metadata["mean"]) == pytest.approx([123.675, 116.28, 103.53])
    assert runner.metadata["producer"].startswith("aligned-rcnn 0.")


ADAPTIVE = "pooler=roialign_adaptive"
FAMILIES = {
    "cascade": ["model=cascade_mask_rcnn"],
    "c4": ["backbone=resnet18_c4", "model=mask_rcnn", "backbone.channels=64", "backbone.width=128"],
    "rfcn": ["model=rfcn", "model.heads.maps.width=16"],
    "c5": ["backbone=resnet18_c5", "model=rfcn", "backbone.channels=128", "model.heads.maps.width=16", ADAPTIVE],
    "torchvision": ["model.proposer.anchors.measured=true", "++model.proposer.anchors.rounded=true"],
    "roipool": ["pooler=roipool"],
}


@pytest.mark.slow(minutes=0.3)
@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, ".onnx") for name in FAMILIES), ("cascade", ".xml"), ("c4", ".xml"), ("c5", ".xml")]
)
def test_every_family(tmp_path: Path, thin: None, name: str, suffix: str) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino")
    detector = detector_of(*([] if name in ("c4", "c5") else NARROW), *FAMILIES[name])
    runner = exported(detector, tmp_path / f"model{suffix}")
    found = differences(detector, runner)
    assert all(row.equal for row in found), found
    assert min(row.matched for row in found) > 20
    assert json.loads(runner.metadata["classes"]) == CLASSES


@pytest.mark.slow(minutes=0.3)
def test_pasted_masks(tmp_path: Path, thin: None) -> None:
    detector = detector_of(*NARROW, "model=mask_rcnn")
    runner = exported(detector, tmp_path / "model.onnx", "pasted")
    found = differences(detector, runner)
    assert all(row.equal for row in found), found
    masks = runner(torch.zeros(3, 90, 120, dtype=torch.uint8)).masks
    assert masks is not None
    assert masks.dtype == torch.bool
    assert masks.shape[1:] == (90, 120)


@pytest.mark.slow(minutes=0.4)
def test_a_program_of_torch_export(tmp_path: Path, thin: None) -> None:
    detector = detector_of(*NARROW, "pooler=roialign_max", "pooler.sampling_ratio=0", short=200)
    runner = exported(detector, tmp_path / "model.pt2")
    found = differences(detector, runner)
    assert all(row.equal for row in found), found
    assert max(row.box for row in found) < 1e-3


@pytest.mark.parametrize(
    ("overrides", "suffix", "words"),
    [
        (["pooler=roialign_max", "pooler.sampling_ratio=0"], ".onnx", "maxima of an adaptive grid .*output=model.pt2"),
        (["pooler=roicrop"], ".onnx", "box_pooler pools by ops.crops.multiscale_roi_crop, .* pooler=roialign"),
        (["pooler=crop_and_resize"], ".pt2", "ops.crops.multiscale_crop_and_resize, which has no form in a graph"),
        (["model=rfcn", "pooler=roipool", "model.heads.maps.width=16"], ".onnx", "position-sensitive RoIPool"),
        ([], ".pth", r"output=.*model.pth: .* \.onnx, \.pt2"),
    ],
)
def test_what_has_no_form_is_refused(tmp_path: Path, overrides: list[str], suffix: str, words: str) -> None:
    detector = detector_of(*NARROW, *overrides)
    with pytest.raises(ValueError, match=words):
        exported(detector, tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    command = r'pip install onnx onnxscript onnxruntime, or pip install -e "\.\[export\]"'
    for name, words in (("onnx", command), ("xml", "onnxscript")):
        with pytest.raises(
            ValueError, match=f"output=model.{name} needs onnxscript, which is not installed: .*{words}"
        ):
            writer_of(Path(f"model.{name}"))


def test_preparations_other_than_resizing_are_refused() -> None:
    assert resizing_of(Augment()) == (None, None)
    assert resizing_of(Augment([800], 1333)) == (800, 1333)
    for augment, words in (
        (Augment([640, 800], 1333), "leaves the size to chance"),
        (Augment([800], horizontal_flip=0.5), "HorizontalFlip"),
        (Augment([800], scale=[0.5, 1.0]), "Resize"),
        (Augment([800], fixed_size=[800, 800]), "CropTo"),
        (lambda sample, seed: sample, "function"),
    ):
        with pytest.raises(ValueError, match=words):
            resizing_of(augment)
    with pytest.raises(ValueError, match="masks must be one of grids, pasted, not 'none'"):
        build_graph(detector_of(*NARROW), "none")


def test_masks_on_whole_pixels_are_not_pasted_in_a_graph() -> None:
    detector = detector_of(*NARROW, "model=mask_rcnn", "paste._target_=detector.masks.paste_on_whole_pixels")
    with pytest.raises(ValueError, match=r"masks=pasted: .* give masks=grids"):
        build_graph(detector, "pasted")


class Counted(torch.nn.Module):
    def forward(self, images: torch.Tensor, sizes: object) -> torch.Tensor:
        return images * 2 if images.float().mean() > 1 else images.float()


def test_what_cannot_be_traced_is_said(tmp_path: Path) -> None:
    detector = detector_of(*NARROW)
    detector.model.normalize = Counted()
    with pytest.raises(ValueError, match=r"the detector cannot be traced by torch\.export: .* CONTRIBUTING\.md"):
        exported(detector, tmp_path / "model.onnx")
