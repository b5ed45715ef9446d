"""Studies from command to report, interrupted and resumed; comparison of two runs."""

import csv
import json
import shlex
import shutil
import time
from pathlib import Path

import pytest

from detector.ablation.collect import validation_set
from detector.evaluation import Collector
from detector.evaluation.errors import find_errors
from detector.evaluation.predictions import detections_of, read_predictions
from detector.training.folder import read_config
from tests.conftest import ROOT
from tests.scripts.conftest import SMALL, Run, press_ctrl_c, run_script, start_script

STUDY = [
    "study=pooler",
    "arms=[roipool,roialign]",
    "study.seeds=[0,1]",
    *(o for o in SMALL if not o.startswith(("dataset.train.image_size=", "dataset.size_bins=", "schedule.validate_"))),
    "schedule.validate_every=6",  # and images of the usual size, as VOC's need room
    "dataset.metrics=[coco,voc]",
    "hydra.run.dir=sweep",
]
RUNS = [
    f"{arm}/{data}/{seed}"
    for arm in ("roipool", "roialign")
    for data in ("shapes_coco", "shapes_voc")
    for seed in (0, 1)
]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def done(folder: Path) -> dict[str, int]:
    """Return the time at which each run finished."""
    finished = [p for p in folder.rglob("metrics.json") if "time/total" in json.loads(p.read_text())]
    return {str(p.parent.relative_to(folder)): p.stat().st_mtime_ns for p in finished}


def costs(folder: Path) -> dict[str, str]:
    """Return what each kind of error of a run's boxes costs, in points of AP50."""
    dataset = validation_set(folder)
    truth = dataset.ground_truth()
    collector = Collector(truth, dataset.category_ids, limit=read_config(folder).dataset.detections)
    images = [image["id"] for image in truth["images"]]
    predictions = read_predictions(folder / "predictions" / "box.json")
    collector.merge([detections_of("box", predictions, images, dataset.category_ids)])
    return {name: f"{100 * cost:.1f}" for name, cost in find_errors(collector, "box").costs().items()}


@pytest.mark.slow(minutes=7)
def test_a_study_is_interrupted_resumes_and_writes_its_report(tmp_path: Path, run: Run) -> None:
    arguments = [*STUDY, f"data_dir={run.folder.parent / 'data'}"]
    runs = tmp_path / "sweep" / "runs"
    process = start_script("ablate", *arguments, cwd=tmp_path)
    deadline = time.monotonic() + 300
    while len(done(runs)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    press_ctrl_c(process)
    assert process.wait(60) != 0
    before = done(runs)
    assert 2 <= len(before) < len(RUNS)
    assert not (tmp_path / "sweep" / "report").exists()

    second = run_script("ablate", *arguments, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    after = done(runs)
    assert sorted(after) == sorted(RUNS)
    assert before.items() <= after.items()
    assert f"run {len(before) + 1} of {len(RUNS)}" in second.stdout

    records = tmp_path / "sweep" / "records"
    listed = rows(records / "runs.csv")
    assert sorted(f"{r['arm']}/{r['dataset']}/{r['seed']}" for r in listed) == sorted(RUNS)
    assert all(
        r["command"].startswith("python scripts/train.py experiment=study_defaults dataset=")
        and int(r["params"]) > 1000
        for r in listed
    )
    for name, key in (("AP", "box/AP"), ("mAP", "voc/mAP")):
        measured = {
            (r["arm"], r["dataset"], r["seed"]): float(r["value"])
            for r in rows(records / "metrics.csv")
            if r["metric"] == name and r["kind"] == "box"
        }
        for place, value in measured.items():
            assert value == pytest.approx(json.loads((runs / "/".join(place) / "metrics.json").read_text())[key])
        assert len(measured) == len(RUNS)
    gains = {(r["dataset"], r["seed"]) for r in rows(records / "differences.csv") if r["arm"] == "roialign"}
    assert len(gains) == 4
    page = (tmp_path / "sweep" / "report" / "report.html").read_text()
    assert "RoIAlign" in page
    assert "C2" in page
    assert "mAP" in page
    assert {p.parent.name for p in (tmp_path / "sweep" / "showcases").rglob("showcase.png")} == {
        "shapes_coco",
        "shapes_voc",
    }

    third = run_script("ablate", *arguments, cwd=tmp_path)
    assert third.returncode == 0, third.stderr
    assert done(runs) == after

    other = run_script("ablate", *arguments, "schedule.steps=8", cwd=tmp_path)
    assert other.returncode == 1
    assert "other values of schedule.scheduler.steps, schedule.steps" in other.stderr
    assert done(runs) == after
    shown = run_script("ablate", *arguments, "dry_run=true", cwd=tmp_path)
    assert shown.stdout.count("done python scripts/train.py") == len(RUNS)

    # The arms of another study that are these by another name.
    shared = ["study=half_pixel", 'study.arms.without.overrides=["pooler=roipool"]', *arguments[2:-2], arguments[-1]]
    copied = run_script("ablate", *shared, "reuse=[sweep]", "hydra.run.dir=shared", cwd=tmp_path)
    assert copied.returncode == 0, copied.stderr
    assert copied.stdout.count(": copied from sweep/runs/") == len(RUNS)
    assert len(done(tmp_path / "shared" / "runs")) == len(RUNS)
    gains = [
        {
            (r["dataset"], r["seed"], r["value"])
            for r in rows(tmp_path / f / "records/differences.csv")
            if r["metric"] == "AP"
        }
        for f in ("sweep", "shared")
    ]
    assert gains[0] == gains[1]

    again = run_script("ablate", f"report=[{records}]", "hydra.run.dir=again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    first_table, second_table = ((tmp_path / f / "report" / "numbers.csv").read_text() for f in ("sweep", "again"))
    assert first_table == second_table

    one, two = (str(runs / "/".join((arm, "shapes_voc", "1"))) for arm in ("roipool", "roialign"))
    compared = run_script("ablate", "--compare", one, two, "--output", "two", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    pair = [r for r in rows(tmp_path / "two/records/differences.csv") if r["metric"] == "AP"]
    study = [
        r
        for r in rows(records / "differences.csv")
        if (r["metric"], r["dataset"], r["seed"]) == ("AP", "shapes_voc", "1")
    ]
    assert [(r["value"], r["low"], r["high"]) for r in pair] == [(r["value"], r["low"], r["high"]) for r in study]
    assert (tmp_path / "two" / "showcase.png").is_file()
    made = rows(tmp_path / "two/records/runs.csv")
    assert [row["command"] for row in made] == [
        r["command"] for r in listed if r["dataset"] == "shapes_voc" and r["seed"] == "1"
    ]
    ledger = rows(tmp_path / "two/report/tables/claims.csv")
    assert {row["where"] for row in ledger if row["claim"] == "C2"} == {"compare, shapes_voc, box second against first"}
    errors = {row["error"]: row for row in rows(tmp_path / "two/report/tables/compare_shapes_voc_box_errors.csv")}
    for column, folder in (("cost roipool", one), ("cost roialign", two)):
        assert {name: row[column] for name, row in errors.items()} == costs(Path(folder))
    assert "The errors of both runs" in (tmp_path / "two/report/report.html").read_text()
    mixed = run_script("ablate", "--compare", one, one.replace("shapes_voc", "shapes_coco"), cwd=tmp_path)
    assert mixed.returncode == 1
    assert "the same data" in mixed.stderr

    (runs / RUNS[0] / "command.txt").unlink()
    elsewhere = run_script("ablate", *arguments, "trainer.log_every_n_steps=3", cwd=tmp_path)  # does not affect results
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert elsewhere.stdout.count("done before") == 1  # the others are known by their commands
    assert done(runs) == after


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study=nosuch"], "nosuch"),
        (["arms=[roipool,nosuch]"], "the study has no nosuch"),
        (["study.seeds=[0,0]"], "each once"),
        (["pooler=roialign"], "arm 'roipool' of the study chooses that"),
        (['overrides=["seed=3"]', "schedule.steps=5"], "give schedule.steps=5 within overrides"),
        (["report=[nowhere]"], "nowhere"),
        (["reuse=[nowhere]", "dry_run=true"], "nowhere holds no runs/"),
        (["reuse=nowhere"], "reuse=nowhere: give a list of folders"),
        (["report=nowhere"], "report=nowhere: give a list of folders"),
        (["seed=3"], "give study.seeds=[...]"),
        (["datasets=[shapes_coco]", "dataset=coco"], "leaves out coco"),
        (["backbone=3"], "error: backbone=3: give a name, or leave it out. Choices: extracted_fpn,"),
        (["schedule.step=3"], "unknown key 'schedule.step'; did you mean schedule.steps?"),
        (["arms=roipool"], "arms=roipool: give a list of names"),
        (["trust=mine"], "trust=mine: give a list of packages"),
        (["--compare", "here", "there"], "config.yaml"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run_script("ablate", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_study_on_a_custom_dataset(tmp_path: Path) -> None:
    own = ["dataset=custom", "dataset.name=mine", "dataset.train.annotations=a.json", "dataset.val.annotations=b.json"]
    result = run_script("ablate", "study=half_pixel", *own, "schedule.steps=9", "dry_run=true", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    commands = result.stdout.splitlines()
    assert len(commands) == 2 * 3
    for command in commands:
        assert command.count("dataset=") == 1
        assert command.index("schedule.steps=600") < command.index("schedule.steps=9")


def test_trusted_packages_and_the_search_path_go_to_every_run(tmp_path: Path) -> None:
    (tmp_path / "mine" / "study").mkdir(parents=True)
    text = (ROOT / "configs" / "study" / "half_pixel.yaml").read_text()
    (tmp_path / "mine" / "study" / "own.yaml").write_text(text.replace("name: half_pixel", "name: own"))
    own = [f"hydra.searchpath=[file://{tmp_path}/mine]", "trust=[mypackage,other.part]"]
    result = run_script("ablate", "study=own", *own, "dry_run=true", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    commands = result.stdout.splitlines()
    assert len(commands) == 2 * 2 * 3
    assert all(set(own) <= set(shlex.split(command)) for command in commands)


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path: Path, run: Run) -> None:
    data = f"data_dir={run.folder.parent / 'data'}"
    only = ["arms=[roipool,roiwarp,roialign]", "study.seeds=[0]", "datasets=[shapes_coco]", "hydra.run.dir=sweep"]
    faults = {"roipool": "schedule.batch_size=0", "roiwarp": "trainer.accelerator=tpu"}
    broken = [f'study.arms.{arm}.overrides=["pooler={arm}","{fault}"]' for arm, fault in faults.items()]
    fine = 'study.arms.roialign.overrides=["pooler=roialign","schedule.batch_size=2"]'
    small = [o for o in SMALL if not o.startswith("schedule.batch_size=")]
    result = run_script("ablate", STUDY[0], *only, *small, *broken, fine, data, cwd=tmp_path)
    assert result.returncode == 1
    assert "error: schedule.batch_size" in result.stderr
    assert "Traceback (most recent" in result.stderr  # of Lightning, which finds no TPU
    assert "runs of the sweep failed" not in result.stderr  # that of `train.py -m`
    assert "2 of 3 runs failed (roipool/shapes_coco/0, roiwarp/shapes_coco/0)" in result.stderr
    assert list(done(tmp_path / "sweep" / "runs")) == ["roialign/shapes_coco/0"]
    text = (tmp_path / "sweep" / "report" / "report.md").read_text()  # of what is there, though the baseline is not
    assert "these runs are missing: roipool, seeds 0" in text
    assert [r["arm"] for r in rows(tmp_path / "sweep" / "records" / "runs.csv")] == ["roialign"]


def test_runs_on_other_data_of_the_same_name_are_not_compared(tmp_path: Path, run: Run) -> None:
    one, other = (shutil.copytree(run.folder, tmp_path / name) for name in ("one", "other"))
    config = (other / "config.yaml").read_text()
    assert config.count("\n    seed: 0\n") == 2  # of the drawing, for train and val
    (other / "config.yaml").write_text(config.replace("\n    seed: 0\n", "\n    seed: 5\n"))
    result = run_script("ablate", "--compare", str(one), str(other), cwd=tmp_path)
    assert result.returncode == 1
    assert "other images or objects: give runs on the same data" in result.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_plan_from_the_records_at_hand(tmp_path: Path) -> None:
    kept = f"plan_from=[{ROOT / 'data/results/pooler'}]"
    done = run_script(
        "ablate", "study=pooler", "arms=[roipool,roialign]", "plan=true", "difference=2", kept, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Seeds to see 2 AP" in done.stdout
    assert "The runs that are to be done: 12, " in done.stdout
    assert not list(tmp_path.glob("multirun/pooler/runs/*"))
    for more, message in (
        (["difference=0"], "give the AP to see, in points above 0"),
        (["plan_from=x"], "give a list of folders"),
    ):
        done = run_script("ablate", "study=pooler", "plan=true", *more, cwd=tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
