"""Train Mask R-CNN beside torchvision's, in the same loop: images per second, peak memory and losses.

Both begin with the same weights and see the same generated images and objects, which come from the host at each step;
masks are windows here, whole images there. Each side trains in a process of its own, whose memory is its own; the
sides take turns, so that only one of them computes at a time. torchvision's model runs in both memory formats.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import cycle

import torch
import torchvision
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.models import detection

from detector.config import build
from detector.config.cli import keep_memory
from detector.config.compose import compose_config
from detector.config.resolve import with_classes
from detector.data.collate import collate
from detector.training.benchmark import CLASSES, SIDES, most_resident, rpn_and_heads
from detector.types import Batch, Masks, Sample, Size, Target
from detector.weights.loading import load_weights
from detector.weights.torchvision import convert
from ops.benchmark import describe

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4
RESIDUAL = 0.2
"""Scale of each residual branch: with random weights and frozen norms, activations would grow with the depth."""


@dataclass(frozen=True)
class Training:
    """What both sides do."""

    backbone: str = "resnet50"
    """a ResNet by torchvision's name; with an FPN"""
    size: Size = (800, 1333)
    images: int = 2
    """in a batch"""
    objects: int = 10
    """in an image"""
    rois: int = 512
    """sampled of each image"""
    batches: int = 4
    """different ones, which repeat"""
    warmup: int = 5
    """steps before the first turn, which are not timed"""
    turns: int = 5
    steps: int = 10
    """in a turn"""

    def config(self) -> DictConfig:
        """Compose the configuration of this project's model: torchvision's architecture, anchors and losses."""
        preset = "experiment=torchvision_maskrcnn_resnet50_fpn"
        changes = [f"backbone.name={self.backbone}", "norm.eps=1e-5", f"dataset.rois={self.rois}"]
        return with_classes(compose_config([preset, *changes]), CLASSES)


def draw(training: Training, number: int) -> Batch:
    """Draw a batch of images with ellipses, of a colour by class, on coarse noise; `number` is the seed."""
    generator = torch.Generator().manual_seed(number)
    height, width = training.size
    colours = torch.randint(256, (len(CLASSES), 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    samples = []
    for index in range(training.images):
        noise = torch.randint(0, 256, (1, 3, height // 8, width // 8), generator=generator).float()
        image = nn.functional.interpolate(noise, training.size).byte()[0]
        labels = torch.randint(len(CLASSES), (training.objects,), generator=generator)
        shares = 0.04 * 8 ** torch.rand(training.objects, 2, generator=generator)  # of the image's sides
        sides = (shares * torch.tensor([height, width])).ceil().long()
        room = torch.tensor([height, width]) - sides
        corners = (torch.rand(training.objects, 2, generator=generator) * (room + 1)).long()
        pixels = []
        for (y, x), (h, w), label in zip(corners.tolist(), sides.tolist(), labels.tolist(), strict=True):
            down, across = ((torch.arange(side) + 0.5) / side * 2 - 1 for side in (h, w))
            inside = down[:, None] ** 2 + across**2 <= 1
            image[:, y : y + h, x : x + w][:, inside] = colours[label][:, None]
            pixels.append(inside)
        masks = Masks.from_windows(pixels, [(x, y) for y, x in corners.tolist()], training.size)
        flags = torch.zeros(training.objects, dtype=torch.bool)
        target = Target(masks.windows.float(), labels, flags, flags.clone(), masks)
        samples.append(Sample(image, target, index, training.size))
    return collate(samples)


@dataclass
class TheirBatch:
    """A batch as torchvision's models take it; on the host images are still uint8."""

    images: list[Tensor]
    targets: list[dict[str, Tensor]]

    @classmethod
    def from_batch(cls, batch: Batch) -> TheirBatch:
        """Take the padding off the images, count labels from 1 and spread masks over whole images, uint8 [G, H, W]."""
        images = [image[:, :h, :w] for image, (h, w) in zip(batch.images, batch.sizes, strict=True)]
        targets = []
        for target in batch.targets:
            assert target.masks is not None
            masks = torch.stack([target.masks.dense(i) for i in range(len(target))]).byte()
            targets.append({"boxes": target.boxes, "labels": target.labels + 1, "masks": masks})
        return cls(images, targets)

    def pin_memory(self) -> TheirBatch:
        """Copy to page-locked memory."""
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in self.targets]
        return TheirBatch([image.pin_memory() for image in self.images], targets)

    def to(self, device: torch.device, non_blocking: bool = False) -> TheirBatch:
        """Copy to another device, with images in 0..1."""
        images = [image.to(device, non_blocking=non_blocking).float() / 255 for image in self.images]
        targets = [{k: v.to(device, non_blocking=non_blocking) for k, v in t.items()} for t in self.targets]
        return TheirBatch(images, targets)


def torchvision_model(training: Training, config: DictConfig) -> nn.Module:
    """Build torchvision's Mask R-CNN with random weights; its transform leaves the images' size as it is."""
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name=training.backbone, weights=None, trainable_layers=5 - config.backbone.freeze_at
    )
    last = "bn3" if training.backbone not in ("resnet18", "resnet34") else "bn2"
    for name, module in backbone.named_modules():
        if name.endswith(f".{last}"):
            nn.init.constant_(module.weight, RESIDUAL)
    model: nn.Module = detection.MaskRCNN(backbone, len(CLASSES) + 1, _skip_resize=True, **rpn_and_heads(config))
    return model


def models(training: Training) -> dict[str, nn.Module]:
    """Build both models with the same weights, `ours` and `torchvision`."""
    torch.manual_seed(0)
    config = training.config()
    theirs = torchvision_model(training, config)
    ours = build.build_model(config)
    pretrained = convert(theirs.state_dict(), "maskrcnn_resnet50_fpn", "torchvision's model")
    assert pretrained.classes is not None
    report = load_weights(ours, pretrained, pretrained.classes)
    assert not report.reinitialized, report.reinitialized
    return {"ours": ours, "torchvision": theirs}


Step = Callable[[], Tensor]
"""One step of training; returns the total loss, without waiting for it."""


def prepare(training: Training, side: str, device: torch.device, dtype: torch.dtype) -> Step:
    """Return a function that trains for one step.

    Args:
        training: model and images.
        side: one of `SIDES`.
        device: where it trains.
        dtype: torch.float32, or autocast's dtype.
    """
    ours = side == "ours"
    model = models(training)[side.split(",")[0]].to(device).train()
    if side == "torchvision, channels last":
        model.to(memory_format=torch.channels_last)
    drawn = [draw(training, number) for number in range(training.batches)]
    batches: Sequence[Batch | TheirBatch] = drawn if ours else [TheirBatch.from_batch(batch) for batch in drawn]
    if device.type == "cuda":
        batches = [batch.pin_memory() for batch in batches]
    source = cycle(batches)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)

    def context() -> AbstractContextManager[object]:
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)

    def step() -> Tensor:
        batch = next(source).to(device, non_blocking=True)
        with context():
            arguments = (batch.images, batch.targets) if isinstance(batch, TheirBatch) else (batch,)
            losses: dict[str, Tensor] = (model.loss if ours else model)(*arguments)  # type: ignore[operator]
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return total.detach()

    return step


@dataclass(frozen=True)
class Turn:
    """What a side measured in one turn."""

    seconds: float
    losses: list[float]
    """of each step"""
    peak_mib: float
    """most memory of the process, or of its part on the GPU, since it began"""


_running: list[tuple[Step, torch.device]] = []
"""The training of this process, which serves one side."""


def _begin(training: Training, side: str, device: torch.device, dtype: torch.dtype, threads: int) -> None:
    keep_memory()
    torch.set_num_threads(threads)
    _running[:] = [(prepare(training, side, device, dtype), device)]


def _turn(steps: int) -> Turn:
    ((step, device),) = _running
    began = time.perf_counter()
    losses = torch.stack([step() for _ in range(steps)]).tolist()  # which waits for the device
    seconds = time.perf_counter() - began
    return Turn(
        seconds, losses, torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else most_resident()
    )


def take_turns(training: Training, device: torch.device, dtype: torch.dtype) -> dict[str, list[Turn]]:
    """Train all sides, in turns; returns each side's turns, of which the first is the warm-up.

    Raises:
        RuntimeError: a side fails, or its process ends.
    """
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        workers = {side: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for side in SIDES}
        threads = torch.get_num_threads()
        ready = [worker.submit(_begin, training, side, device, dtype, threads) for side, worker in workers.items()]
        for future in ready:
            future.result()
        turns: dict[str, list[Turn]] = {side: [] for side in SIDES}
        for steps in (training.warmup, *[training.steps] * training.turns):
            for side, worker in workers.items():
                turns[side].append(worker.submit(_turn, steps).result())
    return turns


def run(
    training: Training,
    device: torch.device,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    report: Callable[[str], None] = print,
) -> None:
    """Print a Markdown table, row by row, and a sentence that sums it up.

    Args:
        training: what both sides do.
        device: where they train.
        dtypes: torch.float32, or autocast's dtype.
        report: called with each line.

    Raises:
        RuntimeError: a side fails, or a loss is not finite.
    """
    height, width = training.size
    report(f"{describe(device)}, torchvision {torchvision.__version__}; TF32 {_tf32()}.")
    report(
        f"Mask R-CNN {training.backbone}-FPN, {training.images} images of {height} x {width} px in a batch, each with"
    )
    report(f"{training.objects} objects; medians of {training.turns} turns of {training.steps} steps, after")
    report(f"{training.warmup} steps that do not count.\n")
    report("| dtype | model | ms a step | images/s | ratio to ours | peak memory, MiB | loss, first to last |")
    report("|---|---|---|---|---|---|---|")
    found, broken = [], []
    for dtype in dtypes:
        turns = take_turns(training, device, dtype)
        name = str(dtype).removeprefix("torch.")
        seconds = {
            side: statistics.median(t.seconds for t in taken[1:]) / training.steps for side, taken in turns.items()
        }
        peaks = {side: taken[-1].peak_mib for side, taken in turns.items()}
        for side in (*SIDES[1:], SIDES[0]):
            losses = [loss for turn in turns[side] for loss in turn.losses]
            if not all(math.isfinite(loss) for loss in losses):
                broken.append(f"{side}, {name}")
            report(
                f"| {name} | {side} | {seconds[side] * 1e3:.1f} | {training.images / seconds[side]:.2f} "
                f"| {seconds['ours'] / seconds[side]:.2f}x | {peaks[side]:.0f} | {losses[0]:.3f} to {losses[-1]:.3f} |"
            )
        speed = min(seconds[side] for side in SIDES[1:]) / seconds["ours"]
        memory = peaks["ours"] / min(peaks[side] for side in SIDES[1:])
        rate = training.images / seconds["ours"]
        found.append(f"{name}: {rate:.2f} images/s, {speed:.2f}x torchvision's, {memory:.2f}x its memory")
    if broken:
        raise RuntimeError(f"losses that are not finite: {'; '.join(broken)}")
    report(f"\nAll losses are finite. {'; '.join(found)}.")


def _tf32() -> str:
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return f"{'on' if cudnn else 'off'} in convolutions, {'on' if matmul else 'off'} in products"
