"""Train a detector, then evaluate it: python scripts/train.py [pooler=...] [dataset=...] [key=value ...]."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("train", "detector.training.run.train")
