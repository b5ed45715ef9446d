"""Train, resume and evaluate detectors, and read the folders of runs."""
