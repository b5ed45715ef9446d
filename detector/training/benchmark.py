"""Time training steps and inference against torchvision's model of the same architecture.

Both have the same images, boxes, norms, frozen stages and numbers of anchors, proposals and RoIs. They are timed
alternately; torchvision runs in both memory formats, and the faster one counts.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torchvision
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.models import detection, resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from detector.config import build
from detector.config.compose import compose_config
from detector.config.resolve import with_classes
from detector.models.folding import fold
from detector.types import Batch, Target
from ops.benchmark import Timing, describe, measure

LEARNING_RATE = 1e-12
"""Too small to change the weights: a network that diverges would be timed on denormal numbers."""
CLASSES = [str(i) for i in range(90)]
Step = Callable[[], object]


@dataclass(frozen=True)
class Workload:
    """A benchmarked model and its input size."""

    name: str
    overrides: tuple[str, ...]
    images: int
    side: int
    """side of the square images, in pixels"""
    peer: Callable[[DictConfig, int], nn.Module]
    """builds torchvision's model from (configuration, side)"""

    def config(self) -> DictConfig:
        """Compose the configuration of this project's model."""
        return with_classes(compose_config(list(self.overrides)), CLASSES)


def batch_of(workload: Workload, device: torch.device) -> Batch:
    """Draw a batch of noise images with eight random boxes each."""
    generator = torch.Generator().manual_seed(0)
    size = (workload.side, workload.side)
    images = torch.randint(0, 256, (workload.images, 3, *size), generator=generator, dtype=torch.uint8)
    targets = []
    for _ in range(workload.images):
        sides = workload.side * (0.05 + 0.45 * torch.rand(8, 2, generator=generator))
        corner = torch.rand(8, 2, generator=generator) * (workload.side - sides)
        flags = torch.zeros(8, dtype=torch.bool)
        labels = torch.randint(len(CLASSES), (8,), generator=generator)
        targets.append(Target(torch.cat((corner, corner + sides), 1), labels, flags, flags.clone()))
    sizes = [size] * workload.images
    return Batch(images, sizes, sizes, list(range(workload.images)), targets).to(device)


def rpn_and_heads(config: DictConfig) -> dict[str, object]:
    """Convert the RPN's and heads' settings to torchvision's arguments."""
    rpn, heads = config.model.proposer, config.model.heads
    return {
        "rpn_nms_thresh": rpn.nms_thresh,
        "rpn_pre_nms_top_n_train": rpn.train.pre_nms_topk,
        "rpn_pre_nms_top_n_test": rpn.test.pre_nms_topk,
        "rpn_post_nms_top_n_train": rpn.train.post_nms_topk,
        "rpn_post_nms_top_n_test": rpn.test.post_nms_topk,
        "box_batch_size_per_image": heads.sampler.batch_size_per_image,
        "box_detections_per_img": heads.select.topk_per_image,
    }


def resnet50_fpn(config: DictConfig, side: int) -> nn.Module:
    """Build torchvision's `fasterrcnn_resnet50_fpn` with frozen norms."""
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, trainable_layers=5 - config.backbone.freeze_at
    )
    model: nn.Module = detection.FasterRCNN(
        backbone, len(CLASSES) + 1, min_size=side, max_size=side, **rpn_and_heads(config)
    )
    return model


class _EverySecondCell(ExtraFPNBlock):  # type: ignore[misc]
    """Append the extra levels of this project's FPN: every second cell of the previous level."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        del x
        for i in range(self.levels):
            results.append(nn.functional.max_pool2d(results[-1], 1, 2))
            names.append(f"extra{i}")
        return results, names


class _Pyramid(nn.Sequential):
    """Chain body and FPN, with the attribute `out_channels` that torchvision's detectors read."""

    def __init__(self, body: nn.Module, pyramid: nn.Module, channels: int) -> None:
        super().__init__(body, pyramid)
        self.out_channels = channels


def default_model(config: DictConfig, side: int) -> nn.Module:
    """Build the default run's model from torchvision's parts."""
    channels, depth = config.backbone.channels, config.backbone.depth
    layers = {f"layer{i + 1}": str(i) for i in range(depth)}
    body = IntermediateLayerGetter(resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]), layers)
    extra = _EverySecondCell(len(config.backbone.strides) - depth)
    pyramid = FeaturePyramidNetwork([64, 128, 256, 512][:depth], channels, extra, nn.BatchNorm2d)
    levels = [*layers.values(), *(f"extra{i}" for i in range(extra.levels))]
    names = [levels[config.backbone.strides.index(stride)] for stride in config.backbone.roi_strides]
    width = config.backbone.width
    model: nn.Module = detection.FasterRCNN(
        _Pyramid(body, pyramid, channels),
        min_size=side,
        max_size=side,
        size_divisible=config.backbone.size_divisibility,
        rpn_anchor_generator=AnchorGenerator(
            tuple((s,) for s in config.dataset.anchor_sizes), ((0.5, 1.0, 2.0),) * len(config.backbone.strides)
        ),
        box_roi_pool=MultiScaleRoIAlign(names, 7, 2, canonical_scale=config.dataset.canonical_size, canonical_level=4),
        box_head=detection.faster_rcnn.TwoMLPHead(channels * 49, width),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(width, len(CLASSES) + 1),
        **rpn_and_heads(config),
    )
    return model


NO_NMS = "model.proposer.nms_thresh=1.0"
"""Disable the RPN's NMS, so that both models have the full number of proposals."""
WORKLOADS = (
    Workload(
        "ResNet-50-FPN, 2 images of 320 px",
        ("experiment=torchvision_fasterrcnn_resnet50_fpn", NO_NMS),
        2,
        320,
        resnet50_fpn,
    ),
    Workload("the default run's model, 4 images of 192 px", (NO_NMS,), 4, 192, default_model),
)
SIDES = ("ours", "torchvision, NCHW", "torchvision, channels last")


def _target(target: Target) -> dict[str, Tensor]:
    return {"boxes": target.boxes, "labels": target.labels + 1}


def prepare(workload: Workload, side: str, device: torch.device, dtype: torch.dtype) -> tuple[Step, Step]:
    """Return functions that run one training step and one inference pass.

    Args:
        workload: the model and its input.
        side: one of `SIDES`.
        device: device of model and input.
        dtype: torch.float32, or autocast's dtype.
    """
    torch.manual_seed(0)
    config, batch = workload.config(), batch_of(workload, device)
    ours = side == "ours"
    model = (build.build_model(config) if ours else workload.peer(config, workload.side)).to(device)
    if side == "torchvision, channels last":
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], LEARNING_RATE, momentum=0.9)
    images = list(batch.images.float() / 255)
    targets = [_target(target) for target in batch.targets]

    def context() -> AbstractContextManager[object]:
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)

    def train() -> None:
        model.train()
        with context():
            losses = model.loss(batch) if ours else model(images, targets)  # type: ignore[operator]
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @cache
    def ready() -> nn.Module:
        return fold(model) if ours else model  # as in `detector.inference.detector.Detector`

    @torch.inference_mode()
    def infer() -> object:
        with context():
            return ready().eval()(batch if ours else images)

    return train, infer


def _peak(index: int, side: str, device: str, dtype: torch.dtype) -> float:
    """Return the peak memory of training steps, in MiB: beyond what was in use on a GPU, or of this process."""
    cuda = device == "cuda"
    if cuda:
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    train, _ = prepare(WORKLOADS[index], side, torch.device(device), dtype)
    for _ in range(3):
        train()
    return (torch.cuda.max_memory_allocated() - before) / 2**20 if cuda else most_resident()


def _peaks(index: int, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Measure the peak memory of each side: on a CPU, in a process of its own."""
    arguments = [(index, side, device.type, dtype) for side in SIDES]
    if device.type == "cuda":
        return {side: _peak(*given) for side, given in zip(SIDES, arguments, strict=True)}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return dict(zip(SIDES, pool.starmap(_peak, arguments, chunksize=1), strict=True))


def most_resident() -> float:
    """Return the peak resident memory of this process, in MiB."""
    status = Path("/proc/self/status")  # on Linux a child process inherits its parent's `ru_maxrss`
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 2**10


def run(
    device: torch.device,
    rounds: int = 7,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    report: Callable[[str], None] = print,
) -> None:
    """Print a Markdown table of times and peak memory, row by row.

    Args:
        device: device of the models.
        rounds: timed calls of each model.
        dtypes: torch.float32, or autocast's dtype.
        report: called with each line.
    """
    report(f"{describe(device)}, torchvision {torchvision.__version__}; ms, median ± half the interquartile range")
    report(f"of {rounds} rounds; memory: peak while that model alone trains, MiB.\n")
    report("| model | dtype | pass | torchvision, NCHW | torchvision, channels last | ours | ratio to the better |")
    report("|---|---|---|---|---|---|---|")
    for index, workload in enumerate(WORKLOADS):
        for dtype in dtypes:
            steps = {side: prepare(workload, side, device, dtype) for side in SIDES}
            for kind, name in enumerate(("training step", "inference")):
                times: dict[str, Timing] = measure({side: pair[kind] for side, pair in steps.items()}, device, rounds)
                shown = {side: str(timing) for side, timing in times.items()}
                _row(report, workload, dtype, name, shown, {side: timing.median for side, timing in times.items()})
            del steps
            peaks = _peaks(index, device, dtype)
            _row(report, workload, dtype, "memory", {side: f"{peak:.0f}" for side, peak in peaks.items()}, peaks)


def _row(
    report: Callable[[str], None],
    workload: Workload,
    dtype: torch.dtype,
    name: str,
    shown: dict[str, str],
    values: dict[str, float],
) -> None:
    peers: Sequence[str] = SIDES[1:]
    ratio = min(values[side] for side in peers) / values["ours"]
    cells = " | ".join(shown[side] for side in (*peers, "ours"))
    report(f"| {workload.name} | {str(dtype).removeprefix('torch.')} | {name} | {cells} | {ratio:.2f}x |")
