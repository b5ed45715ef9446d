import csv
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO

from tests.scripts.conftest import FEW, SMALL, Run, press_ctrl_c, run_alone, run_script, start_script


def test_the_folder_of_a_run(run: Run) -> None:
    files = {str(p.relative_to(run.folder)) for p in run.folder.rglob("*") if p.is_file()}
    assert {f for f in files if not f.startswith("tensorboard/")} == {
        "config.yaml",
        "command.txt",
        "metrics.json",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "predictions/box.json",
        "predictions/mask.json",
        "predictions/truth.json",
        "pictures/predictions.png",
    }
    command = (run.folder / "command.txt").read_text()
    assert command.startswith("python scripts/train.py pooler=roialign model=mask_rcnn ")
    with Image.open(run.folder / "pictures" / "predictions.png") as picture:
        assert min(picture.size) > 400


def test_metrics_are_flat_fractions(run: Run) -> None:
    metrics = json.loads((run.folder / "metrics.json").read_text())
    for kind in ("box", "mask"):
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "AP/ellipse"):
            assert 0 <= metrics[f"{kind}/{name}"] <= 1
    assert metrics["env/torch"] == torch.__version__
    assert metrics["time/total"] > metrics["time/training"] > 0
    assert not any(name.startswith("voc/") for name in metrics)


def test_metrics_csv_has_every_step(run: Run) -> None:
    with (run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == sorted(int(row["step"]) for row in rows)
    assert any(row["box/AP"] for row in rows)
    assert "loss/class" in rows[0]


def test_the_configuration_is_resolved(run: Run) -> None:
    text = (run.folder / "config.yaml").read_text()
    config = OmegaConf.create(text)
    assert "${" not in text
    assert config.num_classes == len(config.classes) == 5


def test_the_terminal_shows_a_table_and_the_levels(run: Run) -> None:
    for expected in ("AP50", "mask", "stride 4:", "metrics.json", "Operators: "):
        assert expected in run.output


def test_predictions_are_coco_results(run: Run) -> None:
    truth = run.dataset / "annotations" / "instances_val.json"
    known = {image["id"] for image in json.loads(truth.read_text())["images"]}
    for kind in ("box", "mask"):
        results = json.loads((run.folder / "predictions" / f"{kind}.json").read_text())
        assert {row["image_id"] for row in results} <= known
        assert all(
            {"image_id", "category_id", "score", "bbox" if kind == "box" else "segmentation"} <= row.keys()
            for row in results
        )
        if results:
            COCO(str(truth)).loadRes(results)


def test_a_checkpoint_is_plain_data(run: Run) -> None:
    content = torch.load(run.checkpoint, weights_only=True)
    assert content["aligned_rcnn"]["config"]["num_classes"] == 5
    assert content["global_step"] == 6


def test_a_killed_run_resumes_and_ends_with_equal_results(tmp_path: Path, run: Run) -> None:
    steps = ["schedule.steps=24", "schedule.validate_every=24", "schedule.checkpoint_every=3"]
    arguments = [f"data_dir={run.folder.parent / 'data'}", *SMALL, *steps]
    whole = run_script("train", "hydra.run.dir=whole", *arguments, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    killed = run_script(  # the delay lets it be written completely
        "train", "hydra.run.dir=killed", *arguments, cwd=tmp_path, kill_at=checkpoint.exists, delay=0.2
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (checkpoint.parent.parent / "metrics.json").exists()
    content = torch.load(checkpoint, weights_only=True)
    assert content["global_step"] < 24
    before = content["callbacks"]["Clock"]["seconds"]
    assert before > 0

    began = time.monotonic()
    resumed = run_script("train", f"resume={checkpoint}", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    total = json.loads((tmp_path / "killed" / "metrics.json").read_text())["time/total"]
    assert before < total < before + time.monotonic() - began  # the sum of both parts
    finished = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    for name, value in torch.load(checkpoint, weights_only=True)["state_dict"].items():
        assert torch.equal(value, finished["state_dict"][name]), name
    tables = []
    for folder in ("whole", "killed"):
        with (tmp_path / folder / "metrics.csv").open() as file:
            tables.append([(row["step"], row["loss"]) for row in csv.DictReader(file) if row["loss"]])
    assert tables[0] == tables[1]
    assert not any((tmp_path / "outputs").rglob("*")) or not (tmp_path / "outputs").exists()


def test_ctrl_c_finishes_and_saves_the_step(tmp_path: Path, run: Run) -> None:
    arguments = [
        f"data_dir={run.folder.parent / 'data'}",
        *SMALL[:-1],
        "workers=1",
        "schedule.steps=5000",
        "schedule.checkpoint_every=5000",
    ]
    stopped = start_script("train", "hydra.run.dir=run", *arguments, cwd=tmp_path)
    deadline = time.monotonic() + 120
    metrics = tmp_path / "run" / "metrics.csv"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:  # begun, but no step done
        assert time.monotonic() < deadline
        assert stopped.poll() is None
        time.sleep(0.01)
    press_ctrl_c(stopped)
    assert stopped.wait(60) == 1
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < content["global_step"] < 5000


def test_a_failing_run_does_not_end_a_sweep(tmp_path: Path, run: Run) -> None:
    data = f"data_dir={run.folder.parent / 'data'}"
    arguments = ["schedule.validate_every=0,3", "hydra.sweep.dir=sweep", data]
    done = run_script("train", "-m", *arguments, *(a for a in SMALL if "validate" not in a), cwd=tmp_path)
    assert done.returncode == 1
    assert "schedule.validate_every must be a whole number of at least 1, not 0" in done.stderr
    assert "1 runs of the sweep failed" in done.stderr
    assert (tmp_path / "sweep" / "1" / "metrics.json").is_file()


def test_a_launcher_of_other_processes_tells_failures_too(tmp_path: Path) -> None:
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]
    # In a fork, the launcher's processes would be waited for until they have been idle for minutes.
    done = run_alone("train", "-m", "seed=-1,-2", *launcher, *SMALL, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "runs of the sweep failed" in done.stderr


def same_again(home: Path) -> None:
    """Check that evaluating the checkpoint of home/run gives exactly the run's metrics."""
    checkpoint = f"checkpoint={home}/run/checkpoints/last.ckpt"
    done = run_script("evaluate", checkpoint, "workers=0", "hydra.run.dir=again", cwd=home)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((home / name / "metrics.json").read_text()) for name in ("run", "again"))
    assert "box/AP" in first
    assert {k: v for k, v in first.items() if "AP" in k} == {k: v for k, v in second.items() if "AP" in k}


def test_the_other_precision(tmp_path: Path, run: Run) -> None:
    data = f"data_dir={run.folder.parent / 'data'}"
    chosen = OmegaConf.load(run.folder / "config.yaml").trainer.precision
    assert chosen in ("bf16-mixed", "32-true")
    other = "bf16-mixed" if chosen == "32-true" else "32-true"
    # Without matrix units bf16 is emulated, and slow: few steps.
    arguments = [data, f"trainer.precision={other}", *SMALL, "schedule.steps=2", "schedule.validate_every=2"]
    done = run_script("train", *arguments, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"precision: {other}" in " ".join(done.stdout.split())
    same_again(tmp_path)


def test_two_processes_train_as_one_run(tmp_path: Path, run: Run) -> None:
    data = f"data_dir={run.folder.parent / 'data'}"
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "+trainer.strategy=ddp"]
    done = run_script("train", data, *two, "hydra.run.dir=run", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_again(tmp_path)


def test_resuming_takes_no_other_configuration(tmp_path: Path, run: Run) -> None:
    for override in ("pooler=roipool", "trainer.precision=16-mixed", "trainer.accumulate_grad_batches=2"):
        done = run_script("train", f"resume={run.checkpoint}", override, cwd=tmp_path)
        assert done.returncode == 1
        assert override in done.stderr


@pytest.fixture(scope="module")
def unlogged(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Train in float32 without a logger; returns the folder of the run."""
    home = tmp_path_factory.mktemp("unlogged")
    arguments = [f"data_dir={run.folder.parent / 'data'}", "trainer.precision=32-true", *SMALL]
    done = run_script("train", "hydra.run.dir=run", *arguments, cwd=home)
    assert done.returncode == 0, done.stderr
    return home / "run"


def test_resuming_on_another_machine_gives_equal_results(tmp_path: Path, unlogged: Path) -> None:
    checkpoint = shutil.copytree(unlogged, tmp_path / "run") / "checkpoints" / "last.ckpt"
    for change in ("trainer=cpu", "trainer.log_every_n_steps=7"):
        done = run_script("train", f"resume={checkpoint}", change, "workers=0", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        trainer = OmegaConf.load(tmp_path / "run" / "config.yaml").trainer
        key, value = change.split("=")
        assert str(trainer.accelerator if key == "trainer" else trainer.log_every_n_steps) == value
        assert trainer.precision == "32-true"


def test_resuming_keeps_the_logger_unless_another_is_given(tmp_path: Path, unlogged: Path) -> None:
    shutil.copytree(unlogged, tmp_path / "run")
    checkpoint, config = tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path / "run" / "config.yaml"
    for change, logger in (((), {}), (("logger=tensorboard",), {"tensorboard"}), ((), {"tensorboard"})):
        done = run_script("train", f"resume={checkpoint}", *change, "workers=0", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert set(OmegaConf.load(config).logger or {}) == set(logger)
    config.write_text(config.read_text().replace("lightning.pytorch.loggers.TensorBoardLogger", "os.system"))
    done = run_script("train", f"resume={checkpoint}", cwd=tmp_path)
    assert done.returncode == 1
    assert "is not trusted: give another logger, logger=..." in done.stderr


def test_resume_auto_resumes_unfinished_runs_and_keeps_finished_ones(tmp_path: Path, run: Run) -> None:
    arguments = [f"data_dir={run.folder.parent / 'data'}", "hydra.run.dir=run", "resume=auto", *SMALL]
    metrics, checkpoint = tmp_path / "run/metrics.json", tmp_path / "run/checkpoints/last.ckpt"

    def measured(*more: str) -> tuple[str, dict[str, object]]:
        done = run_script("train", *arguments, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        values = json.loads(metrics.read_text())
        return done.stdout, {key: value for key, value in values.items() if not key.startswith(("time/", "env/"))}

    _, first = measured()
    written = metrics.stat().st_mtime_ns
    said, again = measured("trainer=cpu")
    assert "done before" in said
    assert again == first
    assert metrics.stat().st_mtime_ns == written
    for change in ("schedule.steps=8", "+trainer.limit_val_batches=1"):
        other = run_script("train", *arguments, change, cwd=tmp_path)
        assert other.returncode == 1
        assert change.strip("+").split("=")[0] in other.stderr
        assert (f"give resume={checkpoint} {change} alone" in other.stderr) == (change == "schedule.steps=8")
    trained = checkpoint.stat().st_mtime_ns
    metrics.unlink()
    assert measured()[1] == first  # evaluated again
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 6
    assert checkpoint.stat().st_mtime_ns >= trained
    metrics.unlink()
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    said, again = measured()
    assert "the run starts over" in said
    assert again == first
    assert checkpoint.with_name("last.ckpt.broken").stat().st_size == 1000
    metrics.unlink()
    content = torch.load(checkpoint, weights_only=True)
    content["aligned_rcnn"]["format"] = 1
    torch.save(content, checkpoint)
    refused = run_script("train", *arguments, cwd=tmp_path)
    assert refused.returncode == 1
    assert checkpoint.is_file()


def test_a_sweep_creates_a_folder_for_each_run(tmp_path: Path, run: Run) -> None:
    data = f"data_dir={run.folder.parent / 'data'}"
    done = run_script("train", "-m", "pooler=roipool,roialign", "hydra.sweep.dir=sweep", data, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    operators = []
    for i in range(2):
        config = OmegaConf.load(tmp_path / "sweep" / str(i) / "config.yaml")
        operators.append(config.pooler.operator["_target_"])
        assert "box/AP" in json.loads((tmp_path / "sweep" / str(i) / "metrics.json").read_text())
    assert operators == ["ops.multiscale_roi_pool", "ops.multiscale_roi_align"]


def _without(options: list[str], overridden: list[str]) -> list[str]:
    keys = {o.split("=")[0] for o in overridden}
    return [o for o in options if o.split("=")[0] not in keys]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataset=coco", "data_dir=nowhere"], ["nowhere", "coco"]),
        (["dataset=voc07", "data_dir=nowhere"], ["nowhere", "VOC2007"]),
        (["dataset=custom", "dataset.train.annotations=afile.json", "dataset.val.annotations=x"], ["afile.json"]),
        (["dataset=custom", "dataset.val.annotations=x"], ["give dataset.train.annotations=..."]),
        (["trainer.accelerator=mps"], ["trainer.accelerator=mps", "trainer=cpu"]),
        (["poler=roialign"], ["poler"]),
        (["pooler=roialing"], ["roialing", "roialign"]),
        (["pooler.sampling=2"], ["sampling"]),
        (["+nonsense=1"], ["nonsense"]),
        (["+schedule.nonsense=1"], ["nonsense", "validate_every"]),
        (["+model.nms=1"], ["nms"]),
        (["resume=nowhere.ckpt"], ["nowhere.ckpt"]),
        (["backbone.weights=nowhere.pth"], ["nowhere.pth"]),
        (["trainer=gpu"], ["trainer:", "gpu"]),
        (["schedule.monitor=box/APx"], ["box/APx", "box/AP75"]),
        (["schedule.monitor=box/AP/ellipse"], ["box/AP/ellipse", "box/AP75"]),
        (["seed=-1"], ["seed", "-1"]),
        (["seed=1.5"], ["seed", "1.5"]),
        (["schedule.steps=many"], ["schedule.steps", "many"]),
        (["trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches", "0"]),
        (["trainer.precision=8"], ["trainer.precision", "8", "bf16-mixed"]),
        (["backbone.strides=[4,8,16,32,48]"], ["strides", "48"]),
        (["backbone.channels=-1"], ["channels", "backbone"]),
        (["data_dir=afile"], ["afile", "folder"]),
    ],
)
def test_bad_input_is_one_readable_message(arguments: list[str], words: list[str], tmp_path: Path, run: Run) -> None:
    (tmp_path / "afile").write_text("not a folder")
    data = [] if any(a.startswith("data_dir") for a in arguments) else [f"data_dir={run.folder.parent / 'data'}"]
    small = [o for o in SMALL if o not in FEW] if arguments[0].startswith("dataset=") else SMALL
    done = run_script("train", *arguments, *data, *_without(small, arguments), cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert all(word in done.stderr + done.stdout for word in words), done.stderr
    assert "Training" not in done.stdout


def test_the_progress_bar_can_be_left_out(tmp_path: Path, run: Run) -> None:
    assert "Training" in run.output
    quiet = "trainer.enable_progress_bar=false"
    few = ["schedule.steps=2", "schedule.validate_every=2"]
    arguments = [f"data_dir={run.folder.parent / 'data'}", "hydra.run.dir=run", *SMALL, *few]
    done = run_script("train", *arguments, quiet, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Training" not in done.stdout
    again = run_script("train", *arguments, "resume=auto", cwd=tmp_path)  # not another run, since it computes the same
    assert again.returncode == 0, again.stderr
    assert "done before" in again.stdout
    evaluation = [f"checkpoint={run.checkpoint}", "workers=0", "hydra.run.dir=again"]
    measured = run_script("evaluate", *evaluation, quiet, cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    assert "Validation" not in measured.stdout
