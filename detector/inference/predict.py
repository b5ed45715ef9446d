"""Detect objects in image files and videos (`scripts/predict.py`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from detector.data.image import ImageReader
from detector.inference.detector import Detector
from detector.inference.inputs import Input, find_inputs
from detector.inference.output_folder import OutputFolder, earlier_files
from detector.inference.predict_video import OF_VIDEOS, detect_video
from detector.inference.results import MASK
from detector.inference.saving import DETECTIONS, check_formats, make_savers
from detector.inference.score_thresholds import BEST, Drawn, read_threshold
from detector.inference.tiles import Tiling, check_batch
from detector.inference.work import Unreadable, Work, detect_images


def adapted_reader(trained: ImageReader, config: DictConfig) -> ImageReader:
    """Return a detector's reader with the keys `range`, `exif` and `max_pixels` of `configs/predict.yaml`.

    Raises:
        ValueError: a value is out of range.
    """
    given = OmegaConf.to_container(config)
    assert isinstance(given, dict)
    keys = [key for key in ("range", "exif", "max_pixels") if given[key] is not None]
    if not keys:
        return trained
    if type(trained) is not ImageReader:
        raise ValueError(
            f"{keys[0]}={given[keys[0]]}: the detector reads images by {type(trained).__name__}; leave it out"
        )
    return ImageReader(
        trained.channels,
        trained.range if given["range"] is None else given["range"],
        trained.exif if given["exif"] is None else given["exif"],
        trained.max_pixels if given["max_pixels"] is None else given["max_pixels"],
    )


def predict(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Detect objects in images and videos, draw them, and write them in other formats, too.

    All detections are in `detections.json`, those of a video in a JSON by frames. `images.json` says what boxes and
    masks refer to: the size of each image as it was read, whether that is upright or as it is stored, and its EXIF
    orientation. `written.txt` lists all that was written; the next prediction removes these files.

    Args:
        config: composed from `configs/predict.yaml`.
        overrides, folder: not used; see `detector.config.cli.Work`.
        console: where progress is shown.

    Raises:
        ValueError, OSError: the input or the checkpoint is invalid, or the folder holds other files; or images cannot
            be read (the others are done).
    """
    del overrides, folder
    output = Path(config.output)
    given = list(config.input) if isinstance(config.input, ListConfig) else str(config.input)
    inputs = find_inputs(given, output)
    _check_output(output, inputs)
    batch, tiling = config.batch, Tiling.parse(config.tiles, config.overlap, config.join, config.join_thresh)
    check_batch(batch)
    if not isinstance(config.threshold, DictConfig) and config.threshold != BEST:
        read_threshold(config.threshold, [], "")  # before the detector is read, which takes longer
    detector = Detector(
        config.checkpoint,
        config.device,
        config.precision,
        config.norm_eps,
        config.trust,
        detections=config.detections,
        test_time_augmentation=config.test_time_augmentation,
        pre_nms_topk=config.pre_nms_topk,
        post_nms_topk=config.post_nms_topk,
        nms_thresh=config.nms_thresh,
    )
    masks = any(output.key == MASK for output in detector.model.heads.outputs)
    formats = check_formats(config.save, masks)
    if tiling is not None:
        tiling.check(masks)
    images, videos = ([i for i in inputs if i.is_video is kind] for kind in (False, True))
    if videos and (others := [name for name in formats if name not in OF_VIDEOS]):
        raise ValueError(
            f"save={others[0]}: {videos[0].path} is a video, of which [{', '.join(OF_VIDEOS)}] are written, and a JSON "
            "by frames; for the others take its frames out: ffmpeg -i VIDEO frames/%06d.png"
        )
    least = read_threshold(config.threshold, detector.classes, str(config.checkpoint))
    if unknown := [name for name, score in zip(detector.classes, least, strict=True) if score is None]:
        console.print(f"Not drawn, since none was found right: {', '.join(unknown)}", markup=False, soft_wrap=True)
    results = OutputFolder(output)
    try:
        savers = make_savers(formats, results, detector.classes, masks)
        reader = adapted_reader(detector.reader, config)
        work = Work(detector, reader, tiling, batch, Drawn(least), savers, results)
        detect_images(work, images, console)
        for video in videos:
            try:
                detect_video(work, video, console)
            except Unreadable as error:
                work.unread.append(str(error))
        for saver in savers.values():
            saver.close()
        results.write_text("images.json", json.dumps(work.pixels, indent=1) + "\n")
    finally:
        results.close()
    _report(work, output, len(inputs), console)


def _check_output(output: Path, inputs: Sequence[Input]) -> None:
    """Check that the folder of the results is not that of the images, and holds nothing but earlier results."""
    if output.is_file() or any(output.resolve() == given.path.resolve().parent for given in inputs):
        raise ValueError(f"output {str(output)!r}: give a folder of its own, apart from the images (output=FOLDER)")
    earlier_files(output)


def _report(work: Work, output: Path, inputs: int, console: Console) -> None:
    """Say what was found and drawn, and what was not as one may expect."""
    numbers = [(len(work.pixels), "image")] if work.pixels or not work.frames else []
    numbers += [(work.frames, "frame")] if work.frames else []
    counts = [f"{number} {thing}{'' if number == 1 else 's'}" for number, thing in numbers]
    console.print(
        f"{work.drawn.found} detections in {' and '.join(counts)}: {output}/{DETECTIONS}", markup=False, soft_wrap=True
    )
    console.print(work.drawn.sentence(), markup=False, soft_wrap=True)
    if work.full:
        console.print(
            f"{work.full} images, windows or frames have as many of these as are kept of one "
            f"({work.detector.detections}), and may have more: raise detections=, pre_nms_topk= and post_nms_topk=",
            markup=False,
            soft_wrap=True,
        )
    if work.decoded:
        many = "1 image was" if len(work.decoded) == 1 else f"{len(work.decoded)} images were"
        console.print(
            f"{many} decoded as a whole, such as {work.decoded[0]}, in memory for all pixels; TIFFs without "
            "compression or with Deflate, and .npy, are read by windows",
            markup=False,
            soft_wrap=True,
        )
    turned = sum(row["exif_orientation"] != 1 for row in work.pixels.values())
    if turned:
        stored = getattr(work.reader, "exif", None) is False
        kind = "as they are stored" if stored else "upright, exif=false takes them as they are stored"
        console.print(f"{turned} images are turned by EXIF (images.json); pixels are those {kind}", markup=False)
        if stored and "yolo" in work.savers:
            console.print("YOLO's readers turn images as EXIF says: its labels do not fit these", markup=False)
    if work.unread:
        raise ValueError(f"{len(work.unread)} of {inputs} images could not be read: {'; '.join(work.unread[:3])}")
