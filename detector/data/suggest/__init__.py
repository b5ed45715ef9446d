"""Settings that follow from the sizes, shapes and numbers of a training set's objects."""
