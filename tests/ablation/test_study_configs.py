"""Every run of every study composes, and its model can be built."""

from pathlib import Path

import pytest
import torch
import yaml

from detector.ablation.study import parse_study
from detector.config import build
from detector.config.resolve import with_classes
from detector.weights.checkpoints import portable_config
from detector.weights.trust import check_targets
from tests.ablation.test_study import STUDIES
from tests.conftest import CLASSES, compose_config


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_run_of_each_study_composes_and_builds(path: Path) -> None:
    asked = parse_study(yaml.safe_load(path.read_text()), path.name)
    seen = set()
    for job in asked.jobs(Path("runs"), ["data_dir=data"]):
        if job.seed != asked.info.seeds[0]:
            continue
        config = with_classes(compose_config(*job.overrides), CLASSES)
        assert build.takes_proposals(config.model) is (job.arm in asked.proposals)
        config.backbone.weights = None  # no download
        with torch.device("meta"):
            build.build_model(config)
        content = portable_config(config)
        check_targets(content, "own")
        content.pop("proposals")
        seen.add((job.dataset, repr(content)))
    assert len(seen) == len(asked.info.arms) * len(asked.datasets)  # no arm is another under a second name


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_study_can_be_rehearsed(path: Path) -> None:
    asked = parse_study(yaml.safe_load(path.read_text()), path.name)
    jobs = asked.jobs(Path("runs"), ["experiment=dry"])
    assert len(jobs) == len(asked.info.arms) * len(asked.datasets) * len(asked.info.seeds)
    for job in jobs:
        (chosen,) = [o for o in job.overrides if o.startswith("experiment=")]
        assert chosen == "experiment=dry" or chosen.endswith(",dry]")
