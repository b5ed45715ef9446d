"""Numbers that would be understood as something else, or fail after the training has started."""

import pytest
from omegaconf import OmegaConf

from detector.config.resolve import check_numbers
from tests.conftest import compose_config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("schedule.clip=-1", "schedule.clip must be null or a norm such as 10.0, not -1"),
        ("schedule.clip=abc", "schedule.clip must be .*not 'abc'"),
        ("schedule.clip=true", "schedule.clip must be .*not True"),
        ("schedule.clip=.inf", "schedule.clip must be"),
        ("schedule.steps=true", "schedule.steps must be a whole number of at least 1, not True"),
        ("schedule.patience=true", "schedule.patience must be .*not True"),
        ("schedule.keep_every=true", "schedule.keep_every must be .*not True"),
        ("schedule.keep_every=0", "schedule.keep_every must be .*not 0"),
        ("seed=true", "seed must be .*not True"),
        ("trainer.log_every_n_steps=-1", "trainer.log_every_n_steps must be a whole number of at least 1, not -1"),
        ("+trainer.max_steps=3", r"trainer\.max_steps is set by schedule\.steps: give that"),
        ("+trainer.gradient_clip_val=3", r"trainer\.gradient_clip_val is set by schedule\.clip: give that"),
        ("+trainer.val_check_interval=3", r"trainer\.val_check_interval is set by schedule\.validate_every"),
        ("schedule.monitor=val_loss", "schedule.monitor=val_loss: lower is better; give schedule.monitor_mode=min"),
    ],
)
def test_wrong_numbers_are_named(override: str, words: str) -> None:
    check_numbers(OmegaConf.to_container(compose_config(), resolve=True))
    with pytest.raises(ValueError, match=words):
        check_numbers(OmegaConf.to_container(compose_config(override), resolve=True))
