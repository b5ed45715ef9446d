"""A trained detector as one function of one image, which torch.export can trace for images of any size."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from detector.data.augment import Augment
from detector.data.transforms import Resize
from detector.inference.detector import Detector
from detector.inference.export.resizing import LARGEST, Resizing
from detector.masks import MaskOutput, Paste, paste
from detector.models.box_head import FullyConnected
from detector.models.rcnn import RCNN
from detector.models.roi_heads import StandardHeads
from detector.types import Batch, Objects

GRIDS, PASTED = "grids", "pasted"
MASKS = (GRIDS, PASTED)
"""What an exported model gives of masks: the mask head's grids over the boxes, or masks of the image."""
EXAMPLE = (203, 267)
"""Height and width of the image that a model is traced with; both stay free."""


class Graph(nn.Module):
    """Detect the objects of one image: resize, detect, and scale the boxes back.

    Args:
        model: the detector, folded, in float32 on the CPU.
        resizing: makes the network's image.
        channels: of the images, D.
        masks: `grids`, `pasted`, or None for a model without masks.
    """

    def __init__(self, model: RCNN, resizing: Resizing, channels: int, masks: str | None) -> None:
        super().__init__()
        self.model, self.resizing, self.channels, self.masks = model, resizing, channels, masks

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect the objects of an image uint8 [D, H, W].

        Returns:
            of N objects, best first: boxes float32 [N, 4] in the image's pixels, scores float32 [N], labels int64 [N];
            where the model has masks, grids float32 [N, M, M] or pasted ones bool [N, H, W]; then what further heads
            give, in the order of `names`.
        """
        images, height, width = self.resizing(image)
        sides = height.item(), width.item()
        size: Any = sides
        for side, padded in zip(sides, images.shape[2:], strict=True):
            torch._check(side >= 1)
            torch._check(side <= padded)
        objects: Objects = self.model(Batch(images, [size], [size], [0], []))[0]
        y, x = (
            (torch.full((), original, dtype=torch.float64) / side).float()
            for original, side in ((image.shape[1], height), (image.shape[2], width))
        )
        boxes = objects.boxes * torch.stack((x, y, x, y))
        found = [boxes, objects.scores, objects.labels]
        if objects.masks is not None:
            pasted = self.masks == PASTED
            found.append(
                pasted_masks(objects.masks, boxes, image.shape[1], image.shape[2]) if pasted else objects.masks
            )
        return (*found, *objects.extra.values())

    @torch.inference_mode()
    def names(self) -> list[str]:
        """Return the names of the outputs."""
        objects: Objects = self.model(Batch(torch.zeros(1, self.channels, 64, 64), [(64, 64)], [(64, 64)], [0], []))[0]
        return ["boxes", "scores", "labels", *(["masks"] if objects.masks is not None else []), *objects.extra]


def pasted_masks(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Paste grids [N, M, M] over boxes [N, 4]: bool [N, height, width], as `detector.masks.paste` does."""
    down = _weights(boxes[:, 1], boxes[:, 3], masks.shape[1], height)
    across = _weights(boxes[:, 0], boxes[:, 2], masks.shape[2], width)
    return down @ masks @ across.mT >= 0.5


def _weights(low: Tensor, high: Tensor, cells: int, length: int) -> Tensor:
    """Compute the bilinear weights [N, length, cells] of cells over [low, high] at the centres of pixels."""
    extent = high - low
    known = (extent > 0)[:, None]
    centres = torch.arange(length, device=low.device).to(low.dtype) + 0.5
    position = (centres - low[:, None]) / torch.where(known, extent[:, None], 1.0) * cells - 0.5
    distance = position[..., None] - torch.arange(cells, device=low.device).to(low.dtype)
    return torch.where(known[..., None], (1 - distance.abs()).clamp(min=0), 0.0)


def build_graph(detector: Detector, masks: str = GRIDS) -> Graph:
    """Build the function that is traced from a detector, whose own model is left as it is.

    Raises:
        ValueError: a part of the detector has no form in a graph; the message names it and the way out.
    """
    if masks not in MASKS:
        raise ValueError(f"masks must be one of {', '.join(MASKS)}, not {masks!r}")
    model = copy.deepcopy(detector.model).float().cpu()
    kind = None
    if isinstance(model.heads, StandardHeads):
        model.heads.rois_at_once = model.heads.detections_at_once = None
        outputs = [output for output in model.heads.outputs if isinstance(output, MaskOutput)]
        kind = masks if outputs else None
        if kind == PASTED and not _is_paste(outputs[0].paste):
            raise ValueError(
                "masks=pasted: this detector does not paste its masks by detector.masks.paste, as a graph does (those "
                "of torchvision paste on whole pixels); give masks=grids"
            )
    resizing = Resizing(*resizing_of(detector.augment), detector.size_divisibility)
    return Graph(model, resizing, detector.reader.channels, kind).eval()


def _is_paste(function: Paste) -> bool:
    """Return whether a function is `paste` with its own threshold, also as a configuration makes it."""
    if isinstance(function, partial):
        return function.func is paste and not function.args and not function.keywords
    return function is paste


def with_flat_layers(graph: Graph) -> Graph:
    """Copy a detector, with fully connected layers that read pooled maps [K, D, P, P] as ONNX lays them out.

    Those of the detector read them in channels_last, which a file would copy at each run.
    """
    graph = copy.deepcopy(graph)
    for module in list(graph.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, FullyConnected):
                width, inputs = len(layer.weight), layer.weight[0].numel()
                linear = nn.Linear(inputs, width)
                linear.load_state_dict({"weight": layer.weight.flatten(1), "bias": layer.bias})
                module.add_module(name, nn.Sequential(nn.Flatten(), linear))
    return graph


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """Trace a detector for images of any height and width up to `LARGEST`.

    Raises:
        ValueError: a part of the detector cannot be traced.
    """
    example = torch.zeros(graph.channels, *EXAMPLE, dtype=torch.uint8)
    height, width = (torch.export.Dim(name, min=2, max=LARGEST) for name in ("height", "width"))
    try:
        with torch.no_grad():
            return torch.export.export(graph, (example,), dynamic_shapes=({1: height, 2: width},), strict=False)
    except Exception as error:  # those of tracing have no common base
        raise ValueError(
            f"the detector cannot be traced by torch.export: {_first_line(error)} CONTRIBUTING.md, 'An operator or a "
            "head in an exported model', says what its parts may do"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def resizing_of(augment: Any) -> tuple[int | None, int | None]:
    """Return the shorter side and the limit of the longer one that images are resized to; None: none.

    Raises:
        ValueError: images are not only resized to one size, as a graph can.
    """
    if not isinstance(augment, Augment):
        raise ValueError(
            f"images are prepared by {type(augment).__name__}, which has no form in a graph: export takes "
            "detector.data.augment.Augment, which resizes"
        )
    if not augment.transforms:
        return None, None
    first = augment.transforms[0]
    if len(augment.transforms) > 1 or not isinstance(first, Resize) or first.scale is not None:
        names = ", ".join(type(transform).__name__ for transform in augment.transforms)
        raise ValueError(
            f"images are prepared by {names}, and a graph has only the resizing to a shorter side: train with "
            "dataset.val_augment.short_sizes and max_size alone"
        )
    if first.short_sizes is not None and len(set(first.short_sizes)) > 1:
        raise ValueError(
            f"dataset.val_augment.short_sizes={list(first.short_sizes)} leaves the size to chance; an exported model "
            "has one, such as [800]"
        )
    return (None if first.short_sizes is None else first.short_sizes[0]), first.max_size
