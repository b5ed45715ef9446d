"""Keep the best threshold of each class beside the checkpoint that it is of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

SUFFIX = ".thresholds.json"


def thresholds_file(checkpoint: Path) -> Path:
    """Return the file of a checkpoint's thresholds, such as `last.thresholds.json`."""
    return checkpoint.with_name(checkpoint.stem + SUFFIX)


def describe_thresholds(scores: Mapping[str, float | None], checkpoint: Path, dataset: str) -> str:
    """Write the text of the file.

    Args:
        scores: by class name; None where no object of any class was found.
        checkpoint: the evaluated file.
        dataset: name of the one that they were found on.
    """
    content = {"dataset": dataset, "sha256": file_sha256(checkpoint), "scores": dict(scores)}
    return json.dumps(content, indent=1) + "\n"


def read_thresholds(checkpoint: str, classes: Sequence[str]) -> list[float | None]:
    """Read the best threshold of each class of a checkpoint; None where no object of any class was found.

    Raises:
        ValueError: there are none, they are of another state of the file, or a class is not among them.
    """
    way = f"evaluate.py checkpoint={checkpoint} report=true finds them; or give a score, such as threshold=0.5"
    source = Path(checkpoint)
    if not source.is_file():
        raise ValueError(f"threshold=best: {checkpoint} is no file, beside which thresholds could be; give a score")
    path = thresholds_file(source)
    if not path.is_file():
        raise ValueError(f"threshold=best: there is no {path}: {way}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        of_state, scores = content["sha256"], content["scores"]
        found = {str(name): None if score is None else float(score) for name, score in scores.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"threshold=best: {path} cannot be read ({error!r}): {way}") from error
    if of_state != file_sha256(source):
        raise ValueError(f"threshold=best: {path} is of another state of {checkpoint}: {way}")
    if missing := [name for name in classes if name not in found]:
        raise ValueError(f"threshold=best: {path} has no threshold of {', '.join(missing[:5])}: {way}")
    return [found[name] for name in classes]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
