"""Detections against the truth: COCO's and VOC's metrics."""
