"""VGG16 (Simonyan and Zisserman, 2015) as in Fast and Faster R-CNN: convolutions as body, fc6 and fc7 as trunk."""

from __future__ import annotations

from torch import Tensor, nn

from detector.models import pretrained
from detector.models.backbone import Body
from detector.models.box_head import FullyConnected

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""The width and number of the convolutions between the max-pools."""


class VGG16(Body):
    """Compute the features of VGG16 up to conv5_3 and its ReLU, at stride 16.

    Args:
        weights: None for random ones, else as `detector.models.pretrained.read_pretrained` takes them.
        freeze_at: stages, of the five between the max-pools, that are frozen (Fast R-CNN, section 4.5: 2).
        in_channels: of the images; the first layer of ImageNet's weights is adapted, as of `ResNet`.

    Raises:
        ValueError: `freeze_at` is out of range, or the weights do not fit.
    """

    def __init__(self, weights: str | None = None, freeze_at: int = 0, in_channels: int = 3) -> None:
        super().__init__([STAGES[-1][0]], [2 ** (len(STAGES) - 1)])
        stages = []
        inputs = in_channels
        for width, count in STAGES:
            layers: list[nn.Module] = []
            for _ in range(count):
                conv = nn.Conv2d(inputs, width, 3, padding=1)
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
                layers += [conv, nn.ReLU(inplace=True)]
                inputs = width
            stages.append([*layers, nn.MaxPool2d(2, 2)])
        features = nn.Sequential(*(layer for stage in stages for layer in stage))
        if weights is not None:
            state = pretrained.read_pretrained("vgg16", weights)
            own = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
            pretrained.load_pretrained(features, own, weights)
        stages[-1].pop()
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = (nn.Sequential(*stage) for stage in stages)
        self.freeze([self.conv1, self.conv2, self.conv3, self.conv4, self.conv5], freeze_at)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute one feature [B, 512, H / 16, W / 16] from [B, in_channels, H, W]."""
        return [self.conv5(self.conv4(self.conv3(self.conv2(self.conv1(image)))))]


class VGGTrunk(nn.Sequential):
    """Apply VGG16's layers fc6 and fc7, each with ReLU and dropout: from pooled features [K, D, P, P] to [K, `width`].

    Args:
        channels, size: D and P; VGG16's are 512 and 7.
        width: of both layers; VGG16's is 4096.
        dropout: the share of their outputs that is dropped in training.
        weights: None for random ones, else as `detector.models.pretrained.read_pretrained` takes them.

    Raises:
        ValueError: the weights do not fit.
    """

    def __init__(
        self,
        channels: int = 512,
        size: int = 7,
        width: int = 4096,
        dropout: float = 0.5,
        weights: str | None = None,
    ) -> None:
        first, last = FullyConnected(channels, size, width), nn.Linear(width, width)
        nn.init.kaiming_uniform_(last.weight, a=1)
        nn.init.zeros_(last.bias)
        super().__init__(first, nn.ReLU(), nn.Dropout(dropout), last, nn.ReLU(), nn.Dropout(dropout))
        if weights is not None:
            kept = ("classifier.0.", "classifier.3.")
            state = {
                k.removeprefix("classifier."): v
                for k, v in pretrained.read_pretrained("vgg16", weights).items()
                if k.startswith(kept)
            }
            matrix = state.get("0.weight")
            if matrix is not None and matrix.shape == (width, channels * size * size):
                state["0.weight"] = matrix.view_as(first.weight)
            pretrained.load_pretrained(self, state, weights)
