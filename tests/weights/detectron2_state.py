"""Names and shapes of Detectron2's state dicts, written out from its model definitions and base configurations.

modeling/backbone/resnet.py (BasicStem, BottleneckBlock, build_resnet_backbone), fpn.py (FPN), proposal_generator/rpn.py
(StandardRPNHead), roi_heads/roi_heads.py (Res5ROIHeads, StandardROIHeads), box_head.py (FastRCNNConvFCHead),
fast_rcnn.py (FastRCNNOutputLayers), mask_head.py (MaskRCNNConvUpsampleHead), layers/batch_norm.py (get_norm);
configs/Base-RCNN-{FPN,C4,DilatedC5}.yaml.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]

NORMS = {
    "FrozenBN": ("weight", "bias", "running_mean", "running_var"),
    "BN": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "GN": ("weight", "bias"),
    "": (),
}


def conv(name: str, outputs: int, inputs: int, side: int, norm: str = "", bias: bool | None = None) -> Shapes:
    """Return the shapes of Detectron2's Conv2d with its norm, or with a bias if it has none."""
    shapes: Shapes = {f"{name}.weight": (outputs, inputs, side, side)}
    if norm == "" if bias is None else bias:
        shapes[f"{name}.bias"] = (outputs,)
    return shapes | {f"{name}.norm.{leaf}": () if "num" in leaf else (outputs,) for leaf in NORMS[norm]}


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def stage(name: str, blocks: int, inputs: int, middle: int, outputs: int, norm: str, groups: int = 1) -> Shapes:
    shapes: Shapes = {}
    for i in range(blocks):
        if inputs != outputs:
            shapes |= conv(f"{name}.{i}.shortcut", outputs, inputs, 1, norm, False)
        shapes |= conv(f"{name}.{i}.conv1", middle, inputs, 1, norm, False)
        shapes |= conv(f"{name}.{i}.conv2", middle, middle // groups, 3, norm, False)
        shapes |= conv(f"{name}.{i}.conv3", outputs, middle, 1, norm, False)
        inputs = outputs
    return shapes


def detector(
    depth: int = 50,
    kind: str = "fpn",
    masks: bool = False,
    num_classes: int = 80,
    norm: str = "FrozenBN",
    head_norm: str = "",
    groups: int = 1,
    width_per_group: int = 64,
    rpn_convs: int = 1,
    box_convs: int = 0,
    agnostic: bool = False,
) -> Shapes:
    """Return the shapes of GeneralizedRCNN with the base configuration of `kind` (fpn, c4, dc5), DEPTH, MASK_ON, ..."""
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    last = 4 if kind == "c4" else 5
    body = "backbone.bottom_up." if kind == "fpn" else "backbone."
    shapes = conv(f"{body}stem.conv1", 64, 3, 7, norm, False)
    middle = groups * width_per_group
    for n in range(2, last + 1):
        inputs = 64 if n == 2 else 64 * 2 ** (n - 1)
        shapes |= stage(f"{body}res{n}", blocks[n - 2], inputs, middle * 2 ** (n - 2), 64 * 2**n, norm, groups)
    channels = 64 * 2**last
    if kind == "fpn":
        for n in range(2, 6):
            shapes |= conv(f"backbone.fpn_lateral{n}", 256, 64 * 2**n, 1, head_norm)
            shapes |= conv(f"backbone.fpn_output{n}", 256, 256, 3, head_norm)
        channels = 256
    rpn = "proposal_generator.rpn_head"
    for i in range(rpn_convs):
        shapes |= conv(f"{rpn}.conv" + (f".conv{i}" if rpn_convs > 1 else ""), channels, channels, 3)
    cells = 3 if kind == "fpn" else 15
    shapes |= conv(f"{rpn}.objectness_logits", cells, channels, 1) | conv(
        f"{rpn}.anchor_deltas", 4 * cells, channels, 1
    )
    if kind == "c4":
        shapes |= stage("roi_heads.res5", 3, 1024, 512, 2048, norm)
        hidden = pooled = 2048
    else:
        pooled, inputs = channels, channels * 7 * 7
        for i in range(box_convs):
            shapes |= conv(f"roi_heads.box_head.conv{i + 1}", 256, 256, 3, head_norm)
        for i in range(1 if box_convs else 2):
            shapes |= linear(f"roi_heads.box_head.fc{i + 1}", 1024, inputs)
            inputs = 1024
        hidden = 1024
    shapes |= linear("roi_heads.box_predictor.cls_score", num_classes + 1, hidden)
    shapes |= linear("roi_heads.box_predictor.bbox_pred", 4 if agnostic else 4 * num_classes, hidden)
    if masks:
        for i in range(0 if kind == "c4" else 4):
            shapes |= conv(f"roi_heads.mask_head.mask_fcn{i + 1}", 256, pooled, 3, head_norm)
            pooled = 256
        shapes |= {"roi_heads.mask_head.deconv.weight": (pooled, 256, 2, 2), "roi_heads.mask_head.deconv.bias": (256,)}
        shapes |= conv("roi_heads.mask_head.predictor", 1 if agnostic else num_classes, 256, 1)
    return shapes


def numbered(shapes: Shapes) -> dict[str, Tensor]:
    """Return a state dict in which each tensor is filled with its index; expanded, so that it takes no memory."""
    return {name: torch.tensor(float(i)).expand(shape) for i, (name, shape) in enumerate(shapes.items())}


def cell_anchors(sizes: list[list[float]], ratios: tuple[float, ...] = (0.5, 1.0, 2.0)) -> Iterator[Tensor]:
    """Compute DefaultAnchorGenerator.generate_cell_anchors of each level."""
    for level in sizes:
        sides = [((s * s / r) ** 0.5, (s * s / r) ** 0.5 * r) for s in level for r in ratios]
        yield torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides])


def conv_norm(x: Tensor, state: dict[str, Tensor], name: str, stride: int = 1, dilation: int = 1) -> Tensor:
    """Compute the Conv2d of layers/wrappers.py with FrozenBatchNorm2d."""
    weight = state[f"{name}.weight"]
    x = F.conv2d(x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation)
    mean, var, scale, shift = (state[f"{name}.norm.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, shift, False, eps=1e-5)


def run_stage(x: Tensor, state: dict[str, Tensor], name: str, blocks: int, stride: int, dilation: int = 1) -> Tensor:
    """Compute BottleneckBlock with STRIDE_IN_1X1."""
    for i in range(blocks):
        block, step = f"{name}.{i}", stride if i == 0 else 1
        y = conv_norm(x, state, f"{block}.conv1", step).relu()
        y = conv_norm(y, state, f"{block}.conv2", 1, dilation).relu()
        y = conv_norm(y, state, f"{block}.conv3")
        x = (y + (conv_norm(x, state, f"{block}.shortcut", step) if i == 0 else x)).relu()
    return x


def run_backbone(image: Tensor, state: dict[str, Tensor], kind: str) -> list[Tensor]:
    """Compute the ResNet-50 features of an RGB image [3, H, W]: p2 to p6, or one level."""
    x = image.flip(0) - torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    body = "backbone.bottom_up." if kind == "fpn" else "backbone."
    x = F.max_pool2d(conv_norm(x[None], state, f"{body}stem.conv1", 2).relu(), 3, 2, 1)
    features = []
    for n, blocks in zip(range(2, 5 if kind == "c4" else 6), (3, 4, 6, 3), strict=False):
        dilated = n == 5 and kind == "dc5"
        stride = 1 if n == 2 or dilated else 2
        x = run_stage(x, state, f"{body}res{n}", blocks, stride, 2 if dilated else 1)
        features.append(x)
    if kind != "fpn":
        return features[-1:]
    levels: list[Tensor] = []
    before = None
    for n in (5, 4, 3, 2):
        name = f"backbone.fpn_lateral{n}"
        lateral = F.conv2d(features[n - 2], state[f"{name}.weight"], state[f"{name}.bias"])
        before = lateral if before is None else lateral + F.interpolate(before, scale_factor=2)
        name = f"backbone.fpn_output{n}"
        levels.insert(0, F.conv2d(before, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
    return [*levels, F.max_pool2d(levels[-1], 1, 2)]
