"""Two runs as a study."""

from __future__ import annotations

from pathlib import Path

from detector.ablation.collect import Finished, collect
from detector.ablation.records import Arm, StudyInfo, write
from detector.ablation.report import report
from detector.ablation.showcase import showcase
from detector.folders import configuration


def compare(first: Path, second: Path, output: Path) -> Path:
    """Write records and a report in which the second run is compared with the first, and the images that differ most.

    Args:
        first, second: folders of finished runs on the same data.
        output: the folder for `records/`, `showcase.png` and `report/`.

    Returns:
        the path of the report.

    Raises:
        ValueError, OSError: one is no finished run, or they are of different data.
    """
    info, runs = _study(first, second)
    write(output / "records", collect(info, runs))
    showcase(first, second, output, (str(first), str(second)))
    pictures = {"Where it matters: the images on which the runs differ most": output / "showcase.png"}
    return report([output / "records"], output / "report", pictures)


def _study(first: Path, second: Path) -> tuple[StudyInfo, list[Finished]]:
    configs = [configuration(first), configuration(second)]
    datasets = list(dict.fromkeys(str(config.dataset.name) for config in configs))
    if len(datasets) > 1:
        raise ValueError(f"{first} and {second} were measured on {' and '.join(datasets)}: give runs on the same data")
    seed = int(configs[0].seed)
    arms = {"first": Arm(str(first), []), "second": Arm(str(second), [])}
    info = StudyInfo(
        name="compare",
        title=f"{second} against {first}",
        question="What is the second run better at than the first?",
        baseline="first",
        arms=arms,
        datasets=datasets,
        seeds=[seed],
    )
    made = "python scripts/train.py (its configuration: {}/config.yaml)"
    return info, [
        Finished(arm, datasets[0], seed, folder, made.format(folder))
        for arm, folder in zip(arms, (first, second), strict=True)
    ]
