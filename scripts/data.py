"""Check a dataset and count its objects: python scripts/data.py dataset=... [data_dir=...]."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("data", "detector.config.summary.print_summary")
