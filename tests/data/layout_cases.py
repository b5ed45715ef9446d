"""One image of 60 x 40 pixels with two objects, for the layouts of folders and JSONs as tools really write them.

Written by FiftyOne 1.22.1, label-studio-sdk 2.1.2, panlabel 0.7.0, sahi 0.12.8, labelme2coco 0.2.6, ultralytics 8.4.190
and datumaro 1.13.12, which also writes what CVAT exports; Roboflow's after its published exports.
"""

from pathlib import Path

from PIL import Image

from detector.data.annotations import AnnotatedDataset

OBJECTS = {"pear": [0.0, 0, 10, 10], "apple": [20.0, 5, 50, 30]}
ROWS = "1 0.083333 0.125000 0.166667 0.250000\n0 0.583333 0.437500 0.500000 0.625000\n"  # pear, apple


def write(root: Path, files: dict[str, str]) -> None:
    """Write files by their paths; images are of 60 x 40 pixels and need no content."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("RGB", (60, 40)).save(path)
        else:
            path.write_text(text)


def found(dataset: AnnotatedDataset) -> dict[str, list[float]]:
    table = dataset.annotations
    pairs = zip(table.labels, table.corners().round(3).tolist(), strict=True)
    return {table.classes[label]: box for label, box in pairs}
