"""Read datasets, augment their samples and load them in batches."""

import os

# Otherwise the import of albumentations looks for a newer version over the network, and warns without one.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
