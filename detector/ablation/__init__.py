"""Ablation studies: runs that differ in one choice, their records, statistics and report."""
