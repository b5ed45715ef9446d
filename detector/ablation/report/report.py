"""Write the report of one or more studies: Markdown, HTML, tables and plots."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from detector.ablation.description import KINDS
from detector.ablation.records import read_records
from detector.ablation.report import plots, tables
from detector.ablation.report.answers import answers
from detector.ablation.report.claims import ledger
from detector.ablation.report.document import (
    Block,
    Commands,
    Heading,
    Paragraph,
    Picture,
    Table,
    Warn,
    as_csv,
    html,
    latex,
    markdown,
)
from detector.ablation.report.effects import Numbers, missing_runs

TABLES, PLOTS = "tables", "plots"
INTERVALS = "95 % intervals (over seeds; of a single seed over images)"


def write_report(
    folders: Sequence[str | Path],
    output: str | Path,
    pictures: Mapping[str, str | Path] | None = None,
    further: Sequence[Block] = (),
) -> Path:
    """Write the report of the records in `folders`, one study each.

    It consists of `report.md`, `report.html` (self-contained), `numbers.csv` (every metric, in fractions), each table
    as CSV and LaTeX in `tables/`, and the plots in `plots/`; these two folders are replaced.

    Args:
        folders: folders of records.
        output: the folder to write into; it is made if need be.
        pictures: further PNGs by caption, such as a showcase; they are copied into the report.
        further: a section that follows those of the studies, such as the errors of two runs.

    Returns:
        the path of `report.html`.

    Raises:
        ValueError: no folder is given, two hold the same study, they hold no metrics, a picture is missing, or
            `read_records` refuses a folder.
    """
    if not folders:
        raise ValueError("a report needs at least one folder of records, such as data/results/pooler")
    studies = [Numbers(read_records(folder)) for folder in folders]
    pictures = pictures or {}
    if missing := [str(path) for path in pictures.values() if not Path(path).is_file()]:
        raise ValueError(f"no such picture: {', '.join(missing)}")
    names = [numbers.study.name for numbers in studies]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two folders hold the study {', '.join(twice)}; leave one out, or give it another name")
    if not any(numbers.records.metrics for numbers in studies):
        raise ValueError(f"nothing was measured in {', '.join(str(folder) for folder in folders)}")
    output = Path(output)
    for part in (TABLES, PLOTS):
        shutil.rmtree(output / part, ignore_errors=True)
        (output / part).mkdir(parents=True)
    blocks = [*_blocks(studies, output), *further]
    if pictures:
        blocks.append(Heading("Images that differ most"))
    for place, (caption, path) in enumerate(pictures.items()):
        name = f"{PLOTS}/picture_{place}.png"
        shutil.copyfile(path, output / name)
        blocks.append(Picture(name, caption))
    for block in blocks:
        if isinstance(block, Table):
            (output / TABLES / f"{block.name}.csv").write_text(as_csv(block), encoding="utf-8")
            (output / TABLES / f"{block.name}.tex").write_text(latex(block), encoding="utf-8")
    (output / "numbers.csv").write_text(tables.long_form(studies), encoding="utf-8")
    (output / "report.md").write_text(markdown(blocks), encoding="utf-8")
    (output / "report.html").write_text(html(_title(studies), blocks, output), encoding="utf-8")
    return output / "report.html"


def _title(studies: Sequence[Numbers]) -> str:
    return studies[0].study.title if len(studies) == 1 else "RoI pooling, measured"


def _blocks(studies: Sequence[Numbers], output: Path) -> Iterator[Block]:
    yield Heading(_title(studies), 1)
    for numbers in studies:
        if len(studies) > 1:
            yield Paragraph(f"{numbers.study.title}: {numbers.study.question}")
        for sentence in answers(numbers):
            yield Paragraph(sentence)
    for sentence in missing_runs(studies):
        yield Warn(sentence)
    for numbers in studies:
        yield from _study(numbers, output)
    rows = [row for row in ledger(studies) if row.direction != "not measured"]
    yield Heading("What papers claim, and whether it held here")
    yield Paragraph(
        "What papers claim about RoI pooling and about small objects, and what was measured in the runs above. A claim "
        "can hold in direction (the sign of the difference) and in size (the published difference lies in the "
        "interval). Published sizes are those of larger models on other data. Claims that these runs do not ask about "
        "are left out."
    )
    yield tables.overview(rows)
    yield Heading("Each claim, by arms and dataset", 3)
    yield tables.claims(rows)


def _study(numbers: Numbers, output: Path) -> Iterator[Block]:
    info = numbers.study
    yield Heading(info.title)
    yield Paragraph(info.question)
    yield from _pictures(numbers, output)
    for dataset in numbers.datasets():
        yield Heading(f"The numbers on {dataset}", 3)
        for kind in numbers.kinds(dataset):
            yield tables.scores(numbers, dataset, kind)
            difference = tables.differences(numbers, dataset, kind)
            if difference is not None:
                yield difference
            for sentence in tables.warnings(numbers, dataset, kind):
                yield Warn(sentence)
            for table in (tables.localisation(numbers, dataset, kind), tables.published(numbers, dataset, kind)):
                if table is not None:
                    yield table
        for sentence in tables.unequal_runs(numbers, dataset):
            yield Warn(sentence)
        lines = tables.provenance(numbers, dataset)
        if lines:
            yield Commands(f"Commands of these runs ({dataset})", lines)


def _pictures(numbers: Numbers, output: Path) -> Iterator[Block]:
    info = numbers.study
    kinds = [kind for kind in KINDS if any(kind in numbers.kinds(d) for d in numbers.datasets())]
    for kind in kinds:
        for name, draw, caption in (
            ("ap_by_iou", plots.ap_by_iou, "AP by IoU threshold: mean over seeds, ± standard deviation"),
            ("gain_by_size", plots.gain_by_size, f"gain by object size, with {INTERVALS}"),
            ("gain_by_stride", plots.gain_by_stride, f"gain of RoIAlign over RoIPool by stride, with {INTERVALS}"),
        ):
            path = f"{PLOTS}/{tables.slug(info.name, kind, name)}.png"
            if draw(numbers, kind, output / path):
                yield Picture(path, f"{info.name}, {kind}: {caption}.")
    for dataset in numbers.datasets():
        path = f"{PLOTS}/{tables.slug(info.name, dataset, 'curves')}.png"
        if plots.curves(numbers, dataset, output / path):
            yield Picture(path, f"{info.name} on {dataset}: training curves, mean over seeds, ± standard deviation.")
