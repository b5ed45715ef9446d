"""The report says what the records hold."""

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from detector.ablation.description import PublishedRow
from detector.ablation.records import MetricRow, Records, Run, write_records
from detector.ablation.report import plots, tables
from detector.ablation.report.document import Heading, Table, as_csv, latex, markdown
from detector.ablation.report.effects import Numbers
from detector.ablation.report.report import write_report
from tests.ablation.planted import POOLERS, STRIDE_GAINS, planted, strides


def made(tmp_path: Path, *records: Records) -> Path:
    for i, content in enumerate(records):
        write_records(tmp_path / str(i), content)
    return write_report([tmp_path / str(i) for i in range(len(records))], tmp_path / "out").parent


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    of_strides = planted(strides(), STRIDE_GAINS, "FPN_roipool", name="stride", kinds=("box", "mask"), seeds=[0, 1, 2])
    return made(tmp_path_factory.mktemp("report"), planted(), replace(of_strides, curves=[]))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_say_what_was_planted(out: Path) -> None:
    levels = {row["arm"]: row for row in rows(out / "tables/pooler_shapes_coco_box_ap.csv")}
    mean, sd = map(float, levels["RoIAlign (2x2)"]["AP"].split(" ± "))
    assert mean == pytest.approx(80, abs=0.5)
    assert 0 < sd < 1
    assert levels["RoIPool"]["seeds"] == "4"
    difference = {row["arm"]: row["AP75"] for row in rows(out / "tables/pooler_shapes_coco_box_differences.csv")}
    assert list(difference) == [arm.label for arm in list(POOLERS.values())[1:]]
    value, low, high = map(float, re.findall(r"[+-][\d.]+", difference["RoIAlign (2x2)"]))
    assert low < value < high
    assert value == pytest.approx(24, abs=0.5)
    assert "p < 0.001" in difference["RoIAlign (2x2)"]


def test_numbers_are_given_in_full(out: Path) -> None:
    found = [r for r in rows(out / "numbers.csv") if (r["arm"], r["dataset"]) == ("roialign", "shapes_voc")]
    by_metric = {row["metric"]: row for row in found}
    assert float(by_metric["AP[0,8)"]["difference"]) == pytest.approx(0.13, abs=0.005)
    assert float(by_metric["AP"]["low"]) < float(by_metric["AP"]["difference"]) < float(by_metric["AP"]["high"])
    assert by_metric["AP"]["interval_by"] == "seeds"
    values = [m.value for m in planted().metrics if (m.arm, m.dataset, m.metric) == ("roialign", "shapes_voc", "AP")]
    assert float(by_metric["AP"]["mean"]) == pytest.approx(float(np.mean(values)), rel=1e-12)
    assert float(by_metric["AP"]["sd"]) == pytest.approx(float(np.std(values, ddof=1)), rel=1e-9)


def test_p_values_are_adjusted_over_the_arms() -> None:
    numbers = Numbers(planted(noise=0.02, datasets=["shapes_coco"]))
    found = tables.effects(numbers, "shapes_coco", "box")
    plain = [row["AP"].p for row in found.values()]
    adjusted = list(tables.holm(found, "AP").values())
    assert all(p is not None and q is not None and p <= q for p, q in zip(plain, adjusted, strict=True))
    smallest = min(p for p in plain if p is not None)
    assert min(q for q in adjusted if q is not None) == pytest.approx(min(1, len(found) * smallest))


def test_html_needs_nothing_else(out: Path) -> None:
    text = (out / "report.html").read_text()
    links: list[str] = []
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "iframe")
            links.extend(value or "" for name, value in attrs if name in ("src", "href", "srcset"))
            if tag not in ("meta", "img", "br"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(text)
    assert not opened
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert len(links) == len(list((out / "plots").glob("*.png")))
    assert "url(" not in text
    assert "@import" not in text
    assert '<meta name="viewport"' in text
    assert "&lt;it&gt; &amp; 100 %" in text  # the study's title, escaped
    assert "<it>" not in text


def test_markdown_shows_each_picture_that_there_is(out: Path) -> None:
    text = (out / "report.md").read_text()
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert sorted(pictures) == sorted(str(p.relative_to(out)) for p in (out / "plots").glob("*.png"))
    kinds = {
        name for name in ("ap_by_iou", "gain_by_size", "gain_by_stride", "curves") if any(name in p for p in pictures)
    }
    assert len(kinds) == 4
    tables_found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables_found) == len(list((out / "tables").glob("*.csv")))
    for lines in tables_found:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines.splitlines()}) == 1


def test_a_further_section_is_written_like_the_others(tmp_path: Path) -> None:
    write_records(tmp_path / "records", planted(datasets=["shapes_coco"], seeds=[0]))
    table = Table("mine", "Of my own", ["what", "how many"], [["cats & dogs", "3\n1 to 5"]])
    write_report([tmp_path / "records"], tmp_path / "out", further=[Heading("My section"), table])
    assert rows(tmp_path / "out/tables/mine.csv") == [{"what": "cats & dogs", "how many": "3 1 to 5"}]
    assert r"cats \& dogs" in (tmp_path / "out/tables/mine.tex").read_text()
    text = (tmp_path / "out/report.md").read_text()
    assert text.index("### Each claim, by arms and dataset") < text.index("## My section") < text.index("cats & dogs")
    assert "<h2>My section</h2>" in (tmp_path / "out/report.html").read_text()


def test_plots_are_not_empty(out: Path) -> None:
    for path in (out / "plots").glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape[1] > 900
        assert (pixels.reshape(-1, 3).std(1) > 20).sum() > 100, path  # colour: more than axes and text
        assert path.stat().st_size < 250_000


def test_latex_is_balanced_and_escaped(out: Path) -> None:
    files = sorted((out / "tables").glob("*.tex"))
    assert len(files) == len(list((out / "tables").glob("*.csv"))) > 10
    for path in files:
        text = re.sub(r"^%.*\n", "", path.read_text())
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", text) for word in ("begin", "end"))
        assert begun == ended[::-1] == ["table", "tabular"]
        columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
        assert columns is not None
        body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
        for line in body:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1
            assert line.endswith(r" \\")
        assert not re.search(r"(?<!\\)[%#_$](?!\\pm|-\$|\\times|\^|\$)", re.sub(r"\$[^$]*\$", "", text))
        assert text.isascii(), path


def test_one_seed_is_warned_of(tmp_path: Path) -> None:
    folder = made(tmp_path, planted(seeds=[0], datasets=["shapes_coco"]))
    text = (folder / "report.md").read_text()
    said = re.findall(r"> \*\*Careful:\*\* (.*) on shapes\\_coco, box AP: One seed", text)
    assert len(said) == 1  # once for all arms
    assert "RoIAlign (2x2)" in said[0].split("; ")
    cell = rows(folder / "tables/pooler_shapes_coco_box_differences.csv")[0]["AP"]
    assert "images: " in cell
    assert "p " not in cell
    level = rows(folder / "tables/pooler_shapes_coco_box_ap.csv")[0]["AP"]
    assert re.fullmatch(r"[\d.]+ images: [\d.]+ to [\d.]+", level)


def test_enough_seeds_are_not_warned_of(out: Path) -> None:
    assert "RoIAlign (2x2) on shapes\\_coco, box AP:" not in (out / "report.md").read_text()


def test_missing_runs_are_named(tmp_path: Path) -> None:
    full = planted(datasets=["shapes_coco"])
    study = replace(full.study, datasets=["shapes_coco", "nuclei"])
    gone = ("roiwarp", 3)
    partial = replace(
        full,
        study=study,
        runs=[r for r in full.runs if (r.arm, r.seed) != gone],
        metrics=[m for m in full.metrics if (m.arm, m.seed) != gone],
        differences=[d for d in full.differences if (d.arm, d.seed) != gone],
        curves=[],
    )
    folder = made(tmp_path, partial)
    text = (folder / "report.md").read_text()
    assert "nothing was run on nuclei" in text
    assert "roiwarp, seeds 3" in text
    counts = {row["arm"]: row["seeds"] for row in rows(folder / "tables/pooler_shapes_coco_box_ap.csv")}
    assert counts["RoIWarp_50% & co"] == "3"
    assert counts["RoIPool"] == "4"


def test_made_again_it_leaves_nothing_of_before(tmp_path: Path) -> None:
    both, one = (replace(planted(datasets=d), curves=[]) for d in (["shapes_coco", "shapes_voc"], ["shapes_coco"]))
    folder = made(tmp_path, both)
    assert list((folder / "tables").glob("*shapes_voc*"))
    first = (made(tmp_path, one) / "report.html").read_bytes()
    assert not list((folder / "tables").glob("*shapes_voc*"))
    assert (made(tmp_path, one) / "report.html").read_bytes() == first


def test_refuses_nothing_and_the_same_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one folder of records"):
        write_report([], tmp_path / "out")
    with pytest.raises(ValueError, match="two folders hold the study pooler"):
        made(tmp_path, planted(), planted())
    empty = replace(planted(), runs=[], metrics=[], differences=[], curves=[])
    with pytest.raises(ValueError, match="nothing was measured"):
        made(tmp_path, empty)


def test_pictures_are_taken_in(tmp_path: Path) -> None:
    write_records(tmp_path / "0", replace(planted(datasets=["shapes_coco"]), curves=[]))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    page = write_report([tmp_path / "0"], tmp_path / "out", {"All <red>": tmp_path / "red.png"})
    (tmp_path / "red.png").unlink()
    assert "![All \\<red\\>](plots/picture_0.png)" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "plots" / "picture_0.png").is_file()
    assert 'alt="All &lt;red&gt;"' in page.read_text()
    with pytest.raises(ValueError, match=r"no such picture: .*red\.png"):
        write_report([tmp_path / "0"], tmp_path / "out", {"gone": tmp_path / "red.png"})


def renamed(records: Records, **names: str) -> Records:
    """The records with another name of the study or of a dataset."""

    def new(name: str) -> str:
        return names.get(name, name)

    study = replace(records.study, name=new(records.study.name), datasets=[new(d) for d in records.study.datasets])
    parts = {
        part: [replace(row, study=new(row.study), dataset=new(row.dataset)) for row in getattr(records, part)]
        for part in ("runs", "metrics", "differences", "curves")
    }
    return replace(records, study=study, **parts)


def test_names_of_any_kind(tmp_path: Path) -> None:
    odd = renamed(planted(), pooler="my study", shapes_coco="voc-07", shapes_voc="voc_07")
    arms = {name: replace(arm, label=label) for (name, arm), label in zip(POOLERS.items(), LABELS, strict=True)}
    folder = made(tmp_path, replace(odd, study=replace(odd.study, arms=arms)))
    values = [rows(folder / f"tables/my_study_voc{sign}07_box_ap.csv")[1]["AP"] for sign in "-_"]
    assert float(values[0].split()[0]) > float(values[1].split()[0]) + 5
    pictures = re.findall(r"!\[[^\]]*\]\((.*)\)\n", (folder / "report.md").read_text())
    assert pictures
    assert all(" " not in picture and (folder / picture).is_file() for picture in pictures)


def test_published_numbers_stand_beside_the_measured_ones(tmp_path: Path) -> None:
    records = planted()
    row = PublishedRow("roialign", "shapes_coco", "box", {"AP": 30.3, "AP75": 31.5}, "Mask R-CNN, table 2c")
    study = replace(records.study, published=[row], size_bins={"shapes_coco": [16, 48]})
    folder = made(tmp_path, replace(records, study=study))
    (line,) = rows(folder / "tables/pooler_shapes_coco_box_published.csv")
    measured = rows(folder / "tables/pooler_shapes_coco_box_ap.csv")[1]
    assert line["AP"] == f"30.3 / {measured['AP'].split(' ')[0]}"
    assert line["AP75"].startswith("31.5 / ")
    assert line["source"] == "Mask R-CNN, table 2c"
    assert not (folder / "tables/pooler_shapes_voc_box_published.csv").exists()
    text = (folder / "report.md").read_text()
    assert text.count("objects of an area up to 16², up to 48², and above") == 1


LABELS = (r"$\foo$", "_hidden", "5 $ a_b $ x", "100 %", "plain")


def test_metrics_of_the_users_own_have_tables_and_columns(tmp_path: Path) -> None:
    records = planted(datasets=("shapes_coco",), seeds=(0, 1, 2))
    for run in records.runs:
        value = 0.1 + 0.1 * (run.arm == "roialign") + 0.001 * run.seed * (run.arm == "roialign")
        about = (run.study, run.arm, run.dataset, run.seed)
        records.metrics.extend(
            MetricRow(*about, *name, value, None, None) for name in (("radius", "error_"), ("box", "F1"))
        )
    out = made(tmp_path, records)
    levels = {row["arm"]: row for row in rows(out / "tables/pooler_shapes_coco_radius_metrics.csv")}
    assert levels["RoIAlign (2x2)"] == {"arm": "RoIAlign (2x2)", "error_": "20.1 ± 0.1", "seeds": "3"}
    gains = {row["arm"]: row["error_"] for row in rows(out / "tables/pooler_shapes_coco_radius_differences.csv")}
    assert gains["RoIAlign (2x2)"].startswith("+10.1 ")
    boxes = rows(out / "tables/pooler_shapes_coco_box_ap.csv")[0]
    assert list(boxes) == ["arm", "AP", "AP50", "AP75", "APs", "APm", "APl", "F1", "seeds"]
    numbers = [r for r in rows(out / "numbers.csv") if (r["arm"], r["kind"]) == ("roialign", "radius")]
    assert [(r["metric"], r["seeds"], r["interval_by"]) for r in numbers] == [("error_", "3", "seeds")]
    text = (out / "report.md").read_text()
    assert "pooler: radius on shapes\\_coco" in text
    assert "difference from RoIPool, radius on shapes\\_coco" in text
    assert "radius error\\_: All 3 seeds differ by the same" in text  # of the other arms
    assert not list((out / "plots").glob("*radius*"))


def test_a_metric_of_the_users_own_with_one_seed_has_no_interval(tmp_path: Path) -> None:
    records = planted(datasets=("shapes_coco",), seeds=(0,))
    about = [(run.study, run.arm, run.dataset, run.seed) for run in records.runs]
    records.metrics.extend(MetricRow(*place, "radius", "error", 0.25, None, None) for place in about)
    out = made(tmp_path, records)
    assert rows(out / "tables/pooler_shapes_coco_radius_metrics.csv")[0]["error"] == "25.0"
    assert rows(out / "tables/pooler_shapes_coco_radius_differences.csv")[0]["error"] == "+0.0"
    assert "radius error: One seed cannot show" in (out / "report.md").read_text()


def test_the_legend_has_each_label(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    labels: list[str] = []
    monkeypatch.setattr(Figure, "legend", lambda figure, handles, names, **settings: labels.extend(names))
    records = planted(datasets=["shapes_coco"])
    arms = {name: replace(arm, label=label) for (name, arm), label in zip(POOLERS.items(), LABELS, strict=True)}
    plots.ap_by_iou(Numbers(replace(records, study=replace(records.study, arms=arms))), "box", tmp_path / "a.png")
    assert [label.strip().replace(r"\$", "$") for label in labels] == list(LABELS)
    assert not any(label.startswith("_") for label in labels)


def test_an_interval_that_misses_its_value_is_drawn(tmp_path: Path) -> None:
    records = planted(seeds=[0])
    beside = [replace(gain, low=gain.value - 2e-16, high=gain.value - 1e-16) for gain in records.differences]
    folder = made(tmp_path, replace(records, differences=beside, curves=[]))
    assert (folder / "plots/pooler_box_gain_by_size.png").is_file()


def test_training_curves_are_of_what_was_taken_more_than_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(plots, "_clean", lambda axes, title, x, y: titles.append(title))
    records = planted(datasets=["shapes_coco"], kinds=("box", "mask"))
    point = records.curves[0]
    names = ("box/AP", "box/APs", "mask/AP", "mask/AP75")
    more = [replace(point, name=name, step=step, value=0.5) for name in names for step in (50, 100)]
    once = replace(point, name="box/AP50", value=0.5)
    numbers = Numbers(replace(records, curves=[*records.curves, *more, once]))
    assert plots.curves(numbers, "shapes_coco", tmp_path / "a.png")
    assert titles == ["loss/total", "loss/box", "box/AP (%)", "mask/AP (%)", "mask/AP75 (%)"]


def test_runs_of_other_commits_and_steps_are_named(tmp_path: Path) -> None:
    records = planted(datasets=["shapes_coco"])
    assert not tables.unequal_runs(Numbers(records), "shapes_coco")
    runs = [replace(r, commit="f" * 40, steps=600) if r.arm == "roipool" else r for r in records.runs]
    commits, steps = tables.unequal_runs(Numbers(replace(records, runs=runs)), "shapes_coco")
    assert "different commits (RoIPool: ffffffff; RoIAlign (2x2): abcdef12;" in commits
    assert "different steps (RoIPool: 600; RoIAlign (2x2): 500;" in steps
    page = made(tmp_path, replace(records, runs=runs, curves=[])) / "report.html"
    assert all(words.split(" (")[0] in page.read_text() for words in (commits, steps))
    chosen = {name: replace(arm, overrides=["schedule.steps=5"]) for name, arm in records.study.arms.items()}
    asked = replace(records, runs=runs, study=replace(records.study, arms=chosen))
    assert tables.unequal_runs(Numbers(asked), "shapes_coco") == [commits]


def run(command: str, seed: int) -> Run:
    return Run("s", "a", "d", seed, command, "c", "2026-01-01", 1.0, 1, 1, 1)


def test_commands_that_differ_in_the_seed_become_a_sweep() -> None:
    same = [run(f"python scripts/train.py pooler=roipool seed={seed} workers=1", seed) for seed in (1, 0)]
    assert tables.commands(same) == ["python scripts/train.py -m pooler=roipool workers=1 seed=0,1"]
    assert tables.commands(same[:1]) == [same[0].command]
    installed = [run(f"aligned-rcnn train pooler=roipool seed={seed}", seed) for seed in (0, 1)]
    assert tables.commands(installed) == ["aligned-rcnn train -m pooler=roipool seed=0,1"]
    assert tables.commands([run("", 0), run("", 1)]) == [""]
    other = [*same, run("python scripts/train.py pooler=roipool schedule.steps=9 seed=2", 2)]
    assert tables.commands(other) == [r.command for r in other]


def test_every_row_has_its_command(out: Path) -> None:
    text = (out / "report.md").read_text()
    for arm in POOLERS.values():
        assert f"python scripts/train.py -m {' '.join(arm.overrides)} dataset=shapes_coco seed=0,1,2,3" in text


def test_cells_that_look_like_marks() -> None:
    table = Table("t", "a|b_c", ["x|y", "z"], [["[1]\nup", "50% & {more} ~^\\ <b>"]], ["50%"])
    assert "| \\[1\\]<br>up | 50% & {more} ~^\\\\ \\<b\\> |" in markdown([table])
    assert r"\shortstack{{[}1{]} \\ up} & 50\% \& \{more\} \textasciitilde{}\textasciicircum{}" in latex(table)
    assert as_csv(table).splitlines()[1] == "[1] up,50% & {more} ~^\\ <b>"
