"""Datasets, augmentation and loading: from files to `Batch`."""
