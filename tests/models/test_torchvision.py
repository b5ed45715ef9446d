"""With torchvision's weights, this project's detectors find what torchvision's find."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import roi_heads as their_heads

from detector import masks, weights
from detector.config import build
from detector.config.compose import compose_config
from detector.config.resolve import with_classes
from detector.data.coco import CocoDataset
from detector.data.collate import collate
from detector.matching import Sampled
from detector.models.rcnn import RCNN
from detector.types import Masks, Sample, Target
from tests.conftest import ROOT, dense, random_target

NAMES = [
    name if name == "fasterrcnn_resnet50_fpn" else pytest.param(name, marks=pytest.mark.slow)
    for name in weights.TORCHVISION
]
COCO = ROOT.parent / "shared" / "data" / "coco"


SPREAD = {"rpn.head.cls_logits": 1.0, "rpn.head.bbox_pred": 0.2, "cls_score": 2.5, "box_predictor.bbox_pred": 1.0}
SPREAD |= {"mask_fcn_logits": 2.0}
"""Standard deviations of what the last layers give, so that an untrained network finds many things of many classes."""


def keep_sizes(model: nn.Module) -> None:
    """Let torchvision's transform resize nothing."""
    model.transform.resize = lambda image, target=None: (image, target)


def lively(model: nn.Module) -> nn.Module:
    """Random statistics in the norms, and last layers that give 0 on average, with the spread of `SPREAD`."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                value.uniform_(0.7, 1.3, generator=generator)
    images = [torch.rand(3, 160, 192, generator=generator)]
    keep_sizes(model)
    for end, spread in SPREAD.items():  # in the order in which one feeds the other
        for layer in [layer for name, layer in model.named_modules() if name.endswith(end)]:
            given: list[Tensor] = []
            hook = layer.register_forward_hook(lambda _, __, output, given=given: given.append(output))
            with torch.inference_mode():
                model.eval()(images)
            hook.remove()
            with torch.no_grad():
                value = torch.cat([output.transpose(0, 1).flatten(1) for output in given], 1)  # by output of the layer
                scale = spread / value.std(1)
                layer.weight *= scale.view(-1, *(1,) * (layer.weight.ndim - 1))
                layer.bias.copy_(-value.mean(1) * scale)
    return model.eval()


def pair(name: str, folder: Path) -> tuple[nn.Module, RCNN]:
    """torchvision's model, and this project's with its weights.

    In float64, so that no two of hundreds of scores are so near that rounding puts them in another order; with few
    proposals, for speed.
    """
    torch.manual_seed(1)
    few = {"rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 150, "rpn_post_nms_top_n_train": 100}
    few["box_detections_per_img"] = 40
    theirs = lively(torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=91, **few))
    file = folder / "weights.pth"
    torch.save(theirs.state_dict(), file)
    pretrained = weights.read_weights(f"torchvision:{name}:{file}")
    assert pretrained.classes is not None
    proposals = ("test.pre_nms_topk=200", "test.post_nms_topk=150", "train.post_nms_topk=100")
    overrides = [
        *pretrained.conventions,
        *(f"dataset.rpn.{number}" for number in proposals),
        *("dataset.rois=64", "dataset.detections=40"),
    ]
    config = with_classes(compose_config(overrides), pretrained.classes)
    ours = build.build_model(config)
    report = weights.load_weights(ours, pretrained, pretrained.classes)
    assert not report.reinitialized
    return theirs.double(), ours.double().eval()


@pytest.fixture(scope="module", params=NAMES)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, RCNN]:
    return pair(request.param, tmp_path_factory.mktemp("weights"))


def random_samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(3)
    samples = []
    for i, size in enumerate([(100, 160), (150, 120)]):
        image = torch.randint(0, 256, (3, size[0] // 8, size[1] // 8), generator=generator, dtype=torch.uint8)
        image = nn.functional.interpolate(image[None].float(), size=size, mode="bicubic")[0].clamp(0, 255).byte()
        samples.append(Sample(image, random_target(size, 5, generator), i, size))
    return samples


def real_samples() -> list[Sample]:
    if not COCO.is_dir():
        pytest.skip("the sample of COCO is not beside the repository")
    data = CocoDataset(COCO / "val2017", COCO / "annotations" / "instances_val2017.json", keep_empty=False)
    samples = []
    for i in (0, 3):
        sample = data[i]
        # Both sides are given a quarter of each side, by leaving pixels out: neither resizes anything.
        image = sample.image[:, ::4, ::4].contiguous()
        target = sample.target.select(~sample.target.crowd)
        assert target.masks is not None
        size = (image.shape[1], image.shape[2])
        thin = Masks.from_dense(dense(target.masks)[:, ::4, ::4], size)
        target = Target(target.boxes / 4, target.labels, target.crowd, target.difficult, thin)
        samples.append(Sample(image, target, sample.id, size))
    return samples


def give(samples: list[Sample]) -> list[Tensor]:
    """The images as torchvision wants them."""
    return [sample.image.double() / 255 for sample in samples]


@pytest.mark.parametrize("make", [pytest.param(random_samples, marks=pytest.mark.slow), real_samples])
def test_the_same_objects(models: tuple[nn.Module, RCNN], make: object) -> None:
    theirs, ours = models
    samples = make()  # type: ignore[operator]
    grids: list[Tensor] = []
    read = their_heads.maskrcnn_inference
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(their_heads, "maskrcnn_inference", lambda *a: grids.extend(read(*a)) or list(grids))
        expected = theirs(give(samples))
        found = ours(collate(samples, 32))
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert len(a) == 40
        assert len(a.labels.unique()) > 5
        assert torch.equal(a.labels + 1, b["labels"])
        torch.testing.assert_close(a.boxes, b["boxes"].to(a.boxes.dtype), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(a.scores, b["scores"].to(a.scores.dtype), rtol=1e-5, atol=1e-6)
        assert (a.masks is not None) is ("masks" in b)
        if a.masks is not None:
            torch.testing.assert_close(a.masks, grids[i][:, 0].to(a.masks.dtype), rtol=1e-5, atol=1e-5)
            pasted = dense(masks.paste_on_whole_pixels(a.masks, a.boxes, samples[i].size))
            assert float((pasted != (b["masks"][:, 0] > 0.5)).double().mean()) < 1e-4


def test_the_same_losses(models: tuple[nn.Module, RCNN], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = models
    samples = random_samples()
    batch = collate(samples, 32)

    def first(positive: Tensor, negative: Tensor, count: int, fraction: float) -> tuple[Tensor, Tensor]:
        """The first positives up to the share, filled up with the first negatives: masks of both."""
        good = positive & (positive.cumsum(0) <= int(count * fraction))
        return good, negative & (negative.cumsum(0) <= count - good.sum())

    def sampler(count: int, fraction: float) -> Callable[[Tensor, Tensor], Sampled]:
        def sample(positive: Tensor, negative: Tensor) -> Sampled:
            good, bad = first(positive, negative, count, fraction)
            index = torch.cat((good.nonzero(), bad.nonzero())).squeeze(1)
            return Sampled(index, good[index], torch.ones_like(good[index]))

        return sample

    def their_sampler(count: int, fraction: float) -> Callable[[list[Tensor]], tuple[list[Tensor], list[Tensor]]]:
        def sample(labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            chosen = [first(label >= 1, label == 0, count, fraction) for label in labels]
            return [good for good, _ in chosen], [bad for _, bad in chosen]

        return sample

    monkeypatch.setattr(theirs.rpn, "fg_bg_sampler", their_sampler(256, 0.5))
    monkeypatch.setattr(ours.proposer, "sampler", sampler(256, 0.5))
    monkeypatch.setattr(theirs.roi_heads, "fg_bg_sampler", their_sampler(64, 0.25))
    monkeypatch.setattr(ours.heads, "sampler", sampler(64, 0.25))
    targets = [{"boxes": s.target.boxes.double(), "labels": s.target.labels + 1} for s in samples]
    for target, sample in zip(targets, samples, strict=True):
        assert sample.target.masks is not None
        target["masks"] = dense(sample.target.masks).byte()
    for target in batch.targets:
        target.boxes = target.boxes.double()
    for module in theirs.modules():  # its training mode, but for the norms: theirs are not frozen here
        module.train(not isinstance(module, nn.BatchNorm2d))
    expected = theirs(give(samples), targets)
    theirs.eval()
    losses = ours.train(False).loss(batch)
    names = {"loss_objectness": "rpn_objectness", "loss_rpn_box_reg": "rpn_box", "loss_classifier": "class"}
    names |= {"loss_box_reg": "box", "loss_mask": "mask"}
    assert {names[name] for name in expected} == set(losses)
    for name, value in expected.items():
        assert value > 1e-3
        torch.testing.assert_close(losses[names[name]], value, rtol=1e-5, atol=0, check_dtype=False)
