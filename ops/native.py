"""Load the compiled operators and register their fake kernels and gradients.

Three operators serve all others: `average`, `ps_average` (position-sensitive) and `maximum` pool RoIs from the levels
of a pyramid under a rule (where the bins lie and where they sample: csrc/geometry.h), and each has a backward operator.
The averages are linear in the features, so that the backward of their backward is the operator itself. `match` and
`rank` match boxes with objects and `nms` suppresses duplicates; they have no gradients.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops.compile import PREBUILT, BuildError, build, sources_digest
from ops.compile_cuda import build_cuda


class Backend(NamedTuple):
    """The implementation that runs, and the reason."""

    name: str
    """"cuda", "cpu" or "torch" (pure PyTorch)"""
    reason: str


def _load() -> str | None:
    """Load the CPU library and register fake kernels and gradients; return the reason of a failure, or None.

    Operators are registered once in a process. If a copy of this package has done that, such as an installed one
    beside that of a clone, its operators serve this one, too, if they are compiled from the same sources.
    """
    if hasattr(torch.ops.aligned_rcnn, "average"):
        if _sources() == sources_digest():
            return None
        return _without("those of another version of this project are loaded in this process")
    try:
        _load_library()
    except (BuildError, OSError) as error:
        return _without(str(error))
    _register()
    return None


def _sources() -> str | None:
    """Return the digest of the sources of the loaded library; None of one from before it said so."""
    return str(torch.ops.aligned_rcnn.sources()) if hasattr(torch.ops.aligned_rcnn, "sources") else None


def _load_library() -> None:
    """Load the library that the wheel brings, or else compile it.

    Raises:
        BuildError, OSError: it cannot be compiled, or not be loaded.
    """
    refused = ""
    if PREBUILT.is_file():
        try:
            torch.ops.load_library(PREBUILT)  # type: ignore[no-untyped-call]
            return
        except OSError as error:  # on a system that is not as the wheel's name says
            refused = f"{error}, and compiling it anew: "
    try:
        torch.ops.load_library(build())  # type: ignore[no-untyped-call]
    except BuildError as error:
        raise BuildError(f"{refused}{error}", error.log) from error


def _without(reason: str) -> str:
    """Warn that the compiled operators cannot be used; returns the reason."""
    warnings.warn(f"RoI operators: {reason}; using the slower pure PyTorch ones.", stacklevel=3)
    return reason


@functools.cache
def _cuda_missing() -> str | None:
    """Load the CUDA library at the first call, when CUDA is in use; return the reason of a failure, or None."""
    if _missing is not None:
        return _missing
    if torch._C._dispatch_has_kernel_for_dispatch_key("aligned_rcnn::average", "CUDA"):
        return None  # another copy of this package has loaded it
    try:
        torch.ops.load_library(build_cuda())  # type: ignore[no-untyped-call]
    except (BuildError, ValueError, OSError) as error:
        warnings.warn(f"RoI operators for CUDA: {error}; using the slower pure PyTorch ones.", stacklevel=2)
        return str(error)
    return None


def _has_cuda() -> bool:
    return _cuda_missing() is None


# Set what torch.compiler.assume_constant_result would set: calling it imports dynamo, a second at every `import ops`.
_has_cuda.__dict__["_dynamo_marked_constant"] = True


def available(device: torch.device) -> bool:
    """Tell whether compiled operators exist for tensors on `device`; the first call for CUDA compiles them."""
    return (device.type == "cpu" and _missing is None) or (device.type == "cuda" and _has_cuda())


def backend() -> Backend:
    """Tell which implementation runs: `(name, reason)`.

    Returns:
        "cuda" where there is a GPU and the operators are compiled for it and for the CPU; "cpu" where they are compiled
        for the CPU only; "torch" (pure PyTorch) where they are not compiled.
    """
    if _missing is not None:
        return Backend("torch", _missing)
    variant = torch.ops.aligned_rcnn.cpu_variant()
    if not torch.cuda.is_available():
        return Backend("cpu", f"compiled kernels, {variant} variant; there is no GPU")
    if (missing := _cuda_missing()) is not None:
        return Backend("cpu", f"compiled kernels, {variant} variant; pure PyTorch on the GPU: {missing}")
    return Backend("cuda", f"compiled kernels, {variant} variant on the CPU")


def is_channels_last(features: Sequence[Tensor]) -> bool:
    """Tell whether the operators treat these maps as channels last: all are, and at least one is not also NCHW."""
    last = all(f.is_contiguous(memory_format=torch.channels_last) for f in features)
    return last and any(not f.is_contiguous() for f in features)


def _sizes(features: Sequence[Tensor]) -> list[int]:
    return [size for feature in features for size in feature.shape]


def _empty(like: Tensor, size: Sequence[int], channels_last: bool, dtype: torch.dtype | None = None) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format)


# ---- Fake kernels ----


def _is_fake_channels_last(features: Sequence[Tensor]) -> bool:
    """Tell `is_channels_last`; of sizes that depend on data, as of an exported resizing, it is not known: False."""
    from torch.fx.experimental.symbolic_shapes import has_free_unbacked_symbols

    return not any(has_free_unbacked_symbols(feature) for feature in features) and is_channels_last(features)


def _average_fake(
    features: list[Tensor],
    boxes: Tensor,
    levels: Tensor | None,
    scales: list[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    rule: str,
) -> Tensor:
    size = (boxes.shape[0], features[0].shape[1], pooled_height, pooled_width)
    return _empty(features[0], size, _is_fake_channels_last(features))


def _maximum_fake(features: list[Tensor], boxes: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    output = _average_fake(features, boxes, *rest)
    return output, torch.empty_like(output, dtype=torch.int32)


def _average_backward_fake(
    grad: Tensor,
    boxes: Tensor,
    levels: Tensor | None,
    sizes: list[int],
    scales: list[float],
    sampling_ratio: int,
    rule: str,
    channels_last: bool,
) -> list[Tensor]:
    return [_empty(grad, sizes[i : i + 4], channels_last) for i in range(0, len(sizes), 4)]


def _maximum_backward_fake(grad: Tensor, argmax: Tensor, *rest: Any) -> list[Tensor]:
    return _average_backward_fake(grad, *rest)


def _ps_average_fake(features: list[Tensor], boxes: Tensor, *rest: Any) -> Tensor:
    pooled_height, pooled_width = rest[2:4]
    channels = features[0].shape[1] // (pooled_height * pooled_width)
    size = (boxes.shape[0], channels, pooled_height, pooled_width)
    return _empty(features[0], size, _is_fake_channels_last(features))


def _average_masks_fake(
    pixels: Tensor,
    windows: Tensor,
    offsets: Tensor,
    boxes: Tensor,
    index: Tensor,
    height: int,
    width: int,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    rule: str,
) -> Tensor:
    return boxes.new_empty((boxes.shape[0], 1, pooled_height, pooled_width), dtype=torch.float32)


def _match_fake(boxes: Tensor, objects: Tensor, crowd: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = boxes.shape[0]
    index, nearest = (boxes.new_empty(count, dtype=dtype) for dtype in (torch.int64, torch.bool))
    return boxes.new_empty(count), index, nearest, boxes.new_empty(count)


def _rank_fake(
    boxes: Tensor, objects: Tensor, crowd: Tensor, distance: str, topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    count = boxes.shape[1]
    index, ranked = (boxes.new_empty(count, dtype=torch.int64) for _ in range(2))
    return boxes.new_empty(count), index, ranked


def _winograd_conv2d_fake(maps: Tensor, filters: Tensor, bias: Tensor | None, turned: bool) -> Tensor:
    size = (maps.shape[0], filters.shape[1 if turned else 0], *maps.shape[2:])
    return _empty(maps, size, True)


def _winograd_weight_fake(maps: Tensor, gradients: Tensor) -> Tensor:
    return _empty(maps, (gradients.shape[1], maps.shape[1], 3, 3), True)


def _nms_fake(boxes: Tensor, order: Tensor, groups: Tensor, iou_threshold: float, topk: int) -> Tensor:
    return order.new_empty(torch.library.get_ctx().new_dynamic_size())


# ---- Gradients ----


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    features, boxes, levels, ctx.scales, _, _, ctx.sampling_ratio, ctx.rule = inputs
    ctx.save_for_backward(boxes, levels, *([output[1]] if isinstance(output, tuple) else []))
    ctx.sizes, ctx.channels_last = _sizes(features), is_channels_last(features)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad, boxes, levels, _, ctx.scales, ctx.sampling_ratio, ctx.rule, _ = inputs
    ctx.save_for_backward(boxes, levels)
    ctx.pooled = tuple(grad.shape[2:])


def _register_linear(name: str) -> None:
    """Register the gradients of a linear operator and of its backward: each is the gradient of the other."""

    def gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        boxes, levels = ctx.saved_tensors
        transpose = getattr(torch.ops.aligned_rcnn, f"{name}_backward")
        grads = transpose(grad, boxes, levels, ctx.sizes, ctx.scales, ctx.sampling_ratio, ctx.rule, ctx.channels_last)
        return (grads, *[None] * 7)

    def second_gradient(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
        boxes, levels = ctx.saved_tensors
        operator = getattr(torch.ops.aligned_rcnn, name)
        grad = operator(grads, boxes, levels, ctx.scales, *ctx.pooled, ctx.sampling_ratio, ctx.rule)
        return (grad, *[None] * 7)

    register = torch.library.register_autograd
    register(f"aligned_rcnn::{name}", gradient, setup_context=_setup)
    register(f"aligned_rcnn::{name}_backward", second_gradient, setup_context=_setup_backward)


def _maximum_gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    boxes, levels, argmax = ctx.saved_tensors
    grads = torch.ops.aligned_rcnn.maximum_backward(
        grad, argmax, boxes, levels, ctx.sizes, ctx.scales, ctx.sampling_ratio, ctx.rule, ctx.channels_last
    )
    return (grads, *[None] * 7)


def _register() -> None:
    fake = torch.library.register_fake
    fake("aligned_rcnn::average", _average_fake)
    fake("aligned_rcnn::average_backward", _average_backward_fake)
    fake("aligned_rcnn::ps_average", _ps_average_fake)
    fake("aligned_rcnn::ps_average_backward", _average_backward_fake)
    fake("aligned_rcnn::maximum", _maximum_fake)
    fake("aligned_rcnn::maximum_backward", _maximum_backward_fake)
    fake("aligned_rcnn::average_masks", _average_masks_fake)
    fake("aligned_rcnn::match", _match_fake)
    fake("aligned_rcnn::rank", _rank_fake)
    fake("aligned_rcnn::nms", _nms_fake)
    fake("aligned_rcnn::winograd_conv2d", _winograd_conv2d_fake)
    fake("aligned_rcnn::winograd_weight", _winograd_weight_fake)
    _register_linear("average")
    _register_linear("ps_average")
    torch.library.register_autograd("aligned_rcnn::maximum", _maximum_gradient, setup_context=_setup)


_missing = _load()
