"""Which detections are drawn, and what is said of it."""

import pytest
import torch
from omegaconf import OmegaConf

from detector.inference.score_thresholds import Drawn, read_threshold
from detector.types import Objects

CLASSES = ["square", "circle", "traffic light"]


def objects(scores: list[float], labels: list[int]) -> Objects:
    return Objects(torch.zeros(len(scores), 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


def test_one_number_or_one_of_each_class() -> None:
    assert read_threshold(0.3, CLASSES, "") == [0.3] * 3
    assert read_threshold(1, CLASSES, "") == [1.0] * 3
    by_class = OmegaConf.create({"traffic light": 0.2, "default": 0.7})
    assert read_threshold(by_class, CLASSES, "") == [0.7, 0.7, 0.2]
    assert read_threshold({"square": 0.9}, CLASSES, "") == [0.9, 0.5, 0.5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (2, r"threshold must be a score from 0 to 1, best, or scores by class, not 2"),
        (True, "not True"),
        ("half", "not 'half'"),
        ({"square": -1}, r"threshold of square must be a score from 0 to 1, not -1"),
        ({"SQUARE": 0.3}, r"no class 'SQUARE'; did you mean square\? It has square,"),
        ({"xyz": 0.3}, r"no class 'xyz'; it has square, circle, traffic light"),
        ({"sqare": 0.3}, r"no class 'sqare'; did you mean square\? It has square, circle, traffic light"),
    ],
)
def test_other_thresholds_are_refused(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_threshold(given, CLASSES, "")


def test_drawn_are_those_from_the_threshold_of_their_class_on() -> None:
    drawn = Drawn([0.5, None, 0.25])
    chosen = drawn(objects([0.9, 0.5, 0.49, 0.9, 0.3, 0.2], [0, 0, 0, 1, 2, 2]))
    assert chosen.tolist() == [True, True, False, False, True, False]
    assert (drawn.found, drawn.drawn) == (6, 3)
    assert drawn(objects([], [])).tolist() == []
    assert drawn.sentence() == "3 of 6 reach the threshold of their class; threshold=0.45 draws more"


def test_what_would_draw_more_is_said() -> None:
    drawn = Drawn([0.5, 0.5])
    for scores in ([0.34, 0.2], [0.3, 0.05]):
        drawn(objects(scores, [0, 1]))
    assert drawn.sentence() == "0 of 4 score 0.5 or more; threshold=0.3 draws more"
    drawn(objects([0.5], [0]))
    assert drawn.sentence() == "1 of 5 score 0.5 or more; threshold=0.3 draws more"
    nothing = Drawn([0.0])
    assert nothing.sentence() == "0 of 0 score 0 or more"
    nothing(objects([0.001], [0]))
    assert nothing.sentence() == "1 of 1 score 0 or more"
    weak = Drawn([0.5])
    weak(objects([0.02], [0]))
    assert weak.sentence() == "0 of 1 score 0.5 or more; threshold=0.01 draws more"
