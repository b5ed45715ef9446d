"""A run: how it begins, goes on, and what it leaves in its folder."""
