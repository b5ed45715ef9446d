"""Read datasets, augment their samples and load them in batches."""
