"""Any network as a body: read its features at named nodes (torchvision's feature extraction)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from detector.models import pretrained
from detector.models.backbone import Body, Norm

PROBE = (128, 160)
"""Height and width of the image on which strides are measured; they differ, so that axes can be told apart."""


def torchvision_model(
    name: str, weights: str | None = None, norm: Norm | None = None, in_channels: int = 3
) -> nn.Module:
    """Build a classification network of torchvision.

    Args:
        name: torchvision's, such as `mobilenet_v3_large`.
        weights: None for random ones, else as `detector.models.pretrained.read_pretrained` takes them.
        norm: makes the layers that replace its batch norms and take over their parameters, statistics, eps and
            momentum; None: none is replaced. Norms of other kinds stay.
        in_channels: of the images; the first layer of ImageNet's weights is adapted, as of `ResNet`.

    Raises:
        ValueError: there is no such network, the weights do not fit, or `norm` makes layers without statistics, which
            the weights have.
    """
    names = torchvision.models.list_models(torchvision.models)
    if name not in names:
        raise ValueError(f"backbone.name: torchvision has no {name!r}; take one of {', '.join(names)}")
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    pretrained.set_in_channels(model, in_channels)
    if weights is not None:
        pretrained.load_pretrained(model, pretrained.read_pretrained(name, weights), weights)
    if norm is not None:
        _replace_norms(model, norm, weights)
    return model


def _replace_norms(module: nn.Module, norm: Norm, weights: str | None) -> None:
    for name, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            _replace_norms(child, norm, weights)
            continue
        new = norm(child.num_features)
        own = new.state_dict()
        if weights is not None and "running_mean" not in own:
            raise ValueError(
                f"backbone weights {weights!r} were trained with batch norms, and norm makes {type(new).__name__}: "
                "take norm=batch, norm=sync or norm=frozen, or backbone.weights=null for random ones"
            )
        new.load_state_dict({k: v for k, v in child.state_dict().items() if k in own})
        for attribute in ("eps", "momentum"):
            if hasattr(new, attribute):
                setattr(new, attribute, getattr(child, attribute))
        module.add_module(name, new)


class Extracted(Body):
    """Compute features by any network, cut off after the last node.

    Channels and strides are measured on an image of zeros. Features that the network computes as [B, H, W, D] (Swin)
    are permuted to [B, D, H, W].

    Args:
        model: takes [B, in_channels, H, W]; torch.fx must be able to trace it.
        nodes: where features are read, fine to coarse: the names of modules, such as `features.3`, or of single
            operations, as `torchvision.models.feature_extraction.get_graph_node_names` gives them.
        freeze_at: so many nodes, the finest first, are frozen with all modules that they depend on.
        in_channels: of the images.

    Raises:
        ValueError: the model cannot be traced, a node does not exist, or gives no map of evenly spaced cells.
    """

    def __init__(self, model: nn.Module, nodes: Sequence[str], freeze_at: int = 0, in_channels: int = 3) -> None:
        if not nodes or len(set(nodes)) != len(nodes):
            raise ValueError(f"nodes must be at least one name, none of them twice, got {list(nodes)}")
        _check_names(model, nodes)
        net = create_feature_extractor(model, list(nodes), suppress_diff_warning=True).eval()
        with torch.set_grad_enabled(freeze_at > 0):
            found = net(torch.zeros(1, in_channels, *PROBE))
        layouts = [_layout(node, found[node]) for node in nodes]
        super().__init__([channels for channels, _, _ in layouts], [stride for _, stride, _ in layouts])
        self.net, self.nodes = net.train(), tuple(nodes)
        self.channels_last = tuple(last for _, _, last in layouts)
        if not 0 <= freeze_at <= len(nodes):
            raise ValueError(f"freeze_at must be 0 to {len(nodes)}, the number of nodes, got {freeze_at}")
        if freeze_at:
            self.freeze(parts := _behind(net, found[nodes[freeze_at - 1]]), len(parts))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the nodes' features [B, D, H / stride, W / stride] from [B, in_channels, H, W]."""
        found = self.net(image)
        return [
            found[node].permute(0, 3, 1, 2) if last else found[node]
            for node, last in zip(self.nodes, self.channels_last, strict=True)
        ]


def _check_names(model: nn.Module, nodes: Sequence[str]) -> None:
    kind = type(model).__name__
    try:
        _, names = get_graph_node_names(model, suppress_diff_warning=True)
    except Exception as error:  # whatever the model's own code raises when it meets a tracer
        raise ValueError(f"torch.fx cannot trace {kind}, so that nodes cannot be read in it: {error}") from error
    for node in nodes:
        if not any(name == node or name.startswith(f"{node}.") for name in names):
            tops = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
            raise ValueError(f"nodes: {kind} has no {node!r}; it has {', '.join(tops)}, and what is within these")


def _layout(node: str, feature: object) -> tuple[int, int, bool]:
    """Measure a feature of the probe: channels, stride, and whether the channels come last."""
    shape = tuple(feature.shape) if isinstance(feature, Tensor) else (type(feature).__name__,)
    if len(shape) == 4:
        for last, (height, width) in ((False, shape[2:]), (True, shape[1:3])):
            stride = PROBE[0] // height
            if (height * stride, width * stride) == PROBE:
                return shape[-1 if last else 1], stride, last
    raise ValueError(
        f"nodes: {node!r} gives {shape} for an image of {PROBE[0]} by {PROBE[1]} pixels, which is no map of cells a "
        "whole number of pixels apart; take another node"
    )


def _behind(net: nn.Module, feature: Tensor) -> list[nn.Module]:
    """Find the modules on whose own parameters a feature depends."""
    if not feature.requires_grad:
        return []
    weights = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(feature.sum(), weights, allow_unused=True)
    used = {id(p) for p, gradient in zip(weights, gradients, strict=True) if gradient is not None}
    return [m for m in net.modules() if any(id(p) in used for p in m.parameters(recurse=False))]
