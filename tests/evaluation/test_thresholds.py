import numpy as np
import pytest

from detector.evaluation.confusion import confused_pairs, confusion
from detector.evaluation.errors import find_errors
from detector.evaluation.thresholds import OperatingPoints, operating_points
from tests.evaluation.test_accumulate import random_collector
from tests.evaluation.test_errors import BESIDE, CAT, DOG, FAR, HERE, found


def test_precision_recall_and_the_best_threshold_by_hand() -> None:
    # right, wrong, right, wrong; of three objects two are found
    hand = OperatingPoints([np.array([0.9, 0.8, 0.7, 0.6])], [np.array([1, 1, 2, 2])], np.array([3]))
    assert hand.precision(0).tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert hand.recall(0).tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert hand.f_measure(0).tolist() == pytest.approx([1 / 2, 2 / 5, 2 / 3, 4 / 7])
    assert hand.f_measure(0, 2).tolist() == pytest.approx([5 / 13, 5 / 14, 2 / 3, 5 / 8])  # 5 PR / (4 P + R)
    assert hand.f_measure(0, 0.5)[:2].tolist() == pytest.approx([5 / 7, 5 / 11])  # 1.25 PR / (0.25 P + R)
    assert (hand.best(0, 2), hand.best(0, 0.5)) == (0.7, 0.9)
    assert hand.best(0) == 0.7
    assert hand.at(0, 0.7) == (2, 1, 1)
    assert hand.at(0, 0.75) == (1, 1, 2)
    assert hand.at(0, 0.95) == (0, 0, 3)


def test_equal_scores_are_kept_together() -> None:
    hand = OperatingPoints([np.array([0.5, 0.5, 0.5, 0.2])], [np.array([1, 1, 1, 2])], np.array([4]))
    assert hand.best(0) == 0.2  # one alone at 0.5 would be better: 2/5 beside 2/7, and 4/8 here
    hand = OperatingPoints([np.array([0.5, 0.5])], [np.array([1, 1])], np.array([1]))
    assert hand.best(0) == 0.5
    assert hand.at(0, 0.5) == (1, 1, 0)


def test_all_classes_together() -> None:
    two = OperatingPoints([np.array([0.9, 0.7]), np.array([0.8])], [np.array([1, 1]), np.array([1])], np.array([3, 1]))
    one = two.together()
    assert [scores.tolist() for scores in one.scores] == [[0.9, 0.8, 0.7]]
    assert [right.tolist() for right in one.right] == [[1, 2, 2]]
    assert one.at(0, 0.75) == (2, 0, 2)


def test_nothing_found_has_no_threshold() -> None:
    nothing = operating_points(found([(CAT, HERE)], [(CAT, FAR)]), [CAT, DOG])
    assert nothing.best(0) is nothing.best(1) is None
    assert nothing.at(0, 0.0) == (0, 1, 1)
    assert nothing.objects.tolist() == [1, 0]


def test_ignored_detections_count_in_no_class() -> None:
    ignored = found([(CAT, HERE)], [(CAT, FAR), (CAT, HERE)], crowds=[(CAT, (32, 32, 30, 30))])
    assert operating_points(ignored, [CAT]).precision(0).tolist() == [1]
    assert confusion(ignored, "box", [CAT, DOG], ignored.counts, 1).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_confusion_by_hand() -> None:
    errors = found([(CAT, HERE), (DOG, FAR)], [(DOG, HERE), (CAT, BESIDE), (DOG, (0, 50, 9, 9)), (CAT, FAR)])
    every = confusion(errors, "box", [CAT, DOG], np.ones(4, bool), 1)
    # the cat is found as a dog, the dog as a cat; a cat and a dog are found where nothing is
    assert every.tolist() == [[0, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert confused_pairs(every) == [(0, 1, 1), (1, 0, 1)]
    dogs = confusion(errors, "box", [CAT, DOG], (errors.found.categories == DOG) & (errors.found.scores >= 0.885), 1)
    assert dogs.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_the_numbers_agree(kind: str) -> None:
    collector = random_collector(0, 100, plain=True)
    errors = find_errors(collector, kind)
    ids = collector.category_ids
    curves = operating_points(errors, ids)
    best = {one: score for label, one in enumerate(ids) if (score := curves.best(label)) is not None}
    assert sorted(best) == sorted(ids)
    least = np.array([best[category] for category in errors.found.categories.tolist()])
    matrix = confusion(errors, kind, ids, errors.counts & (errors.found.scores >= least), len(collector.images))
    assert matrix.sum(1)[:-1].tolist() == curves.objects.tolist()
    counted = [curves.at(label, best[one]) for label, one in enumerate(ids)]
    assert matrix.sum(0)[:-1].tolist() == [right + wrong for right, wrong, _ in counted]
    for label, one in enumerate(ids):
        f1 = [2 * right / (2 * right + wrong + left) for right, wrong, left in [curves.at(label, best[one])]]
        assert f1[0] == pytest.approx(curves.f_measure(label).max())
