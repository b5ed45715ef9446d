"""A trained detector on any image."""
