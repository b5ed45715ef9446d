import re
from collections.abc import Mapping
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.collector import ImageId
from detector.evaluation.report.advice import sentences
from detector.evaluation.report.facts import Facts, Mistakes
from detector.evaluation.report.page import write_report
from tests.evaluation.test_accumulate import crowded, random_collector


class Page(HTMLParser):
    """The text of a page's elements by tag, the addresses of its pictures, and the ids that its links refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: dict[str, list[str]] = {}
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.sources += [given["src"] or ""] if "src" in given else []
        self.links += [(given["href"] or "")[1:]] if "href" in given else []
        self.ids |= {given["id"] or ""} if "id" in given else set()
        if tag not in ("img", "meta"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.words.setdefault(self._open[-1], []).append(data)


def drawn(image: ImageId, least: Mapping[int, float], mistakes: Mistakes) -> tuple[Image.Image, Image.Image]:
    assert set(least) <= {0, 1, 2}
    assert len(mistakes.missed) or mistakes.wrong.any()
    return Image.new("RGB", (40, 30)), Image.new("L", (40, 30))


def test_the_page_is_whole_and_holds_the_metrics() -> None:
    collector = random_collector(0, 100)
    facts = {"box": Facts(collector, "box", resamples=20), "mask": Facts(collector, "mask", resamples=20)}
    page = Page(write_report("nuclei & <cells>", facts, drawn))
    assert page.words["h1"] == ["nuclei & <cells>"]
    assert all(source.startswith("data:image/") for source in page.sources)
    assert len(page.sources) == 6 + 2 * len(facts["box"].worst(24))
    assert set(page.links) <= page.ids
    metrics = CocoMetric(collector).results()
    for kind in ("box", "mask"):
        assert f"{100 * metrics[f'{kind}/AP']:.1f}" in page.words["td"]
    matrix = facts["box"].confusion.matrix
    assert {str(count) for count in matrix.ravel().tolist()} <= set(page.words["td"])
    assert any("missed" in words for words in page.words["figcaption"])


def test_a_page_of_nothing_found_and_one_of_no_objects() -> None:
    whole = random_collector(1, 100)
    nothing = {
        image: type(own)(own.boxes[:0], own.scores[:0], own.labels[:0], {"mask": []})
        for image in whole.images
        for own in [whole.detections(image)]
    }
    whole.reset()
    whole.merge([nothing])
    page = Page(write_report("none", {"box": Facts(whole, "box", resamples=20)}, drawn))
    assert "0.0" in page.words["td"]
    empty = Collector({"images": [{"id": 1, "height": 9, "width": 9}], "annotations": [], "categories": []}, [])
    empty.merge([{1: next(iter(nothing.values()))}])
    page = Page(write_report("empty", {"box": Facts(empty, "box", resamples=20)}, drawn))
    assert "There are no objects to find." in page.words["li"]


def test_thresholds_and_images_by_hand() -> None:
    facts = Facts(crowded(100), "box", resamples=20)  # 200 objects, of which the best 100 detections count
    (only,) = facts.thresholds
    assert (only.name, only.objects, only.right, only.wrong, only.missed) == ("cell", 200, 100, 0, 100)
    assert (only.precision, only.recall) == (1, 0.5)
    assert only.f1 == pytest.approx(2 / 3)
    assert facts.worst(24) == [0]
    mistakes = facts.mistakes(0)
    assert mistakes.missed.shape == (100, 4)
    assert mistakes.counted.tolist() == list(range(100))  # of 200 detections
    assert not mistakes.wrong.any()
    advice = sentences(facts)
    assert advice[0][0] == "1 of 1 images with more than 100 objects each: 100 of these cannot be found."
    assert advice[0][1].endswith("dataset.detections=200.")
    assert facts.costs["all"]["missed"] == facts.costs["small"]["missed"] == pytest.approx(0.495, abs=0.01)
    assert facts.costs["large"]["missed"] == 0


def test_scores_beside_the_share_that_is_right() -> None:
    collector = random_collector(2, 100, plain=True)
    facts = Facts(collector, "box", resamples=20)
    scores, shares, counts = (np.array(column) for column in zip(*facts.calibration, strict=True))
    errors = facts.errors
    assert counts.sum() == errors.counts.sum()
    assert (scores * counts).sum() == pytest.approx(errors.found.scores[errors.counts].sum())
    assert (shares * counts).sum() == pytest.approx(np.count_nonzero(errors.kind == -1))
    assert facts.calibration_error == pytest.approx((abs(scores - shares) * counts).sum() / counts.sum())
    said = [case for case, _ in sentences(facts) if "Scores are too" in case]
    assert len(said) == (facts.calibration_error >= 0.1)
    assert all(re.search(r"too (high|low): by \d+ points", case) for case in said)
