"""From a study's description to its runs."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from detector.ablation.commands import with_current_key
from detector.ablation.study import Job, find_reusable, parse_study, pending_jobs, select, write_command
from tests.conftest import ROOT, compose_config

STUDIES = sorted((ROOT / "configs" / "study").glob("*.yaml"))


def small(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "title": "t",
        "question": "q",
        "baseline": "a",
        "arms": {
            "a": {"label": "A", "overrides": ["pooler=roipool"]},
            "rpn": {"label": "R", "overrides": []},
            "b": {"label": "B", "overrides": ["model=fast_rcnn"], "proposals": "rpn"},
        },
        "datasets": {"one": ["dataset=shapes"], "two": ["experiment=nuclei"]},
        "seeds": [3, 5],
        "overrides": ["schedule.steps=7"],
    } | changes


def test_a_seed_comes_after_the_other_and_the_users_overrides_have_the_last_word() -> None:
    jobs = parse_study(small()).jobs(Path("runs"), ["schedule.steps=9"])
    places = [(job.seed, job.dataset, job.arm) for job in jobs]
    assert places == [(s, d, a) for s in (3, 5) for d in ("one", "two") for a in ("a", "rpn", "b")]
    chosen = ("dataset=shapes", "pooler=roipool", "schedule.steps=7", "schedule.steps=9", "seed=3")
    assert jobs[0].overrides == ("experiment=study_defaults", *chosen)
    assert jobs[0].folder == "a/one/3"
    assert jobs[0].command.startswith("python scripts/train.py experiment=study_defaults dataset=shapes pooler")


def test_experiments_of_dataset_arm_and_user_come_one_after_the_other() -> None:
    jobs = parse_study(small()).jobs(Path("runs"), ["experiment=dry", "schedule.steps=9"])
    assert jobs[0].overrides[:3] == ("experiment=[study_defaults,dry]", "dataset=shapes", "pooler=roipool")
    two = next(job for job in jobs if job.dataset == "two")
    assert two.overrides[:2] == ("experiment=[study_defaults,nuclei,dry]", "pooler=roipool")
    assert "'experiment=[study_defaults,nuclei,dry]'" in two.command
    listed = parse_study(small(overrides=["experiment=[a,b]"])).jobs(Path("runs"), ["experiment=c"])
    assert [job.overrides[0] for job in listed if job.arm == "a"][:2] == [
        "experiment=[study_defaults,a,b,c]",
        "experiment=[study_defaults,nuclei,a,b,c]",
    ]


def test_proposals_come_from_the_same_dataset_and_seed_which_run_first() -> None:
    asked = parse_study(small())
    jobs = asked.jobs(Path("runs"))
    given = [o for job in jobs if job.arm == "b" for o in job.overrides if o.startswith("proposals=")]
    assert given[1] == "proposals=runs/rpn/two/3/checkpoints/last.ckpt"
    first, second = asked.waves(jobs)
    assert {job.arm for job in first} == {"a", "rpn"}
    assert {job.arm for job in second} == {"b"}
    assert sorted(first + second, key=jobs.index) == jobs


def sign(job: Job, runs: Path) -> None:
    """What a run that was measured has in its folder."""
    write_command(job, runs / job.folder)
    (runs / job.folder / "measured-box.npz").touch()


def test_what_is_done_is_not_missing(tmp_path: Path) -> None:
    jobs = parse_study(small()).jobs(tmp_path)
    for job, metrics in zip(jobs[:2], [{"time/total": 1.0}, {"time/evaluation": 1.0}], strict=True):
        (tmp_path / job.folder).mkdir(parents=True)
        (tmp_path / job.folder / "metrics.json").write_text(json.dumps(metrics))
        sign(job, tmp_path)
    unmeasured = tmp_path / jobs[0].folder / "measured-box.npz"
    (tmp_path / jobs[2].folder).mkdir(parents=True)
    (tmp_path / jobs[2].folder / "metrics.json").write_text("{")  # cut off while it was written
    assert pending_jobs(jobs, tmp_path) == jobs[1:]
    assert pending_jobs(parse_study(small(overrides=[])).jobs(tmp_path), tmp_path)[0].folder == jobs[0].folder
    unmeasured.unlink()
    assert pending_jobs(jobs, tmp_path) == jobs


def test_runs_of_other_studies_are_found_by_their_command(tmp_path: Path) -> None:
    jobs = parse_study(small()).jobs(tmp_path)
    renamed = Job("other", "two", 0, jobs[0].overrides)
    unfinished = Job("other", "two", 1, jobs[3].overrides)
    same = Job("third", "two", 1, jobs[0].overrides)
    for job in (renamed, unfinished, same):
        (tmp_path / "runs" / job.folder).mkdir(parents=True)
        sign(job, tmp_path / "runs")
    (tmp_path / "runs" / renamed.folder / "metrics.json").write_text('{"time/total": 1.0}')
    half = shutil.copytree(tmp_path / "runs" / renamed.folder, tmp_path / "runs" / "other" / "two" / "2.copy")
    (half / "command.txt").write_text(jobs[4].command)
    assert find_reusable(jobs, [tmp_path]) == {jobs[0]: tmp_path / "runs" / renamed.folder}
    assert find_reusable(jobs, []) == {}
    with pytest.raises(ValueError, match="nowhere holds no runs/"):
        find_reusable(jobs, [tmp_path, tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("seed=3 dataset=shapes 'schedule.steps=7' pooler=roipool", True),
        ("dataset=shapes schedule.steps=9 pooler=roipool schedule.steps=7 seed=3", True),
        ("dataset=shapes schedule.steps=7 pooler=roipool schedule.steps=9 seed=3", False),
        ("dataset=shapes pooler=roipool seed=3", False),
        ("dataset=shapes pooler=roipool schedule.steps=7 seed=3 +x=1", False),
        ("experiment=study_defaults dataset=shapes pooler=roipool schedule.steps=7 seed=3", True),
        ("experiment=[study_defaults] dataset=shapes pooler=roipool schedule.steps=7 seed=3", True),
        ("experiment=[study_defaults,dry] dataset=shapes pooler=roipool schedule.steps=7 seed=3", False),
    ],
)
def test_the_order_of_overrides_does_not_count(words: str, same: bool, tmp_path: Path) -> None:
    jobs = parse_study(small()).jobs(tmp_path)
    folder = tmp_path / "runs" / jobs[0].folder
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"time/total": 1.0}')
    (folder / "command.txt").write_text(f"python scripts/train.py {words}\n")
    (folder / "measured-box.npz").touch()
    assert find_reusable(jobs, [tmp_path]) == ({jobs[0]: folder} if same else {})
    assert (jobs[0] not in pending_jobs(jobs, tmp_path / "runs")) == same


def test_a_run_whose_command_has_keys_of_version_0_1_is_done(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "configs" / "study" / "table_fpn.yaml").read_text())
    content["overrides"] = ["++model.heads.select.score_thresh=0.1", "weights=w", "dataset.detections=50"]
    job = parse_study(content).jobs(tmp_path)[0]
    words = (
        "experiment=fpn_table3 backbone=resnet50_c4 pooler=roipool dataset.proposals.train.pre_nms=12000 "
        "dataset.proposals.test.pre_nms=6000 ++model.heads.select.score=0.1 weights=w dataset.detections=50 seed=0"
    )
    folder = tmp_path / job.folder
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"time/total": 1.0}')
    (folder / "measured-box.npz").touch()
    for command, done in ((words, True), (words.replace("6000", "1000"), False)):
        (folder / "command.txt").write_text(f"python scripts/train.py {command}\n")
        assert (job not in pending_jobs([job], tmp_path)) == done


@pytest.mark.parametrize(
    ("key", "current"),
    [
        ("dataset.proposals.test.post_nms", "dataset.rpn.test.post_nms_topk"),
        ("model.heads.mask_head.threshold", "model.heads.further.mask.threshold"),
        ("model.proposer.sampler.fraction", "model.proposer.sampler.positive_fraction"),
        ("model.heads.further.radius.weights", "model.heads.further.radius.weights"),
        *((key, key) for key in ("weights", "proposals", "dataset.detections", "mask_head.norm", "pooler@a.nms")),
    ],
)
def test_keys_of_version_0_1_have_current_names(key: str, current: str) -> None:
    assert with_current_key(f"++{key}=a=1") == f"++{current}=a=1"
    assert with_current_key(key) == current


def test_a_dataset_of_the_users_own_takes_the_place_of_the_studys() -> None:
    own = ["dataset=custom", "dataset.train.annotations=a.json", "dataset.rois=9"]
    plain = {"one": ["dataset=shapes"], "two": ["dataset=other"]}
    asked = parse_study(small(overrides=["schedule.steps=7", "dataset.rois=4"], datasets=plain))
    other, left, name = asked.with_dataset(["data_dir=x", *own, "workers=0"])
    assert (left, name) == (["data_dir=x", "workers=0"], "custom")
    jobs = other.jobs(Path("runs"), left)
    mine = next(job for job in jobs if job.dataset == "custom")
    assert mine.overrides == (
        *("experiment=study_defaults", "dataset=custom", "pooler=roipool", "schedule.steps=7", "dataset.rois=4"),
        *("dataset.train.annotations=a.json", "dataset.rois=9", "data_dir=x", "workers=0", "seed=3"),
    )
    assert [job for job in jobs if job.dataset != "custom"] == asked.jobs(Path("runs"), left)
    assert select(other, None, ["custom"]).jobs(Path("runs"), left)[0] == mine

    assert asked.with_dataset([*own, "dataset.name=mine"])[2] == "mine"
    assert asked.with_dataset(own[1:]) == (asked, own[1:], None)
    with pytest.raises(ValueError, match=r"dataset\.name=NAME"):
        asked.with_dataset(["dataset=a/b"])


def test_a_dataset_of_the_users_own_keeps_the_studys_setting() -> None:
    asked = parse_study(small(datasets={"coco": ["experiment=mask_rcnn_c4"]}))
    for choice, more in (("custom", []), ("coco", []), ("custom", ["experiment=dry"])):
        other, left, name = asked.with_dataset([f"dataset={choice}", *more])
        experiment = f"experiment=[study_defaults,mask_rcnn_c4{',dry' if more else ''}]"
        jobs = [job for job in other.jobs(Path("runs"), left) if job.dataset == name]
        assert all(job.overrides[:2] == (experiment, f"dataset={choice}") for job in jobs)
    mixed = parse_study(small())
    with pytest.raises(ValueError, match="experiment=nuclei"):
        mixed.with_dataset(["dataset=custom"])
    assert mixed.with_dataset(["dataset=custom", "experiment=dry"])[0].datasets["custom"] == ["dataset=custom"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ("resnet18", 3, 1200, "torch.optim.AdamW")),
        (["experiment=dry"], ("resnet18", 3, 2, "torch.optim.AdamW")),
        (["schedule=muon", "backbone=resnet10_small_fpn"], ("resnet10", 3, 550, "detector.training.optim.Muon")),
        (["experiment=coco_1x"], ("resnet50", 4, 90000, "torch.optim.SGD")),
    ],
)
def test_runs_keep_the_model_of_the_records_unless_another_is_chosen(
    overrides: list[str], expected: tuple[str, int, int, str]
) -> None:
    asked = parse_study(small(datasets={"one": ["dataset=custom"]}, overrides=[]))
    job = asked.jobs(Path("runs"), overrides)[0]
    config = compose_config(*job.overrides)
    found = (config.backbone.name, config.backbone.depth, config.schedule.steps, config.schedule.optimizer._target_)
    assert found == expected
    assert config.pooler.operator._target_ == "ops.multiscale_roi_pool"


def test_a_study_with_a_setting_composes_on_other_data() -> None:
    table = parse_study(yaml.safe_load((ROOT / "configs/study/table2e.yaml").read_text()))
    other, left, _ = table.with_dataset(["dataset=custom", "dataset.train.annotations=a", "dataset.val.annotations=b"])
    job = next(job for job in other.jobs(Path("runs"), left) if job.dataset == "custom" and job.arm == "mlp")
    config = compose_config(*job.overrides)
    assert config.dataset.name == "custom"
    assert config.dataset.train.annotations == "a"
    assert config.model.heads.further.mask.predictor._target_.endswith("MLP")


def test_what_the_arms_differ_in_is_not_overridden_for_all() -> None:
    for override in ("pooler=roialign", "+pooler=x", "model=rfcn"):
        with pytest.raises(ValueError, match="of the study chooses that"):
            parse_study(small()).jobs(Path(), [override])
    with pytest.raises(ValueError, match=r"pooler=roialign: arm 'a'"):
        parse_study(small(overrides=["pooler=roialign"])).jobs(Path())
    assert parse_study(small()).jobs(Path(), ["pooler.mode=max"])
    variants = {
        "a": {"label": "A", "overrides": ["pooler=roialign"]},
        "b": {"label": "B", "overrides": ["pooler=roialign_legacy"]},
    }
    asked = parse_study(small(arms=variants))
    assert asked.jobs(Path(), ["pooler.mode=max"])
    with pytest.raises(ValueError, match=r"pooler\.aligned=false: arm 'a' of the study chooses that"):
        asked.jobs(Path(), ["pooler.aligned=false"])


def test_paths_of_any_characters_are_quoted() -> None:
    job = next(job for job in parse_study(small()).jobs(Path("a (copy), b's")) if job.arm == "b")
    given = next(o for o in job.overrides if o.startswith("proposals="))
    assert compose_config(given).proposals == "a (copy), b's/rpn/one/3/checkpoints/last.ckpt"
    assert shlex.split(job.command)[2:] == list(job.overrides)


def test_a_part_of_a_study() -> None:
    asked = select(parse_study(small()), ["a"], ["two"])
    assert [job.folder for job in asked.jobs(Path())] == ["a/two/3", "a/two/5"]
    with pytest.raises(ValueError, match=r"no c; it has a, rpn, b"):
        select(parse_study(small()), ["a", "c"], None)
    with pytest.raises(ValueError, match="baseline, a"):
        select(parse_study(small()), ["rpn"], None)
    with pytest.raises(ValueError, match="rpn must be among them"):
        select(parse_study(small()), ["a", "b"], None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, r"seeds must be whole numbers >= 0, each once, not \[1, 1\]"),
        ({"seeds": [-1]}, "numbers >= 0"),
        ({"seeds": [True]}, "numbers >= 0"),
        ({"overrides": [{"schedule.steps": 600}]}, "overrides must be a list of overrides such as"),
        ({"arms": {"a": {"label": "A", "overrides": [{"pooler": "x"}]}}}, "arms.a.overrides must be a list"),
        ({"datasets": {2012: []}}, r"names must be text, in quotes if need be, not \[2012\]"),
        ({"name": None}, "names must be text"),
        ({"seeds": []}, "seeds"),
        ({"name": "../evil"}, "'../evil' is used as a file name"),
        ({"datasets": {"": []}}, "'' is used as a file name"),
        ({"datasets": {"voc": [], "VOC": []}}, "voc and VOC are one folder on disks"),
        ({"arms": {"a": {"label": "A", "overrides": [], "strid": 32}}}, "arm 'a': unknown keys strid"),
        ({"seeds": ["x"]}, "whole numbers"),
        ({"datasets": ["coco"]}, "names with lists of overrides"),
        ({"datasets": {"coco": "dataset=coco"}}, "datasets.coco must be a list of overrides"),
        ({"baseline": "z"}, "baseline 'z'"),
        ({"sedes": [0]}, "unknown keys sedes"),
        ({"overrides": None}, "overrides must be a list"),
        (
            {"arms": {"a": {"label": "A", "overrides": [], "proposals": "z"}}},
            "takes proposals of 'z', which is no arm",
        ),
    ],
)
def test_what_makes_no_study_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_study(small(**changes))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_study_is_one(path: Path) -> None:
    asked = parse_study(yaml.safe_load(path.read_text()), path.name)
    assert asked.info.name == path.stem
    assert len({tuple(arm.overrides) for arm in asked.info.arms.values()}) == len(asked.info.arms)
    assert len(asked.info.seeds) >= 3
