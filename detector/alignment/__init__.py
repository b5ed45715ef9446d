"""Alignment made visible: what RoIPool and RoIAlign take for a RoI, in pictures and over whole datasets."""
