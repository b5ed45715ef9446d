"""Detect objects in images and videos: python scripts/predict.py checkpoint=... input=FILE|FOLDER output=FOLDER."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("predict", "detector.inference.predict.predict")
