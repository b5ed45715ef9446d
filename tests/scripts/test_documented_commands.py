"""Each command of the documentation is run by a test: one of this file, on few images, or the one that is named."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.scripts.conftest import FEW, SMALL, Run, run_script

SCRIPTS = "train|evaluate|predict|export|data|ablate|alignment|proposals|benchmark|doctor"
BEGINS = re.compile(rf"(python|torchrun|find) \S|dataset=custom \S|\.\.\. \S|({SCRIPTS})\.py (?!suggest$)\S")
HERE = "scripts/test_documented_commands.py"
OWN = f"{HERE}::test_ones_own_data"
CUSTOM = f"{HERE}::test_layouts_of_ones_own_data"
TABLE_OF_COMMANDS = "| task | command |"

README = {
    "python scripts/train.py pooler=roialign": "scripts/test_train.py::test_the_folder_of_a_run",
    "model=mask_rcnn": "scripts/test_train.py::test_the_folder_of_a_run",
    "python scripts/predict.py checkpoint=torchvision:maskrcnn_resnet50_fpn_v2:download input=PHOTOS output=FOUND": (
        "scripts/test_weights.py::test_prediction"
    ),
    "python scripts/train.py dataset=custom dataset.train.annotations=train.json dataset.val.annotations=val.json"
    " dataset.train.images=FOLDER": OWN,
    "python scripts/train.py experiment=coco_1x data_dir=/datasets": f"{HERE}::test_presets_of_coco_and_voc",
    "experiment=voc07": f"{HERE}::test_presets_of_coco_and_voc",
    "python scripts/train.py 'hydra.searchpath=[pkg://mypackage.configs]' pooler=centre 'trust=[mypackage]'": (
        "scripts/test_extension.py::test_it_trains_with_every_part"
    ),
    "python scripts/train.py 'dataset.metrics=[coco,{_target_: mypackage.parts.MyMetric}]' 'trust=[mypackage]'": (
        "scripts/test_extension.py::test_it_trains_with_every_part"
    ),
    "python scripts/train.py '++dataset.train_augment={_target_: mypackage.parts.MyAugment, least: 0.5}'"
    " 'trust=[mypackage]'": "scripts/test_extension.py::test_an_augmentation_takes_the_place_of_the_default_one",
    "python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt 'trust=[mypackage]'": (
        "scripts/test_extension.py::test_evaluation_is_equal_and_needs_trust"
    ),
    "python scripts/alignment.py": "scripts/test_alignment_script.py::test_textbook_example",
    "python scripts/train.py dataset=custom dataset.annotations=all.json dataset.val_share=0.2"
    " 'dataset.classes=[nucleus]'": OWN,
    "... dataset.train.annotations=FOLDER/ImageSets/Main/train.txt"
    " dataset.val.annotations=FOLDER/ImageSets/Main/val.txt": OWN,
    "dataset.annotations=FOLDER dataset.val_share=0.2": CUSTOM,
    "dataset.annotations=data.yaml": OWN,
    "'dataset.train_augment.extra=[{_target_: albumentations.GaussNoise, p: 0.3}]' dataset.mixing.copy_paste.p=0.5"
    " dataset.repeat_threshold=0.01": OWN,
    "... dataset.channels=4 dataset.range=[0,4095]": "scripts/test_deep_images.py::test_training_resumes",
    "'dataset.range=[1%,99%]'": "scripts/test_deep_images.py::test_a_set_of_deep_images_says_the_key",
    "weights=torchvision:fasterrcnn_resnet50_fpn:download": (
        "scripts/test_weights.py::test_fine_tuning_on_other_classes"
    ),
    "weights=model_final.pkl": "weights/test_weights_detectron2.py",
    "backbone=resnet50_fpn backbone.weights=imagenet": "models/test_resnet.py",
    "schedule.batch_size=2 trainer.accumulate_grad_batches=8": (
        "scripts/test_devices.py::test_accumulated_gradients_are_those_of_one_batch"
    ),
    "... trainer=ddp": "scripts/test_train.py::test_two_processes_train_as_one_run",
    "python scripts/train.py resume=RUN/checkpoints/last.ckpt": (
        "scripts/test_train.py::test_a_killed_run_resumes_and_ends_with_equal_results"
    ),
    "hydra.run.dir=RUN resume=auto": (
        "scripts/test_train.py::test_resume_auto_resumes_unfinished_runs_and_keeps_finished_ones"
    ),
    "python scripts/train.py resume=RUN/checkpoints/last.ckpt schedule.steps=4000": (
        "scripts/test_long_runs.py::test_an_extended_run_equals_a_long_one"
    ),
    "python scripts/train.py dataset=... weights=RUN/checkpoints/best.ckpt schedule=finetune": OWN,
    "python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt": (
        "scripts/test_evaluate.py::test_metrics_equal_those_of_the_run"
    ),
    "checkpoint=torchvision:fasterrcnn_resnet50_fpn:download data_dir=/datasets": (
        "scripts/test_weights.py::test_evaluation"
    ),
    "dataset.val.annotations=test.json dataset.val.images=FOLDER": OWN,
    "python scripts/evaluate.py predictions=found.json dataset=coco data_dir=/datasets": (
        "scripts/test_given_predictions.py::test_given_predictions_are_measured_and_compared"
    ),
    "ablate.py --compare": "scripts/test_given_predictions.py::test_given_predictions_are_measured_and_compared",
    "python scripts/predict.py checkpoint=RUN/checkpoints/last.ckpt input=IMAGES output=FOUND": (
        "scripts/test_predict.py::test_a_folder_of_images_of_any_size_and_mode"
    ),
    "input=clip.mp4": "scripts/test_predict.py::test_a_video_becomes_a_video_and_a_json_by_frames",
    "'input=photos/**/*.jpg'": "scripts/test_predict.py::test_sub_folders_formats_and_thresholds",
    "find photos -name '*.jpg' \\| python scripts/predict.py checkpoint=... input=-": (
        "scripts/test_predict.py::test_names_from_a_pipe"
    ),
    "tiles=1024 overlap=0.2": "scripts/test_predict.py::test_windows_of_a_large_image",
    "evaluate.py checkpoint=... tiles=1024": (
        "scripts/test_evaluate.py::test_windows_are_measured_against_the_whole_image"
    ),
    "python scripts/train.py dataset=... 'dataset.train_augment.fixed_size=[640,640]'"
    " dataset.train_augment.min_inside=0.5 tiles=640": (
        "scripts/test_evaluate.py::test_a_training_by_windows_validates_as_its_evaluation_does"
    ),
    "assignment=nwd": "models/test_assignment.py::test_nwd_equals_its_rule_box_by_box",
    "assignment=rfla": "scripts/test_tiny_recipes.py::test_aitod_by_rfla",
    "dataset.metrics=[coco,aitod]": "scripts/test_tiny_recipes.py::test_aitod_by_rfla",
    "'save=[images,csv,coco,annotations,voc,yolo,masks]'": (
        "scripts/test_predict.py::test_sub_folders_formats_and_thresholds"
    ),
    "'threshold={car: 0.3, default: 0.5}'": "scripts/test_predict.py::test_sub_folders_formats_and_thresholds",
    "'test_time_augmentation={flip: true, scales: [0.8, 1, 1.25]}'": f"{HERE}::test_keys_of_prediction",
    "python scripts/data.py dataset=coco data_dir=/datasets": "scripts/test_data.py::test_counts_of_a_dataset",
    "python scripts/data.py check dataset=...": OWN,
    "fix=clean.json": OWN,
    "python scripts/data.py stats dataset=... page=stats.html": OWN,
    "python scripts/data.py show dataset=... output=sheets": OWN,
    "python scripts/data.py suggest dataset=...": "scripts/test_suggest_script.py::test_the_suggestions_train",
    "python scripts/train.py --config-dir mine experiment=suggested": (
        "scripts/test_suggest_script.py::test_the_suggestions_train"
    ),
    "python scripts/ablate.py study=pooler": (
        "scripts/test_ablate.py::test_a_study_is_interrupted_resumes_and_writes_its_report"
    ),
    "'arms=[roipool,roialign]' 'datasets=[shapes_coco]'": (
        "scripts/test_ablate.py::test_a_study_is_interrupted_resumes_and_writes_its_report"
    ),
    "python scripts/ablate.py study=pooler dataset=...": f"{HERE}::test_studies",
    "python scripts/ablate.py study=pooler dataset=custom dataset.train.annotations=...": f"{HERE}::test_studies",
    "python scripts/ablate.py study=fixed_proposals": f"{HERE}::test_studies",
    "model=fast_rcnn proposals=RUN/checkpoints/last.ckpt": "scripts/test_fast_rcnn.py::test_frozen_rpn",
    "python scripts/ablate.py --compare RUN RUN": (
        "scripts/test_given_predictions.py::test_given_predictions_are_measured_and_compared"
    ),
    "python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt report=true": (
        "scripts/test_evaluation_page.py::test_a_page_and_the_best_thresholds"
    ),
    "predict.py threshold=best": "scripts/test_evaluation_page.py::test_a_page_and_the_best_thresholds",
    "python scripts/export.py checkpoint=RUN/checkpoints/last.ckpt output=model.onnx": (
        "scripts/test_export_script.py::test_a_run_is_exported_and_compared"
    ),
    "ap=true": "scripts/test_export_script.py::test_a_run_is_exported_and_compared",
    "int8=true": "scripts/test_export_script.py::test_a_run_is_quantised",
    "evaluate.py checkpoint=... dataset.detections=500": (
        "scripts/test_evaluation_page.py::test_a_page_and_the_best_thresholds"
    ),
    "predict.py checkpoint=... detections=500": f"{HERE}::test_keys_of_prediction",
    "pre_nms_topk=2000 post_nms_topk=1000": f"{HERE}::test_keys_of_prediction",
    "python scripts/alignment.py dataset=coco data_dir=/datasets": "scripts/test_alignment_script.py::test_a_dataset",
    "python scripts/alignment.py dataset=...": "scripts/test_alignment_script.py::test_a_dataset",
    "'runs=[RUN,RUN]'": "scripts/test_alignment_script.py::test_two_runs",
    "python scripts/proposals.py checkpoint=RUN/checkpoints/last.ckpt output=FILE.npz": (
        "scripts/test_fast_rcnn.py::test_file_of_proposals"
    ),
    "model=fast_rcnn proposals=FILE.npz": "scripts/test_fast_rcnn.py::test_file_of_proposals",
    "python scripts/doctor.py": "scripts/test_doctor.py::test_the_script_where_all_is_well",
    "python scripts/benchmark.py ops": "ops/test_roi_benchmark.py",
    "python scripts/train.py --help": ("scripts/test_help.py::test_help_is_answered_before_anything_heavy_is_imported"),
    "python scripts/ablate.py study=NAME": (
        "scripts/test_ablate.py::test_a_study_is_interrupted_resumes_and_writes_its_report"
    ),
    'python scripts/data.py check "${DATA[@]}"': OWN,
    'python scripts/data.py stats "${DATA[@]}"': OWN,
    'python scripts/data.py suggest "${DATA[@]}"': "scripts/test_suggest_script.py::test_the_suggestions_train",
    "python scripts/train.py --config-dir mine experiment=suggested hydra.run.dir=RUN": (
        "scripts/test_suggest_script.py::test_the_suggestions_train"
    ),
    "python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt report=true": (
        "scripts/test_evaluation_page.py::test_a_page_and_the_best_thresholds"
    ),
    "python scripts/predict.py checkpoint=RUN/checkpoints/best.ckpt input=PHOTOS output=FOUND threshold=best": (
        "scripts/test_evaluation_page.py::test_a_page_and_the_best_thresholds"
    ),
    "python scripts/export.py checkpoint=RUN/checkpoints/best.ckpt output=model.onnx": (
        "scripts/test_export_script.py::test_a_run_is_exported_and_compared"
    ),
    "python scripts/NAME.py": "scripts/test_installation.py::test_the_first_command_in_an_empty_folder",
}
"""Commands, and keys of README's table of commands, with the test that runs each."""
OTHERS = {
    "dataset=custom dataset.train.annotations=FOLDER/train.json dataset.val.annotations=FOLDER/val.json"
    " dataset.train.images=FOLDER/images": OWN,
    "dataset=custom dataset.train.annotations=FOLDER/ImageSets/Main/train.txt"
    " dataset.val.annotations=FOLDER/ImageSets/Main/val.txt": OWN,
    "dataset=custom dataset.annotations=all.json dataset.images=FOLDER dataset.val_share=0.2": OWN,
    "dataset=custom 'dataset.annotations=[monday.json,tuesday.json]' 'dataset.split=[0.7,0.2,0.1]'": CUSTOM,
    "dataset=custom dataset.annotations=FOLDER dataset.val_share=0.2": CUSTOM,
    "dataset=custom dataset.annotations=data.yaml": OWN,
    "dataset=custom dataset.annotations=classes.txt dataset.val_share=0.2": CUSTOM,
    "python scripts/data.py check dataset=... fix=clean.json": OWN,
    "python scripts/data.py stats dataset=...": OWN,
    "python scripts/data.py show dataset=...": OWN,
    "python scripts/data.py convert to=coco|voc|yolo output=FOLDER dataset=...": OWN,
    "python -m ops.drawing > ops/sampling.svg": "ops/test_roi_benchmark.py",
    "python -m ops.boxes": "ops/test_kinds_of_boxes.py::test_an_output_is_compared_by_kind",
    "python -m ops.boxes write FOLDER": "ops/test_kinds_of_boxes.py::test_an_output_is_compared_by_kind",
    "python -m ops.boxes compare FOUND.npy roi_align sampling_ratio=2 aligned=true": (
        "ops/test_kinds_of_boxes.py::test_an_output_is_compared_by_kind"
    ),
    "python -m ops.build": "ops/test_roi_build.py::test_building_ahead_reports_what_it_found",
    "python scripts/benchmark.py match": "training/test_workloads.py",
    "python -m detector.config.reference > configs/README.md": "config/test_reference.py::test_it_is_that_of_the_files",
    "python scripts/ablate.py study=NAME [key=value of train.py, for every run]": (
        "scripts/test_ablate.py::test_a_study_is_interrupted_resumes_and_writes_its_report"
    ),
    "python scripts/ablate.py study=table2c study.seeds=[0] experiment=dry data_dir=FOLDER"
    " hydra.run.dir=multirun/table2c_dry": "test_papers.py::test_table_2c_from_command_to_report",
    "python scripts/ablate.py study=table2c data_dir=/datasets": "test_papers.py::test_table_2c_from_command_to_report",
    "python scripts/ablate.py study=voc study.seeds=[0] experiment=dry data_dir=FOLDER"
    " hydra.run.dir=multirun/voc_dry": (f"{HERE}::test_studies"),
    "python scripts/train.py 'experiment=[mask_rcnn_c4,dry]' data_dir=FOLDER": (
        "test_papers.py::test_table_2c_from_command_to_report"
    ),
    "torchrun --nproc_per_node=8 scripts/train.py experiment=mask_rcnn_c4 backbone=resnet50_c4 pooler=roipool"
    " data_dir=/datasets seed=0 trainer=ddp hydra.run.dir=multirun/table2c/runs/roipool/coco/0": (
        "scripts/test_devices.py::test_two_machines_of_torchrun_train_as_one"
    ),
    "dataset=custom dataset.name=mine dataset.train.annotations=... dataset.val.annotations=...": (
        f"{HERE}::test_studies"
    ),
    "python -m venv .venv": "scripts/test_installation.py::test_one_package_is_installed",
    "python -m build": "scripts/test_installation.py::test_one_package_is_installed",
    "python .ci/gpu": "test_gpu_script.py::test_each_part_has_its_result",
    "python .ci/gpu REPORT --only build tests --minutes 4": "test_gpu_script.py::test_tests_and_training_run_on_a_cpu",
    "python .ci/gpu --list": "test_gpu_script.py::test_the_parts_are_listed_and_fit_the_time",
    "benchmark.py NAME --against COMMIT": "training/test_against.py",
}
"""Those of the other documents."""
DOCUMENTS = (
    *("README.md", "data/README.md", "ops/README.md", "ops/RUNTIMES.md"),
    *("configs/study/README.md", "detector/doctor/README.md", "CONTRIBUTING.md"),
)
"""`configs/README.md` has the commands of the presets alone, which tests/config/test_configs.py composes."""


def documented(text: str) -> list[str]:
    """Return the commands of a document, and what the second column of its table of commands adds to them."""
    found: list[str] = []
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.M | re.S):
        for line in re.sub(r"\\\n *", "", block).splitlines():
            parts = re.sub(r"(^|\s{2,})# .*", "", line).split(" && ")
            found += [part.strip() for part in parts if BEGINS.match(part.strip())]
    rows = text.partition(TABLE_OF_COMMANDS)[2].partition("\n\n")[0]
    for line in re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S).splitlines():
        for code in re.findall(r"`([^`]+)`", line):
            added = "=" in code and line in rows and not code.startswith(("from ", "dataset=...", "schedule.steps=`"))
            if BEGINS.match(code) or (added and not code.endswith("=")):
                found.append(code)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_command_is_run_by_a_test(document: str) -> None:
    commands = documented((ROOT / document).read_text(encoding="utf-8"))
    assert commands
    assert [command for command in commands if command not in README and command not in OTHERS] == []


def test_no_other_command_is_named_here() -> None:
    there = {command for name in DOCUMENTS for command in documented((ROOT / name).read_text(encoding="utf-8"))}
    assert [command for command in [*README, *OTHERS] if command not in there] == []
    for test in {*README.values(), *OTHERS.values()}:
        name, _, function = test.partition("::")
        assert f"def {function or 'test_'}" in (ROOT / "tests" / name).read_text(encoding="utf-8"), test


def do(script: str, *arguments: str, cwd: Path) -> str:
    done = run_script(script, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


STEPS = [*(key for key in SMALL if key.startswith(("backbone", "trainer", "logger", "workers")))]
STEPS += ["schedule.steps=2", "schedule.batch_size=2", "schedule.validate_every=2"]


@pytest.fixture(scope="module")
def home(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's dataset, written by `data.py convert` as `coco`, `voc` and `yolo`, named as users name their files."""
    folder = tmp_path_factory.mktemp("own")
    drawn = ["dataset=shapes_coco", *FEW, f"data_dir={run.folder.parent / 'data'}"]
    for kind in ("coco", "voc", "yolo"):
        do("data", "convert", f"to={kind}", f"output={kind}", *drawn, cwd=folder)
    coco = folder / "coco"
    for part in ("train", "val"):  # files beside each other, and images in one folder
        shutil.move(coco / f"annotations/instances_{part}.json", coco / f"{part}.json")
        shutil.copytree(coco / part, coco / "images", dirs_exist_ok=True)
    return folder


def test_ones_own_data(home: Path, run: Run) -> None:
    first = json.loads((home / "coco/train.json").read_text())["categories"][0]["name"]
    pair = ["dataset=custom", "dataset.train.annotations=coco/train.json", "dataset.val.annotations=coco/val.json"]
    pair.append("dataset.train.images=coco/images")
    assert "train" in do("data", "check", *pair, "fix=clean.json", cwd=home)
    assert (home / "clean_train.json").exists()
    do("data", "stats", *pair, "page=stats.html", cwd=home)
    do("data", "show", *pair, "output=sheets", "images=2", cwd=home)
    assert (home / "stats.html").exists()
    assert (home / "sheets/train.png").exists()
    lists = [f"dataset.{part}.annotations=voc/ImageSets/Main/{part}.txt" for part in ("train", "val")]
    one = ["dataset.annotations=coco/train.json", "dataset.images=coco/images", "dataset.val_share=0.2"]
    added = ["dataset.train_augment.extra=[{_target_: albumentations.GaussNoise, p: 0.3}]"]
    added += ["dataset.mixing.copy_paste.p=0.5", "dataset.repeat_threshold=0.01"]
    tune = ["model=mask_rcnn", f"weights={run.checkpoint.parent / 'best.ckpt'}", "schedule=finetune"]
    for name, keys in {
        "pair": [*pair, *added],
        "voc": ["dataset=custom", *lists],
        "yolo": ["dataset=custom", "dataset.annotations=yolo/data.yaml"],
        "one": ["dataset=custom", *one, f"dataset.classes=[{first}]", *tune],
    }.items():
        do("train", *keys, *STEPS, f"hydra.run.dir={name}", cwd=home)
        assert (home / name / "metrics.json").exists()
    other = ["dataset.val.annotations=coco/val.json", "dataset.val.images=coco/images"]
    do("evaluate", "checkpoint=voc/checkpoints/last.ckpt", *other, "workers=0", "hydra.run.dir=again", cwd=home)
    assert len(json.loads((home / "again/predictions/truth.json").read_text())["images"]) == 6


def test_layouts_of_ones_own_data(home: Path) -> None:
    shutil.copytree(home / "voc/Annotations", home / "flat", dirs_exist_ok=True)
    shutil.copytree(home / "voc/JPEGImages", home / "flat", dirs_exist_ok=True)
    (home / "classes").mkdir()
    names = re.findall(r"^  \d+: (.*)$|^- (.*)$", (home / "yolo/data.yaml").read_text(), re.M)
    (home / "classes/classes.txt").write_text("\n".join(a or b for a, b in names))
    for part in ("images", "labels"):
        shutil.copytree(home / "yolo" / part, home / "classes" / part)
    for keys in (
        ["dataset.annotations=flat", "dataset.val_share=0.2"],
        ["dataset.annotations=classes/classes.txt", "dataset.val_share=0.2"],
        [
            *("dataset.annotations=[coco/train.json,coco/val.json]", "dataset.images=coco/images"),
            "dataset.split=[0.5,0.3,0.2]",
        ],
    ):
        assert "val" in do("data", "dataset=custom", *keys, cwd=home)


def test_presets_of_coco_and_voc(home: Path) -> None:
    """With the preset `dry`, and smaller images."""
    for part in ("train", "val"):
        shutil.copytree(home / "coco/images", home / f"sets/coco/{part}2017")
        annotations = home / f"sets/coco/annotations/instances_{part}2017.json"
        annotations.parent.mkdir(exist_ok=True)
        shutil.copy(home / f"coco/{part}.json", annotations)
    shutil.copytree(home / "voc", home / "sets/VOCdevkit/VOC2007")
    for file in (home / "sets/VOCdevkit/VOC2007/Annotations").iterdir():  # of other classes than VOC's
        file.write_text(re.sub(r"<name>\w+</name>", "<name>cat</name>", file.read_text()))
    lists = home / "sets/VOCdevkit/VOC2007/ImageSets/Main"
    shutil.copy(lists / "train.txt", lists / "trainval.txt")
    shutil.copy(lists / "val.txt", lists / "test.txt")
    small = [f"dataset.{part}_augment.short_sizes=[96]" for part in ("train", "val")]
    for preset in ("coco_1x", "voc07"):
        keys = [f"experiment=[{preset},dry]", "data_dir=sets", *small, "backbone.freeze_at=0"]
        do("train", *keys, "trainer.enable_progress_bar=false", f"hydra.run.dir={preset}", cwd=home)
        assert (home / preset / "metrics.json").exists()


def test_keys_of_prediction(home: Path, run: Run) -> None:
    name = sorted((home / "coco/images").rglob("*.png"))[0]
    twice = "test_time_augmentation={flip: true, scales: [0.8, 1, 1.25]}"
    most = ["detections=500", "pre_nms_topk=2000", "post_nms_topk=1000"]
    arguments = [f"checkpoint={run.checkpoint}", f"input={name}", twice, *most, "threshold=0.01"]
    do("predict", *arguments, cwd=home)
    assert (home / "predictions" / "detections.json").exists()


def test_studies(home: Path) -> None:
    """One of the user's data; those that take long as far as the commands of their runs."""
    own = ["dataset=custom", "dataset.name=mine", "dataset.annotations=coco/train.json", "dataset.images=coco/images"]
    own += ["dataset.val_share=0.25", "arms=[roipool,roialign]", "study.seeds=[0]"]
    do("ablate", "study=pooler", *own, *STEPS, cwd=home)
    assert (home / "multirun/pooler/report/report.html").exists()
    for keys in (["study=fixed_proposals"], ["study=voc", "study.seeds=[0]", "experiment=dry", "data_dir=sets"]):
        assert "scripts/train.py" in do("ablate", *keys, "dry_run=true", cwd=home)
