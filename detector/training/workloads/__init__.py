"""Workloads that `detector.training.against` measures, here and in checkouts of other commits.

A workload is a file with `CASES`: for each case, its contenders by name. A contender prepares its data on a device and
returns the call to measure; "ours" is this project. The files are run in older checkouts, too: so they import no
other workload, and of this project only what has been there, under the same name, in the commits to compare with.
"""
