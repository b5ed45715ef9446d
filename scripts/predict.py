"""Detect objects in images: python scripts/predict.py checkpoint=... input=FILE|FOLDER output=FOLDER."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("predict", "detector.inference.predict.predict")
