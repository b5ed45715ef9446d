"""Detect objects, and write proposals, with a trained detector."""
