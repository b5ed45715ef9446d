from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.collector import ImageId
from detector.evaluation.confusion import confused_pairs
from detector.evaluation.report.advice import advise, summary
from detector.evaluation.report.facts import Facts, Mistakes, Threshold
from detector.evaluation.report.page import shown, write_report
from detector.evaluation.report.plots import named_scores
from detector.types import Objects
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
        if tag not in ("br", "img", "meta"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.words.setdefault(self._open[-1], []).append(data)


def drawn(image: ImageId, mistakes: Mistakes) -> tuple[Image.Image, Image.Image]:
    assert len(mistakes.kept) == len(mistakes.wrong)
    assert len(mistakes.missed) or mistakes.wrong.any()
    return Image.new("RGB", (40, 30)), Image.new("L", (40, 30))


def test_the_page_is_whole_and_holds_the_metrics() -> None:
    collector = random_collector(0, 100)
    facts = {"box": Facts(collector, "box", resamples=20), "mask": Facts(collector, "mask", resamples=20)}
    page = Page(write_report("nuclei & <cells>", facts, drawn))
    assert page.words["h1"] == ["nuclei & <cells>"]
    assert all(source.startswith("data:image/") for source in page.sources)
    assert len(page.sources) == 6 + 2 * len(shown(facts["box"]))
    assert set(page.links) <= page.ids
    metrics = CocoMetric(collector).results()
    for kind in ("box", "mask"):
        assert f"{100 * metrics[f'{kind}/AP']:.1f}" in page.words["td"]
    matrix = facts["box"].confusion
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
    assert "There are no objects to find." in page.words["p"]


def test_thresholds_and_images_by_hand() -> None:
    facts = Facts(crowded(100), "box", resamples=20)  # 200 objects, of which the best 100 detections count
    (only,) = facts.thresholds
    assert (only.name, only.objects, only.right, only.wrong, only.missed) == ("cell", 200, 100, 0, 100)
    assert (only.precision, only.recall) == (1, 0.5)
    assert only.f1 == pytest.approx(2 / 3)
    assert facts.worst(24) == facts.at_limit == [0]
    assert facts.found_below == 0
    mistakes = facts.mistakes(0)
    assert mistakes.missed.shape == (100, 4)
    assert mistakes.kept.tolist() == list(range(100))  # of 200 detections
    assert not mistakes.wrong.any()
    assert summary(facts) == (
        "With detections kept from the best threshold of each class on, 50 of 100 objects are found (100 of 200), and "
        "100 of 100 detections are right (100 of 100)."
    )
    first = advise(facts)[0]
    assert first.case == (
        "On 1 of 1 images the limit of 100 detections was reached: 100 of the objects there are missed."
    )
    assert first.commands == (("evaluate", "dataset.detections=200"), ("predict", "input=IMAGES detections=200"))
    assert [(part.low, part.high, part.objects) for part in facts.bins] == [(0, 8, 200)]
    assert [balance.name for balance in facts.balances] == ["fewer missed", "balanced", "fewer false alarms"]
    assert facts.costs["all"]["missed"] == facts.costs["small"]["missed"] == pytest.approx(0.495, abs=0.01)
    assert facts.costs["large"]["missed"] == 0


def test_words_beside_thresholds_do_not_hide_each_other() -> None:
    def named(*scores: float) -> list[tuple[float, float, str]]:
        return named_scores([Threshold(name, 1, score, 1, 0, 0) for name, score in zip("abc", scores, strict=True)])

    assert named(0.01, 0.01, 0.01) == [(0.01, pytest.approx(0.014), "a, b, c")]
    assert named(0.5, 0.2, 0.21) == [
        (0.2, pytest.approx(0.204), "b"),
        (0.21, pytest.approx(0.228), "c"),
        (0.5, pytest.approx(0.504), "a"),
    ]


def test_scores_beside_the_share_that_is_right() -> None:
    collector = random_collector(2, 100, plain=True)
    facts = Facts(collector, "box", resamples=20)
    scores, shares, counts = (np.array(column) for column in zip(*facts.calibration, strict=True))
    errors = facts.errors
    assert counts.sum() == errors.counts.sum()
    assert (scores * counts).sum() == pytest.approx(errors.found.scores[errors.counts].sum())
    assert (shares * counts).sum() == pytest.approx(np.count_nonzero(errors.kind == -1))
    assert facts.calibration_error == pytest.approx((abs(scores - shares) * counts).sum() / counts.sum())


def test_scores_that_are_no_probabilities() -> None:
    cells, false = row(30.0, 20), row(30.0, 20, 300.0)
    found = [(0, 0.95, box) for box in cells] + [(0, 0.55, box) for box in false]
    facts = measured(([(1, box) for box in cells], found))
    (said,) = (one.case for one in advise(facts) if "A score is not" in one.case)
    assert said.endswith("By score, right are 0 % at about 0.55.")
    right = measured(([(1, box) for box in cells], found[:20]))
    assert not [one for one in advise(right) if "A score is not" in one.case]


CELLS = [{"id": 1, "name": "cell"}, {"id": 2, "name": "dust"}]


def measured(*images: tuple[list[tuple[int, list[float]]], list[tuple[int, float, list[float]]]]) -> Facts:
    """Of images with objects (category, box) and detections (label, score, box); x, y, width, height."""
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3]}
        for image, (objects, _) in enumerate(images, 1)
        for i, (category, box) in enumerate(objects)
    ]
    truth = {"images": [{"id": image, "height": 999, "width": 999} for image in range(1, len(images) + 1)]}
    collector = Collector(truth | {"annotations": annotations, "categories": CELLS}, [1, 2])
    for image, (_, detections) in enumerate(images, 1):
        boxes = torch.tensor([box for _, _, box in detections]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels, scores = [torch.tensor([one[k] for one in detections]) for k in (0, 1)]
        collector.update([image], [Objects(boxes, scores.float(), labels.long())], [(999, 999)])
    return Facts(collector, "box", resamples=20)


def row(side: float, count: int, y: float = 0.0) -> list[list[float]]:
    """Boxes of this side, beside each other."""
    return [[1.5 * side * i, y, side, side] for i in range(count)]


def test_advice_on_images_without_detections_and_on_sizes() -> None:
    large, small = [(1, box) for box in row(40.0, 10)], [(1, box) for box in row(20.0, 10, 200.0)]
    facts = measured(
        (large + small, [(0, 0.9, box) for _, box in large]),
        (small[:5], []),
        ([], []),
        (large, [(0, 0.9, row(40.0, 1)[0])]),
    )
    assert facts.nearly_all_missed == [1, 3]
    assert shown(facts) == [0, 3, 1]
    cases = [one.case for one in advise(facts)]
    assert cases[0] == (
        "On 2 of 3 images with objects at most a tenth of the objects is found: 14 of the 24 missed objects are theirs."
    )
    assert cases[-1] == (
        "Smaller objects are found worse than those of 32 to 64 px (AP50 55): AP50 0 for sides of 16 to 32 px (15 "
        "objects)."
    )


def test_thresholds_of_classes_and_what_lies_below_them() -> None:
    cells, false = row(30.0, 12), row(30.0, 12, 300.0)
    scores = [0.9] * 10 + [0.3] * 2
    found = [(0, score, box) for score, box in zip(scores, cells, strict=True)] + [(0, 0.4, box) for box in false]
    facts = measured(([(1, box) for box in cells], found))
    assert facts.thresholds[0].score == pytest.approx(0.9)
    together = facts.together
    assert (together.right, together.wrong, together.missed, facts.found_below) == (10, 0, 2, 2)
    page = write_report("cells", {"box": facts}, plain)
    assert "Of the 2 missed objects, 2 are found by detections below the thresholds, 0 have a detection of a" in page
    assert "of a wrong class or place, and 0 have none" in page


def plain(*_: object) -> tuple[Image.Image, Image.Image]:
    return Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))


def test_numbers_of_images_are_those_of_the_page() -> None:
    """The detections of one class lie nearer to objects of another, which confusions count, but nothing else does."""
    cells = row(60.0, 12)
    dust = [[x + 6, y, width, height] for x, y, width, height in cells]
    both = [(1, box) for box in cells] + [(2, box) for box in dust]
    found = [(0, 0.9, [x + 5, *rest]) for x, *rest in cells]  # nearer to the dust
    facts = measured((both, found))
    assert facts.confusion.tolist() == [[0, 0, 12], [12, 0, 0], [0, 0, 0]]
    assert (facts.together.right, facts.together.wrong, facts.together.missed) == (12, 0, 12)
    assert (facts.by_image.missed.tolist(), facts.by_image.wrong.tolist()) == ([12], [0])
    assert not facts.mistakes(0).wrong.any()
    assert facts.mistakes(0).labels.tolist() == [1] * 12
    assert facts.nearly_all_missed == []


def test_nothing_right_and_strange_names() -> None:
    facts = measured(([(1, box) for box in row(30.0, 20)], [(0, 0.9, box) for box in row(30.0, 15, 300.0)]))
    assert summary(facts) == "None of the 20 objects is found; 15 detections score 0.5 or more."
    assert [(t.score, t.wrong, t.missed) for t in facts.thresholds] == [(None, 15, 20), (None, 0, 0)]
    box = [[0.0, 0.0, 2e5, 2e5]]  # a size beyond COCO's
    truth = {"images": [{"id": 1, "height": 300_000, "width": 300_000}], "categories": [{"id": 1, "name": "$x_$"}]}
    annotations = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box[0], "area": 4e10}]
    collector = Collector(truth | {"annotations": annotations}, [1])
    found = [Objects(torch.tensor([[0.0, 0, 2e5, 2e5]]), torch.ones(1), torch.zeros(1).long())]
    collector.update([1], found, [(300_000, 300_000)])
    assert "$x_$" in write_report("a name", {"box": Facts(collector, "box", resamples=20)}, plain)


def test_commands_are_for_a_checkpoint() -> None:
    facts = measured(*[([(1, box) for box in row(30.0, 10)], [(0, 0.9, box) for box in row(30.0, 10, 300.0)])] * 2)
    assert "python scripts" not in write_report("cells", {"box": Facts(crowded(100), "box", resamples=20)}, plain)
    page = write_report("cells", {"box": Facts(crowded(100), "box", resamples=20)}, plain, "a run/last.ckpt")
    assert "python scripts/evaluate.py checkpoint=&#39;a run/last.ckpt&#39; dataset.detections=200" in page
    assert "threshold=best" not in write_report("cells", {"box": facts}, plain)


def test_advice_is_what_a_training_can_take() -> None:
    cells = [(1, box) for box in row(30.0, 4)]  # two of which are taken for dust, of which there is none
    swapped = [(1, 0.9, box) for _, box in cells[:2]] + [(0, 0.8, box) for _, box in cells[2:]]
    facts = measured((cells, swapped))
    assert confused_pairs(facts.confusion) == [(0, 1, 2)]
    assert [(t.name, t.score, t.right, t.wrong) for t in facts.thresholds] == [
        *(("cell", pytest.approx(0.8), 2, 0), ("dust", pytest.approx(0.8), 0, 2)),  # few of both: that of all classes
    ]
    repeat = "dataset.repeat_threshold=0.1"
    (only,) = (one for one in advise(facts, {repeat}) if "another class" in one.case)
    assert "Look below at which classes" in only.remedy
    assert only.changes == (repeat,)
    assert not [one for one in advise(facts) if one.changes]
    once = measured((cells, swapped[1:]))
    (only,) = (one for one in advise(once) if "another class" in one.case)
    assert "No class is often taken" in only.remedy
