"""Write a page on a detector's results: what costs AP, by class, size and image, and what may help."""
