"""Evaluate a detector, or what another program has found.

python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt [dataset=... data_dir=...]
python scripts/evaluate.py predictions=FILE.json dataset=... [data_dir=...]
"""

from detector.config.command_line import run

if __name__ == "__main__":
    run("evaluate", "detector.training.evaluate_script.evaluate_script")
