"""Generated sets that several tests check."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.conftest import compose_config
from tests.data.check_cases import TRAIN, VAL, Files, split


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Ten images for training and three for validation, with a cat and a dog in each."""
    made = Files(tmp_path, split(tmp_path, "train", TRAIN, 0), split(tmp_path, "val", VAL, 100))
    made.write()
    return made


@pytest.fixture(scope="session")
def composed() -> DictConfig:
    given = ["dataset=custom", "dataset.train.annotations=t", "dataset.val.annotations=v", "most=null"]
    return compose_config(*given, name="data_check")
