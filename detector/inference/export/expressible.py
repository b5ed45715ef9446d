"""Check before the tracing that the operators of a detector have a form in the file's format."""

from __future__ import annotations

from functools import partial
from typing import Any

import ops
from detector.models.pooler import Pooler
from detector.models.rcnn import RCNN
from detector.models.rpn import RPN

SAMPLED = (ops.multiscale_roi_align, ops.multiscale_roi_warp)
"""Operators of samples, which ONNX's RoiAlign computes, but for the maxima of adaptive grids."""
CROPS = (ops.multiscale_roi_crop, ops.multiscale_crop_and_resize)
"""Operators that no format has."""
KNOWN = (*SAMPLED, ops.multiscale_roi_pool, ops.multiscale_ps_roi_align, ops.multiscale_ps_roi_pool)


def check_operators(model: RCNN, onnx: bool) -> None:
    """Check the proposer and the poolers of a detector.

    Args:
        model: the detector.
        onnx: whether the format is ONNX, or made from it; else the operators of `ops` themselves are called.

    Raises:
        ValueError: one has no form in the format; the message names it and the way out.
    """
    if not isinstance(model.proposer, RPN):
        raise ValueError(
            f"the detector's proposals come from {type(model.proposer).__name__}, which has no form in a file: export "
            "takes detectors that were trained with their own RPN"
        )
    for name, module in model.named_modules():
        if isinstance(module, Pooler):
            _check_pooler(name, module, onnx)


def _check_pooler(name: str, pooler: Pooler, onnx: bool) -> None:
    operator: Any = pooler.operator
    function = operator.func if isinstance(operator, partial) else operator
    given: dict[str, Any] = operator.keywords if isinstance(operator, partial) else {}
    called = f"model.{name} pools by {getattr(function, '__module__', '?')}.{getattr(function, '__name__', function)}"
    if function in CROPS or (onnx and function not in KNOWN):
        raise ValueError(
            f"{called}, which has no form in {'an ONNX file' if onnx else 'a graph'}: train with pooler=roialign, "
            "roialign_max, roialign_adaptive, roialign_legacy, roipool or roiwarp"
        )
    if not onnx:
        return
    if function in SAMPLED and given.get("mode") == "max" and given.get("sampling_ratio", -1) < 1:
        raise ValueError(
            f"{called} with mode=max and sampling_ratio={given.get('sampling_ratio', -1)}: the maxima of an adaptive "
            "grid have no form in an ONNX file; train with a fixed pooler.sampling_ratio, such as 2, or give "
            "output=model.pt2"
        )
    if function is ops.multiscale_ps_roi_pool:
        raise ValueError(
            f"{called}, the position-sensitive RoIPool, which has no form in an ONNX file: train R-FCN with "
            "pooler=roialign or roialign_adaptive, or give output=model.pt2"
        )
