"""Weights of others in this project's modules: torchvision's, Detectron2's, and those of earlier runs."""
