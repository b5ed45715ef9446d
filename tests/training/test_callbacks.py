import csv
from pathlib import Path

from detector.training.callbacks import CsvLogger


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_rows_are_complete_after_each_save(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path)
    expected: dict[int, dict[str, float]] = {}
    for step in range(20):
        for metrics in ({"lr": 0.1}, {"loss": step / 7}, {"box/AP": 0.5} if step % 8 == 7 else {}):
            if metrics:
                logger.log_metrics(metrics, step)
                logger.save()
                expected.setdefault(step, {}).update(metrics)
            found = {int(r.pop("step")): {k: float(v) for k, v in r.items() if v} for r in read(tmp_path)}
            assert found == expected
    logger.finalize("success")
    assert len(read(tmp_path)) == 20


def test_csv_drops_rows_after_the_resumed_step(tmp_path: Path) -> None:
    first = CsvLogger(tmp_path)
    for step in range(10):
        first.log_metrics({"loss": float(step)}, step)
        first.save()
    second = CsvLogger(tmp_path, start=4)
    for step in range(4, 12):
        second.log_metrics({"loss": 100.0 + step, "new": 1.0}, step)
        second.save()
    losses = [float(row["loss"]) for row in read(tmp_path)]
    assert losses == [0, 1, 2, 3, *range(104, 112)]


def test_csv_drops_a_row_that_was_cut_off(tmp_path: Path) -> None:
    first = CsvLogger(tmp_path)
    for step in range(13):
        first.log_metrics({"loss": float(step)}, step)
        first.save()
    text = first.path.read_text()
    first.path.write_text(text[: text.index("12,") + 1])  # "1", of step 12
    second = CsvLogger(tmp_path, start=13)
    second.log_metrics({"loss": 0.5}, 13)
    second.save()
    assert [(row["step"], row["loss"]) for row in read(tmp_path)] == [
        *((str(step), repr(float(step))) for step in range(12)),
        ("13", "0.5"),
    ]
