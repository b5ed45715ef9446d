"""Matches are pycocotools', in all ranges of areas at once."""

import numpy as np
import pytest

from detector.evaluation.comparison import Comparison
from detector.evaluation.matching import THRESHOLDS, match
from detector.evaluation.records import Kind, detections, objects_of
from tests.evaluation.test_accumulate import AREAS, random_collector


@pytest.mark.parametrize(("kind", "unknown"), [("box", False), ("mask", False), ("mask", True)])
@pytest.mark.parametrize(("seed", "most"), [(0, 100), (1, 3), (2, 100), (4, 3)])
def test_equal_to_pycocotools(seed: int, most: int, kind: Kind, unknown: bool) -> None:
    collector = random_collector(seed, 100)
    objects, found = objects_of(collector, kind), detections(collector, kind)
    if unknown:
        for record in objects[::3]:
            record |= {"unknown": not record["iscrowd"], "ignore": 1}
    matches = match(kind, objects, found, list(AREAS.values()), most)
    expected = Comparison(
        kind, collector.images, sorted(collector.category_ids), AREAS, objects, found.records(), [most]
    )
    assert np.array_equal(THRESHOLDS, expected.params.iouThrs)
    seen = matched = 0
    for place, area in enumerate(AREAS):
        for result in expected.evalImgs:
            if result is None or result["aRng"] != expected.params.areaRng[list(AREAS).index(area)]:
                continue
            own = (matches.found.images == result["image_id"]) & (matches.found.categories == result["category_id"])
            rows = np.flatnonzero(own)
            rows = rows[np.argsort(-matches.found.scores[rows], kind="stable")]
            assert matches.found.scores[rows].tolist() == result["dtScores"]
            assert np.array_equal(matches.counts[place][:, rows], result["dtIgnore"] == 0)
            right = (result["dtMatches"] > 0) & (result["dtIgnore"] == 0)
            assert np.array_equal(matches.right[place][:, rows], right)
            columns = [number - 1 for number in result["gtIds"]]
            assert np.array_equal(matches.ignored[place][columns], result["gtIgnore"] != 0)
            seen += len(rows)
            matched += int(right.sum())
            if not place:
                assert (matches.object[rows] + 1).tolist() == result["dtMatches"][0].tolist()
    assert seen
    assert matched


def test_iou_of_a_match_by_hand() -> None:
    collector = random_collector(0, 100, plain=True)
    objects, found = objects_of(collector, "box"), detections(collector, "box")
    matches = match("box", objects, found, [(0.0, 1e10)])
    rows = np.flatnonzero(matches.object >= 0)
    assert len(rows)
    for row in rows:
        one, other = matches.found.boxes[row], objects[matches.object[row]]["bbox"]
        sides = [max(0.0, min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
        common = sides[0] * sides[1]
        iou = common / (one[2] * one[3] + other[2] * other[3] - common)
        assert matches.iou[row] == pytest.approx(iou)
        assert iou >= 0.5
    assert not matches.iou[matches.object < 0].any()


def test_nothing_is_matched_to_nothing() -> None:
    collector = random_collector(0, 100)
    objects, found = objects_of(collector, "box"), detections(collector, "box")
    nothing = found.take(np.zeros(0, np.int64))
    assert match("box", objects, nothing, [(0.0, 1e10)]).right.shape == (1, 10, 0)
    alone = match("box", [], found, [(0.0, 1e10), (0.0, 20.0)])
    assert not alone.right.any()
    assert alone.counts[0].all()
    assert np.array_equal(alone.counts[1, 0], alone.found.areas <= 20)
