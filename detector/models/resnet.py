"""ResNets (He et al., 2016) and ResNeXts (Xie et al., 2017): as bodies, and their last stage, res5, alone."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from detector.models import pretrained
from detector.models.backbone import Body, Norm
from detector.models.folding import conv_norm

RESNET10 = "resnet10"
"""The name of a ResNet that torchvision does not have: one basic block per stage."""


class ResNet(Body):
    """Compute features by the stem and residual stages of torchvision's ResNets and ResNeXts.

    Args:
        name: torchvision's name, such as `resnet50` or `resnext50_32x4d`; or `resnet10`, a ResNet-18 with one block
            per stage, for which there are no ImageNet weights.
        norm: makes the normalisation layer of a number of channels.
        weights: None for random ones, else as `detector.models.pretrained.read_pretrained` takes them.
        freeze_at: number of frozen stages, the stem being the first (Detectron2's FREEZE_AT).
        depth: number of residual stages, 1 to 4; the last ones are left out.
        stride_in_1x1: whether a bottleneck block strides in its first 1×1 convolution (He et al., Caffe's weights)
            instead of in its 3×3 (torchvision).
        dilation: of the 3×3 convolutions of res5, the last residual stage, 1 or 2. With 2 res5 does not stride, so that
            its cells are 16 pixels apart ("DC5", Detectron2's RES5_DILATION).
        in_channels: of the images; the stem of ImageNet's weights is adapted (`detector.models.pretrained.adapt_stem`).

    Raises:
        ValueError: an argument is out of range, or the weights do not fit.
    """

    def __init__(
        self,
        name: str,
        norm: Norm = nn.BatchNorm2d,
        weights: str | None = None,
        freeze_at: int = 0,
        depth: int = 4,
        stride_in_1x1: bool = False,
        dilation: int = 1,
        in_channels: int = 3,
    ) -> None:
        if not 1 <= depth <= 4:
            raise ValueError(f"depth is the number of residual stages, 1 to 4, got {depth}")
        if dilation not in (1, 2) or (dilation == 2 and depth < 4):
            raise ValueError(
                f"dilation of the last residual stage must be 1, or 2 with depth=4, got {dilation=}, {depth=}"
            )
        net = _network(name, norm, weights, stride_in_1x1, in_channels)
        if dilation == 2:
            _dilate(net.layer4)
        widest, last = net.inplanes, 16 if dilation == 2 else 32
        super().__init__([widest // 8, widest // 4, widest // 2, widest][:depth], [4, 8, 16, last][:depth])
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = ("layer1", "layer2", "layer3", "layer4")[:depth]
        for stage in self.stages:
            self.add_module(stage, net.get_submodule(stage))
        self.freeze([self.stem, *(self.get_submodule(stage) for stage in self.stages)], freeze_at)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the residual stages' outputs C2, C3, ... at strides 4, 8, ... from [B, in_channels, H, W]."""
        conv, norm, *rest = self.stem
        x = conv_norm(conv, norm, image)
        for layer in rest:
            x = layer(x)
        features = []
        for stage in self.stages:
            x = _run(self.get_submodule(stage), x)
            features.append(x)
        return features


class ResNetStage(nn.Module):
    """Run res5 alone on pooled features, for a detector on C4 (ResNet, appendix A).

    Args:
        name, norm, weights, stride_in_1x1: as of the `ResNet` (depth=3) that computes the features.

    Raises:
        ValueError: as of `ResNet`.
    """

    def __init__(
        self, name: str, norm: Norm = nn.BatchNorm2d, weights: str | None = None, stride_in_1x1: bool = False
    ) -> None:
        super().__init__()
        self.layer4 = _network(name, norm, weights, stride_in_1x1).layer4

    def forward(self, features: Tensor) -> Tensor:
        """Compute [K, 2 · D, P / 2, P / 2] from [K, D, P, P]."""
        return _run(self.layer4, features)


def _run(stage: nn.Module, x: Tensor) -> Tensor:
    """Run a stage of torchvision's residual blocks, each convolution together with its norm."""
    for block in stage.children():
        assert isinstance(block, BasicBlock | Bottleneck)
        y = F.relu(conv_norm(block.conv1, block.bn1, x), inplace=True)
        y = conv_norm(block.conv2, block.bn2, y)
        if isinstance(block, Bottleneck):
            y = conv_norm(block.conv3, block.bn3, F.relu(y, inplace=True))
        if block.downsample is not None:
            x = conv_norm(block.downsample[0], block.downsample[1], x)
        y += x
        x = F.relu(y, inplace=True)
    return x


def _network(
    name: str, norm: Norm, weights: str | None, stride_in_1x1: bool, in_channels: int = 3
) -> torchvision.models.ResNet:
    """Build torchvision's network without its classifier."""
    models = torchvision.models
    names = [n for n in models.list_models(models) if models.get_model_builder(n).__module__ == models.resnet.__name__]
    if name == RESNET10:
        net = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm)
    elif name in names:
        net = models.get_model(name, weights=None, norm_layer=norm)
    else:
        raise ValueError(
            f"backbone.name: {name!r} is no ResNet of torchvision; take one of {', '.join([RESNET10, *names])}"
        )
    net.fc = nn.Identity()
    pretrained.set_in_channels(net, in_channels)
    if weights is not None:
        state = pretrained.read_pretrained(name, weights)
        pretrained.load_pretrained(net, {k: v for k, v in state.items() if not k.startswith("fc.")}, weights)
    if stride_in_1x1:
        for block in (net.layer2[0], net.layer3[0], net.layer4[0]):
            if not isinstance(block, Bottleneck):
                raise ValueError(f"stride_in_1x1: blocks of {name} have no 1x1 before the 3x3; take resnet50 or deeper")
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return net


def _dilate(stage: nn.Module) -> None:
    """Make a stage dilate by two instead of striding by two."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)
