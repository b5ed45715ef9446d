"""The command line: quoting of values, explanation of mistakes, `--cfg job`."""

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from detector.config.command_line import FULL_ERROR, Action, run
from detector.config.compose import compose_config as compose_inside
from detector.config.mistakes import explain, unknown_key
from detector.config.overrides import allow_new_keys, parse, plain_keys, quote_override, quote_value, split_options
from detector.config.show import format_config
from tests.conftest import ROOT, compose_config

STRINGS = [
    "photos (1)",
    "photos (1)/x=1.jpg",
    "photos(1)",
    "a=b",
    "a,b (c)",
    "b]",
    "it's",
    'the "best" one',
    'it\'s "both"',
    "back\\slash (1)",
    "ends (1) in\\",
    "\\'(1)\\\"",
    "Größe #1 & more; <x>",
    "日本 (2)",
    "~/photos",
    "x{1}",
    "photos!",
]
AS_THEY_ARE = [
    "schedule.steps=3000",
    "seed=-1",
    "data_dir=/a/b c",
    "data_dir=",
    "weights=torchvision:fasterrcnn_resnet50_fpn:download",
    "proposals=${data_dir}/proposals.npz",
    "input='photos (1)'",
    'input="photos (1)"',
    "input=photos\\ \\(1\\)",
    "arms=[roipool,roialign]",
    'overrides=["pooler=roipool","a=\'b (1)\'"]',
    "dataset.train.shares=[0.1, 0.2, 0.7]",
    "schedule.optimizer={lr: 0.1, nested: [a,b]}",
    "+trainer.limit_val_batches=1",
    "++model.rois_at_once=null",
    "~logger",
    "~logger=tensorboard",
    "hydra.run.dir=outputs/${now:%Y-%m-%d}",
    "hydra/launcher=joblib",
    "model/proposer=given",
    "pooler@model.x=roipool",
]


@pytest.mark.parametrize("value", STRINGS)
def test_values_that_the_grammar_refuses_are_quoted(value: str) -> None:
    assert parse(f"input={value}") is None
    for multirun in (False, True):
        if not (multirun and ("," in value or value.startswith("photos("))):
            override = parse(quote_override(f"input={value}", multirun))
            assert override is not None
            assert (override.key_or_group, override.value()) == ("input", value)


@pytest.mark.parametrize("value", [*STRINGS, *AS_THEY_ARE, "", "null", "1", "[a]", "a\\"])
def test_quoted_values_are_strings(value: str) -> None:
    override = parse(f"key={quote_value(value)}")
    assert override is not None
    assert override.value() == value


@pytest.mark.parametrize("override", AS_THEY_ARE)
def test_valid_values_are_not_quoted(override: str) -> None:
    assert quote_override(override) == override
    assert quote_override(override, multirun=True) == override


@pytest.mark.parametrize("override", ["pooler=a,b", "seed=range(0,3)", "seed=choice(1,2)", "x=glob(*)", "x='a','b c'"])
def test_sweeps_need_multirun(override: str) -> None:
    assert quote_override(override, multirun=True) == override
    with pytest.raises(ValueError, match="give -m"):
        quote_override(override)


@pytest.mark.parametrize(("value", "number"), [("2024", True), ("1e5", True), ("true", True), ("null", False)])
def test_a_path_may_look_like_a_number(value: str, number: bool) -> None:
    override = parse(quote_override(f"input={value}"))
    assert override is not None
    assert override.value() == (value if number else None)
    assert quote_override(f"threshold={value}") == f"threshold={value}"


@pytest.mark.parametrize(
    ("override", "multirun", "shown"),
    [
        ("arms=[roipool,roialign", False, "arms=[roipool,roialign"),
        ("runs=[photos (1),b]", False, 'runs=["photos (1)","photos (2)"]'),
        ("x={a: b: {c}", False, "'x=\"{a: b: {c}\"'"),
        ("input='photos (1)", False, "quote"),
        ("input=photos (1),b", True, 'input="photos (1)","photos (2)"'),
        ("seed=rnge(0,3)", True, 'seed="rnge(0,3)"'),
        ("input=a,b.jpg", False, 'input="a,b.jpg"'),
    ],
)
def test_ambiguous_values_are_refused_with_the_right_quotes(override: str, multirun: bool, shown: str) -> None:
    with pytest.raises(ValueError, match=r"give|quote") as error:
        quote_override(override, multirun)
    assert shown in str(error.value)


@pytest.mark.parametrize("argument", ["pooler", "(1)", "a b=1", "=1", "--", "roi align=2"])
def test_arguments_that_are_no_key_value_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="is no key=value"):
        quote_override(argument)


def test_options_may_stand_anywhere() -> None:
    parsed, options, overrides = split_options(["seed=1,2", "-m", "pooler=roipool", "--config-dir", "mine", "x=1"])
    assert parsed.multirun
    assert parsed.config_dir == "mine"
    assert options == ["-m", "--config-dir", "mine"]
    assert overrides == ["seed=1,2", "pooler=roipool", "x=1"]
    with pytest.raises(ValueError, match=r"keys have no dashes \(pooler=roipool\)"):
        split_options(["--pooler=roipool"])


def test_keys_of_the_weights_preset_are_allowed() -> None:
    given = ["weights=w.pkl", "model.heads.select.score=0.1", "pooler=roialign", "hydra.run.dir=x", "seed=1"]
    assert allow_new_keys(given) == [given[0], "++model.heads.select.score=0.1", *given[2:]]
    assert plain_keys(given) == ("model.heads.select.score",)
    assert allow_new_keys(["++weights=w.pkl", given[1]])[1] == "++" + given[1]
    assert allow_new_keys(given[1:]) == given[1:]


def mistake(*overrides: str, name: str = "train") -> str:
    """Return the explanation of Hydra's error on these overrides."""
    try:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            compose(name, overrides=list(overrides))
    except Exception as error:
        return explain(error, name, overrides)
    raise AssertionError("Hydra has composed that")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.step=5", "unknown key 'schedule.step'; did you mean schedule.steps?"),
        ("shedule.step=5", "unknown key 'shedule.step'; did you mean schedule.steps?"),
        ("poler=roialign", "unknown key 'poler'; did you mean pooler?"),
        ("dataset.train.imagesize=5", "did you mean dataset.train.image_size?"),
        ("lr=0.1", "did you mean schedule.optimizer.lr?"),
        ("optimizer.lr=0.1", "did you mean schedule.optimizer.lr?"),
        ("enable_progress_bar=false", "did you mean trainer.enable_progress_bar?"),
        ("dataset.proposals.test.pre_nms=9", "it is called dataset.rpn.test.pre_nms_topk since version 0.2"),
        ("model.heads.select.score=0.1", "it is called model.heads.select.score_thresh since version 0.2"),
        ("model.proposer.matcher.positive=1", "it is called assignment.rpn.high_threshold since version 0.2"),
        ("model.heads.matcher.low_threshold=1", "follows assignment.heads.low_threshold; set that"),
        ("model.backbone.bdy.freeze_at=2", "did you mean model.backbone.body.freeze_at?"),
        ("hydra.run.dri=x", "did you mean hydra.run.dir?"),
        ("~schedule.clp", "did you mean schedule.clip?"),
        (
            "dataset.train.annotations=x.json",
            "unknown key 'dataset.train.annotations' of dataset=shapes_coco; dataset=custom, your own data, has it",
        ),
        ("pooler.xyzzy=1", "unknown key 'pooler.xyzzy'; pooler has assign,"),
        ("xyzzy=1", "unknown key 'xyzzy'; the configuration has"),
        ("schedule.steps.x=1", "schedule has steps,"),
        ("pooler=roialing", "pooler=roialing: did you mean roialign? Choices: crop_and_resize, roialign,"),
        ("logger=foo", "logger=foo: Choices: csv, mlflow, none, tensorboard, wandb"),
        ("model/proposer=givn", "model/proposer=givn: did you mean given? Choices: given, rpn"),
        ("experiment=[coco_1y,dry]", "experiment=coco_1y: did you mean coco_1x? Choices: aitod_rfla,"),
        ("hydra/launcher=slurm", "hydra/launcher=slurm: Choices: basic, joblib"),
        ("pooler=3", "pooler=3: give a name, or leave it out. Choices: crop_and_resize,"),
        ("experiment=null", "experiment=null: give a name, or leave it out. Choices: aitod_rfla,"),
        ("+pooler=roipool", "+pooler=roipool: pooler exists already; give pooler=roipool"),
        ("+seed=3", "+seed=3: seed exists already; give seed=3"),
    ],
)
def test_mistakes_are_explained_with_suggestions(override: str, message: str) -> None:
    said = mistake("backbone=vgg16", override)
    assert message in said
    for advice in ("append", "+schedule", "Search path", "search path", "HYDRA", "struct", "full_key", "\n"):
        assert advice not in said


def test_a_choice_that_is_no_name_is_explained_without_the_overrides() -> None:
    error = ValueError("Config group override must be a string or a list. Got int")
    assert explain(error, "train") == explain(error, "train", ["seed=1"]) == str(error)
    with pytest.raises(ValueError, match=r"backbone=3: give a name, or leave it out\. Choices: extracted_fpn, "):
        compose_inside(["backbone=3"])


def test_suggestions_depend_on_the_other_choices() -> None:
    assert "did you mean pooler.quantization?" in mistake("pooler=roipool", "pooler.quantisation=floor")
    assert "pooler has" in mistake("pooler.quantisation=floor")
    assert "did you mean schedule.steps?" in mistake("schedule.step=5", "poler=x", "seed.x=1")
    assert "did you mean study.seeds?" in mistake("study.seed=[1]", name="ablate")


def test_keys_of_chosen_parts_are_known() -> None:
    known = compose_config("model=mask_rcnn")
    assert unknown_key("model.heads.further.mask.treshold", known).endswith("further.mask.threshold?")


def test_cfg_job_shows_choices_first_and_derived_keys_last() -> None:
    config = compose_config("model=mask_rcnn", "pooler=roipool")
    shown = format_config(config, {"dataset": "shapes", "pooler": "roipool", "experiment": None})
    lines = shown.splitlines()
    assert lines[:4] == ["# Choices", "#   dataset=shapes", "#   pooler=roipool", "#   experiment=null"]
    assert OmegaConf.create(shown) == config
    order = [line.partition(":")[0] for line in lines if line[:1].isalpha()]
    assert order.index("seed") < order.index("schedule") < order.index("backbone") < order.index("model")
    assert order[-2:] == ["classes", "num_classes"]
    assert lines.index("# Keys") < lines.index("# Derived from others") == lines.index("classes: null") - 1
    model = shown[shown.index("\nmodel:") :].partition("\n# ")[0]
    assert model.index("score_thresh:") < model.index("topk_per_image: ${dataset.detections}")


def test_cfg_job_resolves() -> None:
    config = compose_config("schedule.steps=7", name="train")
    shown = OmegaConf.create(format_config(config, {}, resolve=True))
    assert shown.schedule.scheduler.steps == 7
    assert shown.model.backbone.channels == config.backbone.channels
    lost = compose_config(name="alignment")  # refers to a dataset that nobody has chosen
    assert OmegaConf.create(format_config(lost, {}, resolve=True)).stride == 32


class Called(Exception):
    """Carry the arguments of the script's main function out of Hydra."""


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str, name: str = "predict") -> list[DictConfig]:
    given: list[DictConfig] = []

    def main(config: DictConfig, *_: object) -> None:
        given.append(config.copy())
        assert os.environ.get(FULL_ERROR) is None

    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments])
    monkeypatch.delenv(FULL_ERROR, raising=False)
    run(name, main)
    assert os.environ.get(FULL_ERROR) is None
    return given


def test_scripts_get_the_values_of_the_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (config,) = call(monkeypatch, tmp_path, "input=photos (1)/x=1.jpg", "checkpoint=/a/b c", "output=2024")
    assert (config.input, config.checkpoint, config.output) == ("photos (1)/x=1.jpg", "/a/b c", "2024")


def test_the_first_word_chooses_an_action(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[tuple[str, DictConfig]] = []
    monkeypatch.chdir(tmp_path)
    actions = {"check": Action("data_check", lambda config, *_: given.append(("check", config.copy())))}

    def start(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["data.py", *arguments])
        run("data", lambda config, *_: given.append(("table", config.copy())), actions=actions)

    start("check", "dataset=voc07", "most=3")
    start("dataset=voc07")
    start("-m", "data_dir=a")
    start()
    assert [word for word, _ in given] == ["check", "table", "table", "table"]
    assert (given[0][1].most, given[0][1].dataset.name) == (3, "voc07")
    for word, message in (
        ("chek", "error: unknown action 'chek': did you mean check? Actions: check\n"),
        ("xyz", "error: unknown action 'xyz': Actions: check\n"),
    ):
        with pytest.raises(SystemExit) as end:
            start(word, "dataset=voc07")
        assert end.value.code == 1
        assert capsys.readouterr().err == message
    with pytest.raises(SystemExit):
        start("check", "dataset=voc07", "mots=3")
    assert "did you mean most?" in capsys.readouterr().err


def test_a_script_is_called_for_each_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = call(monkeypatch, tmp_path, "input=a,'b (1)'", "-m", "checkpoint=c", "hydra.sweep.dir=s")
    assert [config.input for config in found] == ["a", "b (1)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input=x"], "error: give checkpoint=...: RUN/checkpoints/last.ckpt, "),
        (["input=x", "checkpoint=y", "treshold=1"], "error: unknown key 'treshold'; did you mean threshold?"),
        (["--threshold=1"], "error: unknown option --threshold=1"),
        (["input=[a"], "error: input=[a cannot be parsed"),
        (["-m", "input=x", "checkpoint=y", "hydra/launcher=joblb"], "did you mean joblib?"),
    ],
)
def test_mistakes_give_one_message(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, tmp_path, *arguments)
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_mistakes_raise_with_full_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["predict.py", "treshold=1"])
    monkeypatch.setenv(FULL_ERROR, "1")
    with pytest.raises(Exception, match="treshold"):
        run("predict", print)


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def main(config: DictConfig, *_: object) -> None:
        raise RuntimeError(f"{config.threshold}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["predict.py", "input=x", "checkpoint=y"])
    with pytest.raises(RuntimeError, match=r"0\.5"):
        run("predict", main)


def test_cfg_job_creates_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--cfg", "job"], ["-c", "job", "--resolve"], ["--cfg=job"]):
        assert call(monkeypatch, tmp_path, "pooler=roipool", *option, name="train") == []
        shown = capsys.readouterr().out
        assert shown.startswith("# Choices\n")
        assert "#   pooler=roipool\n" in shown
        assert OmegaConf.create(shown).pooler.operator["_target_"] == "ops.multiscale_roi_pool"
    call(
        monkeypatch,
        tmp_path,
        "weights=torchvision:fasterrcnn_resnet50_fpn",
        "schedule.x.y=1",
        "-c",
        "job",
        name="train",
    )
    shown = capsys.readouterr().out
    assert shown.startswith("# Not shown: the settings that weights=torchvision:fasterrcnn_resnet50_fpn brings")
    assert OmegaConf.create(shown).schedule.x.y == 1
    call(monkeypatch, tmp_path, "-c", "job", "-p", "schedule", name="train")
    assert capsys.readouterr().out.startswith("# @package schedule\nsteps:")
    assert list(tmp_path.iterdir()) == []


def test_hydras_search_path_can_be_extended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "my configs (1)"
    (mine / "pooler").mkdir(parents=True)
    (mine / "pooler" / "mine.yaml").write_text("defaults: [roialign]\nmode: max\n")
    for way in ([f'hydra.searchpath=["file://{mine}"]'], ["--config-dir", str(mine)]):
        call(monkeypatch, tmp_path, *way, "pooler=mine", "--cfg", "job", name="train")
        assert OmegaConf.create(capsys.readouterr().out).pooler.mode == "max"
    with pytest.raises(SystemExit):
        call(monkeypatch, tmp_path, f'hydra.searchpath=["file://{mine}"]', "pooler=mnie", name="train")
    assert "mine" in capsys.readouterr().err
