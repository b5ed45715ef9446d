"""Two-stage detectors: data, models, training and evaluation. The model is `detector/models/rcnn.py`."""
