"""Describe a dataset by numbers, plots and a page."""
