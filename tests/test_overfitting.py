"""Every model on every kind of backbone learns one image by heart: what cannot do this is broken."""

import pytest
import torch

from detector.boxes import iou
from detector.config import build
from detector.config.resolve import with_classes
from detector.types import Batch, Masks, Target
from tests.config.test_combinations import CHANNELS, CHOICES, KINDS, given_proposals, refusal
from tests.conftest import CLASSES, compose_config, learn

MORE = {
    "vgg16": ["+backbone.trunk.dropout=0.0"],
    "extracted_fpn": ["backbone.name=resnet18", "backbone.nodes=[layer1,layer2,layer3,layer4]"],
}

COMMON = [
    "backbone.width=128",
    "dataset.rois=64",
    "backbone.mask_width=32",
    "box_loss=giou",
    "norm=group",
    "norm.groups=8",
]
"""GIoU has the same scale at each stage of a cascade; smooth L1 in the heads is learnt by heart in test_rcnn.

Maps here have as few as six cells: too few for what a batch norm keeps to be what it trained with.
"""

RPN = ["model.proposer.box_loss={_target_: detector.models.losses.smooth_l1, _partial_: true}"]
"""At this rate an RPN's first steps may blow its boxes up to where GIoU is flat, and there they stay."""


def one_image(seed: int) -> Batch:
    """Three objects apart from each other, of different classes, each with its class's brightness; on noise."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 60, (3, 64, 96), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([[4, 5, 30, 29], [52, 8, 88, 40], [14, 38, 44, 60]])
    labels = torch.randperm(len(CLASSES), generator=generator)[:3]
    masks = torch.zeros(3, 64, 96, dtype=torch.bool)
    for mask, (x1, y1, x2, y2), label in zip(masks, boxes.tolist(), labels.tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
        image[:, mask] = 60 + 60 * label
    no = torch.zeros(3, dtype=torch.bool)
    target = Target(boxes.float(), labels, no, no.clone(), Masks.from_dense(masks, (64, 96)))
    return given_proposals(Batch(image[None], [(64, 96)], [(64, 96)], [0], [target]))


@pytest.mark.slow(minutes=1)
@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("backbone", KINDS)
@pytest.mark.parametrize("name", CHOICES["model"])
def test_one_image_is_learnt_by_heart(name: str, backbone: str) -> None:
    choice = {"model": name, "backbone": backbone, "pooler": "roialign"}
    if why := refusal(choice):
        pytest.skip(f"{name} on {backbone} makes no sense: {why}")
    overrides = [*(f"{key}={value}" for key, value in choice.items()), f"backbone.channels={CHANNELS[backbone]}"]
    overrides += [*MORE.get(backbone, []), *COMMON]
    config = compose_config(*overrides, *([] if name.startswith("fast_") else RPN))
    # The smallest object has 26 by 24 px: at IoU 0.7 one edge is seven px off. How far 120 steps come depends on the
    # CPU's rounding: some of the rows take more.
    assert any(learnt(config, steps, "mask" in name) for steps in (120, 240, 480))


def learnt(config: build.DictConfig, steps: int, masks: bool) -> bool:
    """Train on one image for so many steps; whether its objects are detected, and nothing else."""
    torch.manual_seed(0)
    model = build.build_model(with_classes(config, CLASSES))
    batch = one_image(0)
    history = learn(model, batch, rate=1e-3, steps=steps)
    with torch.inference_mode():
        found = model.eval()(batch)[0]
    sure = found.scores > 0.5
    if not sure.any():
        return False
    target = batch.targets[0]
    best = iou(target.boxes, found.boxes[sure]).max(1)
    assert (found.masks is not None) == masks
    checks = {
        "the loss falls to a tenth": max(history[-10:]) < 0.1 * history[0],
        "each object is found": bool((best.values > 0.7).all()),
        "with its class": torch.equal(found.labels[sure][best.indices], target.labels),
        # Doubles that NMS leaves overlap their object by about a half.
        "nothing else is": bool((iou(target.boxes, found.boxes[sure]).amax(0) > 0.25).all()),
    }
    if found.masks is not None:
        filled = (found.masks[sure][best.indices] > 0.5).float().mean((1, 2))
        checks["masks fill the boxes"] = bool((filled > 0.8).all())  # the objects are rectangles
    print(steps, "steps:", checks, [round(v, 3) for v in best.values.tolist()])
    return all(checks.values())
