"""Export a detector: python scripts/export.py checkpoint=RUN/checkpoints/last.ckpt output=model.onnx."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("export", "detector.inference.export.script.export")
