"""A user's package: one part of each kind, none of which this repository knows."""
