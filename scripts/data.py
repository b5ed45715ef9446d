"""Check a dataset and count what it holds: python scripts/data.py dataset=... [data_dir=...]."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("data", "detector.config.summary.print_summary")
