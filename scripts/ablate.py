"""Answer a question by many runs: python scripts/ablate.py study=pooler [hydra/launcher=joblib] [key=value ...].

Compare two runs: python scripts/ablate.py --compare RUN RUN [--output FOLDER].
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: DictConfig) -> None:
    """Run what of a study is not done, then write its records and its report."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import ListConfig, OmegaConf

    from detector.ablation import study
    from detector.ablation.records import write
    from detector.ablation.report.report import report
    from detector.ablation.sweep import Sweep
    from detector.config import build
    from detector.config.cli import console

    settings = HydraConfig.get()
    build.check_additions("ablate", settings.overrides.task)
    folder = Path(settings.runtime.output_dir)
    for key, what in (("arms", "names"), ("datasets", "names"), ("reuse", "folders"), ("report", "folders")):
        if not isinstance(config[key], ListConfig | None):
            raise ValueError(f"{key}={config[key]}: give a list of {what}, such as {key}=[{config[key]}]")
    if config.report is not None:
        console.print(f"Report: {report(list(config.report), folder / 'report')}", soft_wrap=True)
        return
    asked = study.read(OmegaConf.to_container(config.study, resolve=True))
    asked, overrides, own = asked.on([build.override("data_dir", config.data_dir), *config.overrides])
    datasets = [own] if own is not None and config.datasets is None else config.datasets
    if own is not None and own not in datasets:
        raise ValueError(f"datasets={list(datasets)} leaves out {own}, which dataset= chooses; give one of the two")
    sweep = Sweep(asked, Path(os.path.relpath(folder)), overrides, config.arms, datasets, config.reuse or ())
    if config.dry_run:
        sweep.show()
        return
    launch = [o for o in settings.overrides.hydra if o.startswith(("hydra/launcher", "hydra.launcher"))]
    failed = sweep.run(launch)
    records = sweep.records()
    if records.metrics:
        write(folder / "records", records)
        pictures = sweep.showcases(folder / "showcases")
        console.print(f"Report: {report([folder / 'records'], folder / 'report', pictures)}", soft_wrap=True)
    if failed:
        names = ", ".join(job.folder for job in failed[:5])
        raise ValueError(
            f"{len(failed)} of {len(sweep.jobs)} runs failed ({names}{', ...' if len(failed) > 5 else ''}): the reason "
            "stands above; the same command tries them again"
        )


def split(arguments: list[str]) -> list[str]:
    """Return the command line with the keys that `configs/ablate.yaml` does not have as overrides of the runs."""
    from detector.config.overrides import quote

    own = ("study", "arms", "datasets", "data_dir", "reuse", "dry_run", "report", "hydra", "overrides")
    mine = [a for a in arguments if a[:1] == "-" or "=" not in a or re.split(r"[./@=]", a.lstrip("+~"))[0] in own]
    quoted = [quote(a) for a in arguments if a not in mine]
    if quoted and any(a.startswith("overrides=") for a in mine):
        raise ValueError(
            f"give {' '.join(a for a in arguments if a not in mine)} within overrides=[...], or all beside it"
        )
    if any(a.startswith("report=") for a in mine) and not any(a.startswith("hydra.run.dir=") for a in mine):
        mine.append("hydra.run.dir=multirun/report")
    return [*mine, f"overrides=[{','.join(quoted)}]"] if quoted else mine


def compare_two(arguments: list[str]) -> int:
    """Write the report of two runs."""
    parser = argparse.ArgumentParser(description=compare_two.__doc__)
    parser.add_argument("--compare", nargs=2, type=Path, required=True, metavar="RUN", help="folders of runs")
    parser.add_argument("--output", type=Path, default=Path("outputs/compare"), help="folder for records and report")
    options = parser.parse_args(arguments)

    from detector.ablation.compare import compare
    from detector.config.cli import console

    try:
        console.print(f"Report: {compare(*options.compare, options.output)}", soft_wrap=True)
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if "--compare" in sys.argv:
        sys.exit(compare_two(sys.argv[1:]))
    run("ablate", main, prepare=split)
