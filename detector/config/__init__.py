"""From the command line to a final configuration, and from it to objects."""
