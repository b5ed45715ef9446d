"""Draw and measure the quantisation error of RoI operators: for one RoI, over a dataset, and in the AP of runs."""
