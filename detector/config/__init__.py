"""Resolve the command line into a final configuration, and build the objects that it describes."""
