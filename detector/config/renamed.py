"""Keys of version 0.1 that were renamed."""

from __future__ import annotations

RENAMED = {
    "proposals": "rpn",
    "pre_nms": "pre_nms_topk",
    "post_nms": "post_nms_topk",
    "score": "score_thresh",
    "nms": "nms_thresh",
    "detections": "topk_per_image",
    "count": "batch_size_per_image",
    "fraction": "positive_fraction",
    "positive": "high_threshold",
    "negative": "low_threshold",
    "low_quality": "allow_low_quality_matches",
    "weights": "bbox_reg_weights",
    "class_agnostic": "cls_agnostic_bbox_reg",
    "append_truth": "proposal_append_gt",
    "mask_head": "further.mask",
}
"""Names of keys in version 0.1, and what they are called since."""


def current_key(key: str) -> str:
    """Return what a key of version 0.1 is called now, such as `dataset.rpn.test.post_nms_topk`; other keys stay.

    Only keys below `model` and `dataset.proposals` were renamed: `weights`, `proposals` and `dataset.detections` exist
    still. What is below `further` never had other names.
    """
    parts = key.split(".")
    renamed = parts[0] == "model" or parts[:2] == ["dataset", "proposals"]
    if not renamed or "further" in parts:
        return key
    return ".".join([parts[0], *(RENAMED.get(part, part) for part in parts[1:])])
