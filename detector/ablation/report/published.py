"""Published differences on COCO, in %, to compare measured ones with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """The effect of a change, as a paper reports it."""

    source: str
    """paper and table"""
    values: Mapping[str, tuple[float, float]]
    """before and after, by metric"""
    gains: Mapping[str, float] | None = None
    """differences by metric, where the paper gives only these"""

    def gain(self, metric: str, less: str | None = None) -> float | None:
        """Return the gain in points, or the gain minus that in the metric `less`; None if it was not published."""
        if less is not None:
            first, second = self.gain(metric), self.gain(less)
            return None if first is None or second is None else first - second
        if metric in self.values:
            before, after = self.values[metric]
            return after - before
        return (self.gains or {}).get(metric)

    def words(self, metric: str, less: str | None = None) -> str:
        """Format the gain and its source; empty if it was not published."""
        gain = self.gain(metric, less)
        if gain is None:
            return ""
        parts = [
            f"{name} {self.values[name][0]:.1f} to {self.values[name][1]:.1f}"
            for name in (metric, less)
            if name is not None and name in self.values
        ]
        return f"{gain:+.1f}\n{', '.join([*parts, self.source])}"


SIZE_BINS = (32.0, 96.0)
"""COCO's size bins: two sides in pixels, whose squares separate small, medium and large objects."""
MASK_RCNN = "Mask R-CNN"
TO_ALIGN: Mapping[tuple[str, str], Published] = {
    ("mask", "c4"): Published(
        f"{MASK_RCNN}, table 2c, R50-C4", {"AP": (26.9, 30.3), "AP50": (48.8, 51.2), "AP75": (26.4, 31.5)}
    ),
    ("mask", "c5"): Published(
        f"{MASK_RCNN}, table 2d, R50-C5", {"AP": (23.6, 30.9), "AP50": (46.5, 51.8), "AP75": (21.6, 32.1)}
    ),
    ("box", "c5"): Published(
        f"{MASK_RCNN}, table 2d, R50-C5", {"AP": (28.2, 34.0), "AP50": (52.7, 55.3), "AP75": (26.9, 36.4)}
    ),
    ("mask", "fpn"): Published(f"{MASK_RCNN}, with FPN", {}, {"AP": 1.5}),
    ("box", "fpn"): Published(
        f"{MASK_RCNN}, table 3, R101-FPN; its text gives +0.5 with FPN",
        {"AP": (36.2, 37.3), "APs": (18.2, 19.8), "APm": (39.0, 40.2), "APl": (48.2, 48.8)},
    ),
}
"""From RoIPool to RoIAlign, by kind and by the backbone's family."""
BY_STRIDE: Mapping[tuple[str, str, str], Published] = {
    ("mask", "c5", "c4"): Published(f"{MASK_RCNN}, tables 2d and 2c: +7.3 and +3.4", {}, {"AP": 3.9}),
    ("mask", "c4", "fpn"): Published(f"{MASK_RCNN}, table 2c and with FPN: +3.4 and +1.5", {}, {"AP": 1.9}),
    ("mask", "c5", "fpn"): Published(f"{MASK_RCNN}, table 2d and with FPN: +7.3 and +1.5", {}, {"AP": 5.8}),
    ("box", "c5", "fpn"): Published(f"{MASK_RCNN}, tables 2d and 3: +5.8 and +1.1", {}, {"AP": 4.7}),
}
"""The gain of RoIAlign over RoIPool with one family of backbones minus that with another."""
AVERAGE_TO_MAX = Published(
    f"{MASK_RCNN}, table 2c, R50-C4", {"AP": (30.3, 30.2), "AP50": (51.2, 51.0), "AP75": (31.5, 31.8)}
)
POOL_TO_WARP = Published(
    f"{MASK_RCNN}, table 2c, R50-C4, average", {"AP": (26.9, 27.1), "AP50": (48.8, 48.9), "AP75": (26.4, 27.1)}
)
WARP_TO_ALIGN = Published(
    f"{MASK_RCNN}, table 2c, R50-C4, average", {"AP": (27.1, 30.3), "AP50": (48.9, 51.2), "AP75": (27.1, 31.5)}
)
SOFTMAX_TO_SIGMOID = Published(
    f"{MASK_RCNN}, table 2b, R50-C4", {"AP": (24.8, 30.3), "AP50": (44.1, 51.2), "AP75": (25.1, 31.5)}
)
SIGMOID_TO_AGNOSTIC = Published(f"{MASK_RCNN}, table 2b, R50-C4", {"AP": (30.3, 29.7)})
MLP_TO_FCN = Published(f"{MASK_RCNN}, table 2e, R50-FPN", {"AP": (31.5, 33.6)})
TO_RFLA = Published("RFLA's README, Faster R-CNN R50-FPN on AI-TOD", {"AP": (11.1, 21.1), "AP50": (26.3, 51.6)})
"""With anchors of 32 px and more in the first, which the tiny objects of AI-TOD do not fit."""
