"""Check what can be read of a dataset: its images, its objects, and its splits beside each other."""
