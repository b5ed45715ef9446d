"""Evaluate a checkpoint: python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt [dataset=... data_dir=...]."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("evaluate", "detector.training.evaluate.evaluate_checkpoint")
