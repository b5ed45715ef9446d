"""Time the operators against others on the same data, in one run, and against the memory bandwidth.

The least bytes that a pass must move are, forward, each cell that some RoI reads, once, and the output; backward, also
the output's gradient and every cell of the maps' gradients. The device's bandwidth is measured with a copy.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import torch
from torch import Tensor
from torch.nn import functional as F

import ops

STRIDES = (4, 8, 16, 32)
SCALES = [1 / stride for stride in STRIDES]
SAMPLES = 2


@dataclass(frozen=True)
class Workload:
    """Images with a pyramid P2..P5, and RoIs of log-uniform sizes on all of its levels."""

    name: str
    images: int
    rois: int
    """per image"""
    height: int
    width: int
    channels: int
    pooled: int
    canonical_size: float = 224.0

    def features(self, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format) -> list[Tensor]:
        """Draw random levels, [N, C, H / stride, W / stride]."""
        generator = torch.Generator().manual_seed(0)
        maps = []
        for stride in STRIDES:
            size = (self.images, self.channels, self.height // stride, self.width // stride)
            map = torch.randn(size, generator=generator).to(device, dtype)
            maps.append(map.contiguous(memory_format=memory_format))
        return maps

    def boxes(self, device: torch.device) -> list[Tensor]:
        """Draw float32 [rois, 4] per image: sides of 1/7 to 3.5 times the canonical size, aspects of 1:2 to 2:1."""
        generator = torch.Generator().manual_seed(1)
        limit = torch.tensor([self.width, self.height])
        result = []
        for _ in range(self.images):
            side = self.canonical_size * 2 ** (torch.rand(self.rois, 1, generator=generator) * 4.6 - 2.8)
            root = 2 ** (torch.rand(self.rois, 1, generator=generator) - 0.5)
            extent = torch.cat((side * root, side / root), 1).minimum(limit)
            corner = torch.rand(self.rois, 2, generator=generator) * (limit - extent)
            result.append(torch.cat((corner, corner + extent), 1).to(device))
        return result


CPU_WORKLOADS = (
    Workload("512 RoIs, 7 x 7", 2, 256, 800, 1344, 256, 7),
    Workload("128 masks, 14 x 14", 2, 64, 800, 1344, 256, 14),
    Workload("default run", 4, 128, 192, 192, 64, 7, canonical_size=54),
)
CUDA_WORKLOADS = (
    Workload("1024 RoIs, 7 x 7", 2, 512, 800, 1344, 256, 7),
    Workload("256 masks, 14 x 14", 2, 128, 800, 1344, 256, 14),
    Workload("default run", 4, 128, 192, 192, 64, 7, canonical_size=54),
)

Pool = Callable[[list[Tensor]], Tensor]
Contender = Callable[[Workload, list[Tensor]], Pool]
"""(workload, boxes by image) -> the function from features to [K, C, P, P] that is timed"""


def ours(workload: Workload, boxes: list[Tensor]) -> Pool:
    """Build the pass of this project's multi-scale RoIAlign, level assignment included."""

    def pool(features: list[Tensor]) -> Tensor:
        index = [box.new_full((len(box), 1), i) for i, box in enumerate(boxes)]
        rois = torch.cat((torch.cat(index), torch.cat(boxes)), 1)
        levels = ops.assign_levels(rois, SCALES, workload.canonical_size)
        return ops.multiscale_roi_align(features, rois, workload.pooled, SCALES, SAMPLES, levels=levels)

    return pool


@dataclass
class Timing:
    """Median and half the interquartile range of the rounds, in seconds."""

    median: float
    spread: float

    def __str__(self) -> str:
        digits = 3 if self.median < 1e-3 else 2 if self.median < 0.01 else 1
        return f"{self.median * 1e3:.{digits}f} ± {self.spread * 1e3:.{digits}f}"


def measure(calls: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, Timing]:
    """Time the calls in turns, so that all run under the same conditions, after one warm-up call of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_seconds(call, device))
    return {name: Timing(statistics.median(t), _half_quartiles(t)) for name, t in times.items()}


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) / 1e3


def _half_quartiles(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2


def bandwidth(device: torch.device, size: int = 1 << 28) -> float:
    """Measure the bytes per second, reads and writes together, of a copy of `size` bytes."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    timing = measure({"copy": lambda: target.copy_(source)}, device, 7)
    return 2 * size / timing["copy"].median


def floor_bytes(workload: Workload, pool: Pool, features: list[Tensor]) -> tuple[int, int]:
    """Count the least bytes that forward, and forward with backward, must move."""
    item = features[0].element_size()
    leaves = [torch.zeros_like(f, dtype=torch.float32).requires_grad_() for f in features]
    output = pool(leaves)
    touched = sum(int((g != 0).sum()) for g in torch.autograd.grad(output.sum(), leaves))
    forward = (touched + output.numel()) * item
    return forward, forward + (output.numel() + sum(f.numel() for f in features)) * item


def _both(pool: Pool) -> Callable[[list[Tensor]], object]:
    def call(features: list[Tensor]) -> object:
        leaves = [f.detach().requires_grad_() for f in features]
        output = pool(leaves)
        return torch.autograd.grad(output, leaves, torch.ones_like(output))

    return call


def run(
    other_name: str,
    other: Contender,
    device: torch.device,
    workloads: Sequence[Workload],
    rounds: int = 9,
    report: Callable[[str], None] = print,
) -> None:
    """Report a Markdown table, row by row: `other` beside this project's operator, by dtype and memory format.

    Args:
        other_name: heading of the column of `other`.
        other: the operator to compare with; it runs 16-bit features under autocast, having no kernels for them.
        device: where both run.
        workloads: what both are timed on.
        rounds: timed calls of each.
        report: called with each line.
    """
    speed = bandwidth(device)
    report(
        f"{describe(device)}; a copy moves {speed / 1e9:.0f} GB/s. Times in ms: median ± half the interquartile range"
    )
    report(f"of {rounds} rounds; GB/s and the share of the limit count the least bytes that a pass must move.\n")
    report(f"| workload | dtype | layout | pass | {other_name} | ours | ratio | GB/s | of the limit |")
    report("|---|---|---|---|---|---|---|---|---|")
    for workload in workloads:
        boxes = workload.boxes(device)
        for dtype in (torch.float32, torch.bfloat16):
            for layout, memory_format in (("channels last", torch.channels_last), ("NCHW", torch.contiguous_format)):
                features = workload.features(device, dtype, memory_format)
                copies = 1 if device.type == "cpu" else _copies_to_outgrow_the_cache(features, device)
                inputs = [features, *([f.clone() for f in features] for _ in range(copies - 1))]
                pools = {
                    "other": _under(_autocast(device, dtype), other(workload, boxes)),
                    "ours": ours(workload, boxes),
                }
                floors = floor_bytes(workload, pools["ours"], features)
                for name, floor, wrap in (("forward", floors[0], _without_gradients), ("both", floors[1], _both)):
                    source = cycle(inputs)
                    calls = {key: _call(wrap(pool), source) for key, pool in pools.items()}
                    timings = measure(calls, device, rounds)
                    mine = timings["ours"].median
                    report(
                        f"| {workload.name} | {str(dtype).removeprefix('torch.')} | {layout} | {name} "
                        f"| {timings['other']} | {timings['ours']} | {timings['other'].median / mine:.1f}x "
                        f"| {floor / mine / 1e9:.1f} | {floor / speed / mine:.0%} |"
                    )


CONVOLUTIONS = (
    ("P2 of two images of 320 px, as in a pyramid", (2, 256, 80, 80), 256),
    ("P3", (2, 256, 40, 40), 256),
    ("res2 of a ResNet-50", (2, 64, 80, 80), 64),
    ("the default run: P2", (4, 64, 48, 48), 64),
    ("res3", (4, 128, 24, 24), 128),
    ("P4", (4, 64, 12, 12), 64),
    ("the mask head on 128 RoIs", (128, 256, 14, 14), 256),
)
"""Name, maps [B, C, H, W] and number of filters."""


def run_convolutions(rounds: int = 9, report: Callable[[str], None] = print) -> None:
    """Report a Markdown table: 3×3 convolutions and their gradients on the CPU, torch's beside this project's.

    Args:
        rounds: timed calls of each.
        report: called with each line.
    """
    device = torch.device("cpu")
    report(f"{describe(device)}. Times in ms: median ± half the interquartile range of {rounds} rounds\n")
    report("| convolution | maps | filters | pass | torch | ours | ratio |")
    report("|---|---|---|---|---|---|---|")
    for name, size, filters in CONVOLUTIONS:
        generator = torch.Generator().manual_seed(0)
        maps, weight, gradient = (
            torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
            for shape in (size, (filters, size[1], 3, 3), (size[0], filters, *size[2:]))
        )
        passes = (
            ("forward", maps, weight),
            ("gradient of the maps", maps.detach().requires_grad_(), weight),
            ("gradient of the weight", maps, weight.detach().requires_grad_()),
        )
        for passed, *given in passes:
            leaves = [tensor for tensor in given if tensor.requires_grad]
            calls: dict[str, Callable[[], object]] = {}
            for key, convolve in (("torch", _plain_convolution), ("ours", ops.winograd_conv2d)):
                forward = partial(convolve, *given)
                backward = partial(torch.autograd.grad, forward(), leaves, gradient, retain_graph=True)
                calls[key] = backward if leaves else forward
            timings = measure(calls, device, rounds)
            report(
                f"| {name} | {' x '.join(map(str, size))} | {filters} "
                f"| {passed} | {timings['torch']} | {timings['ours']} "
                f"| {timings['torch'].median / timings['ours'].median:.1f}x |"
            )


def _plain_convolution(maps: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(maps, weight, padding=1)


def describe(device: torch.device) -> str:
    """Describe device, versions and date in one line."""
    versions = f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {versions}"
    name, reason = ops.backend()
    machine = platform.processor() or platform.machine()
    return f"{machine} CPU, {torch.get_num_threads()} threads ({name}: {reason}), {versions}"


def _copies_to_outgrow_the_cache(features: list[Tensor], device: torch.device) -> int:
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return 1 + math.ceil(2 * cache / sum(f.numel() * f.element_size() for f in features))


def _autocast(device: torch.device, dtype: torch.dtype) -> Callable[[], AbstractContextManager[object]]:
    return nullcontext if dtype == torch.float32 else lambda: torch.autocast(device.type, dtype)


def _under(context: Callable[[], AbstractContextManager[object]], pool: Pool) -> Pool:
    def call(features: list[Tensor]) -> Tensor:
        with context():
            return pool(features)

    return call


def _call(function: Callable[[list[Tensor]], object], source: Iterator[list[Tensor]]) -> Callable[[], object]:
    return lambda: function(next(source))


def _without_gradients(pool: Pool) -> Callable[[list[Tensor]], object]:
    return torch.no_grad()(pool)
