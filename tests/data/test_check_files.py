"""Annotation files are checked in each format, joined or one for all splits, and written again without the faults."""

import io
import json
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console

from detector.config.check import check
from detector.config.convert import convert
from detector.config.show_data import show_data
from detector.config.stats import stats
from detector.config.summary import print_summary
from tests.data.check_cases import HEIGHT, VAL, WIDTH, Files, run, texture, truncate


def test_all_faults_are_told_at_once_and_can_be_cleaned(files: Files, composed: DictConfig) -> None:
    files.object(3).update(bbox="none")
    files.object(5).update(image_id=70)
    files.object(7).update(bbox=[4, 5, 0, 0])
    files.object(9).update(bbox=[-4, 5, 32, 30])
    files.object(11).update(area=-5)
    files.train["images"][9]["height"] = 0
    files.image("train2.png").unlink()
    truncate(files.image("val1.png"))
    files.write()
    printed, message = run(files, composed, fix=str(files.folder / "clean.json"))
    assert message is not None
    for word in ("annotations[2]", "annotations[4]", "annotation 7", "annotation 9", "annotation 11", "images[9]"):
        assert word in printed
    assert "train2.png" in printed
    assert "val1.png" in printed
    assert "missing images: 1" in message
    assert "annotations that cannot be read: 2" in message
    assert f"dataset.train.annotations={files.folder}/clean_train.json" in printed
    table = json.loads((files.folder / "clean_train.json").read_text())
    assert [image["file_name"] for image in table["images"]] == [f"train{i}.png" for i in (1, 3, 4, 5, 6, 7, 8, 9)]
    found = {a["id"]: a for a in table["annotations"]}
    assert set(found) == {1, 2, 6, *range(8, 19)}
    assert found[9]["bbox"] == [0, 5, 28, 30]
    assert "area" not in found[11]
    assert found[1] == files.object(1)
    again = Files(files.folder, table, json.loads((files.folder / "clean_val.json").read_text()))
    again.write()
    assert run(again, composed)[1] is None


def test_cleaned_files_keep_what_else_the_files_say(files: Files, composed: DictConfig) -> None:
    files.train |= {"info": {"year": 2026}, "licenses": [{"id": 1, "name": "CC0"}]}
    for image in files.train["images"]:
        image |= {"license": 1, "camera": f"c{image['id']}"}
    for annotation in files.train["annotations"]:
        annotation |= {"attributes": {"occluded": annotation["id"] % 2 == 0}, "track": annotation["id"] * 10}
        annotation["id"] = 1 + annotation["id"] // 2  # repeated, so that they are numbered anew
    files.train["annotations"][2].update(bbox="none")
    files.train["annotations"][4].update(area=-5)
    files.train["images"][9]["height"] = 0
    files.train["categories"][0]["supercategory"] = "animal"
    files.write()
    assert run(files, composed, fix=str(files.folder / "clean.json"))[1] is not None
    written = json.loads((files.folder / "clean_train.json").read_text())
    assert {key: written[key] for key in ("info", "licenses")} == {
        key: files.train[key] for key in ("info", "licenses")
    }
    assert written["images"] == files.train["images"][:9]
    assert [a["track"] for a in written["annotations"]] == [10 * i for i in range(1, 19) if i != 3]
    assert all(a["attributes"] == {"occluded": a["track"] % 20 == 0} for a in written["annotations"])
    assert "area" not in written["annotations"][3]
    assert written["categories"][0]["supercategory"] == "animal"


def test_cleaned_joined_files_keep_what_else_each_says(files: Files, composed: DictConfig) -> None:
    files.train["images"][0]["camera"] = "one"
    files.val["images"][0]["camera"] = "two"  # the ids of both begin with 1
    files.val["annotations"][0]["track"] = 7
    files.val["info"] = {"year": 2026}
    files.write()
    config = composed.copy()
    for name in ("train", "val"):
        config.dataset[name].images = str(files.folder)
        config.dataset[name].annotations = [str(files.folder / f"{part}.json") for part in ("train", "val")]
    config.fix = str(files.folder / "clean.json")
    check(config, [], files.folder, Console(file=io.StringIO(), width=400))
    written = json.loads((files.folder / "clean_train.json").read_text())
    assert written["info"] == {"year": 2026}
    cameras = {Path(image["file_name"]).name: image["camera"] for image in written["images"] if "camera" in image}
    assert cameras == {"train1.png": "one", "val1.png": "two"}
    assert [a["image_id"] for a in written["annotations"] if "track" in a] == ["val:1"]


def test_cleaned_files_are_not_overwritten(files: Files, composed: DictConfig) -> None:
    (files.folder / "clean_val.json").write_text("mine")
    _, message = run(files, composed, fix=str(files.folder / "clean.json"))
    assert "clean_val.json exist already" in str(message)
    assert (files.folder / "clean_val.json").read_text() == "mine"
    assert not (files.folder / "clean_train.json").exists()
    assert run(files, composed, fix=str(files.folder / "clean.json"), overwrite=True)[1] is None
    assert len(json.loads((files.folder / "clean_val.json").read_text())["images"]) == VAL
    assert "fix=clean.txt" in str(run(files, composed, fix="clean.txt")[1])


def test_objects_of_joined_files_are_named_by_their_own_file(files: Files, composed: DictConfig) -> None:
    halves = [{**files.train, "images": files.train["images"][k::2]} for k in (0, 1)]
    for k, half in enumerate(halves):
        here = {image["id"] for image in half["images"]}
        objects = [a for a in files.train["annotations"] if a["image_id"] in here]
        (files.folder / f"part{k}.json").write_text(json.dumps({**half, "annotations": objects}))
    files.object(3).update(bbox=[-9, 5, 37, 30])  # train2.png
    files.train["annotations"].append({**files.object(4), "id": 99})
    objects = [a for a in files.train["annotations"] if a["image_id"] % 2 == 0]
    (files.folder / "part1.json").write_text(json.dumps({**halves[1], "annotations": objects}))
    config = composed.copy()
    for name in ("train", "val"):
        config.dataset[name].images = str(files.folder)
    config.dataset.val.annotations = str(files.folder / "val.json")
    config.dataset.train.annotations = [str(files.folder / f"part{k}.json") for k in (0, 1)]
    out = io.StringIO()
    check(config, [], files.folder, Console(file=out, width=400))
    image = f"{files.folder}/train2.png"
    assert f"part1.json: annotation 3 of {image}, cat [-9.0, 5.0, 37.0, 30.0]" in out.getvalue()
    assert f"part1.json: annotation 99 of {image}, dog " in out.getvalue()
    assert f" is annotation 4 of {image} again" in out.getvalue()


@pytest.mark.parametrize("name", ["train", "val", "train_augment", "val_augment"])
def test_parts_that_are_null_are_answered(name: str, composed: DictConfig, tmp_path: Path) -> None:
    config = composed.copy()
    config.dataset[name] = None
    OmegaConf.set_struct(config, False)
    config.update({"to": "coco", "output": str(tmp_path / "out"), "draws": 1, "seed": 0, "page": None})
    for work, images in ((check, 1), (stats, 1), (show_data, 1), (print_summary, 1), (convert, "copy")):
        config.images = images
        with pytest.raises(ValueError, match=rf"^dataset\.{name}=null: "):
            work(config, [], tmp_path, Console(file=io.StringIO()))


def test_the_parts_of_one_file_are_checked_together(files: Files, composed: DictConfig) -> None:
    truncate(files.image("train3.png"))
    files.object(7).update(bbox="none")
    files.write()
    config = composed.copy()
    OmegaConf.set_struct(config, False)
    for name in ("train", "val"):
        config.dataset[name].annotations = None
        config.dataset[name].images = str(files.folder)
    config.dataset.annotations, config.dataset.val_share = str(files.folder / "train.json"), 0.3
    wanted = "annotations that cannot be read: 1, images that cannot be read: 1"
    with pytest.raises(ValueError, match=f"refuse custom: {wanted};"):
        check(config, [], files.folder, Console(file=io.StringIO()))


def described(name: str, boxes: list[tuple[int, int, int, int]]) -> str:
    objects = "".join(
        f"<object><name>cat</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for a, b, c, d in boxes
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def test_xml_files_are_checked_one_by_one(tmp_path: Path, composed: DictConfig) -> None:
    for split_name in ("train", "val"):
        folder = tmp_path / split_name
        folder.mkdir()
        for i in range(12):
            Image.fromarray(texture(i + 50 * (split_name == "val"))).save(folder / f"{i}.png")
            (folder / f"{i}.xml").write_text(described(f"{i}.png", [(5, 6, 28, 35)]))
    files, config = tmp_path / "train", composed.copy()
    config.dataset.train.annotations, config.dataset.val.annotations = str(files), str(tmp_path / "val")
    out = io.StringIO()
    check(config, [], tmp_path, Console(file=out, width=400))
    assert out.getvalue() == "nothing is wrong\n"
    (files / "1.xml").write_text("<annotation>")
    (files / "2.xml").write_text(described("2.png", [(5, 6, 28, 35)]).replace("<xmin>5", "<xmin>five"))
    (files / "3.xml").unlink()
    (files / "4.png").unlink()
    (files / "5.xml").write_text(
        described("5.png", [(5, 6, 28, 35), (9, 9, 8, 20), (200, 6, 220, 35), (60, 6, 120, 35)])
    )
    truncate(files / "6.png")
    with pytest.raises(ValueError, match="XML files that cannot be read: 2, images that cannot be read: 1") as error:
        check(config, [], tmp_path, Console(file=out, width=400))
    assert "images without an XML file: 1, missing images: 1" in str(error.value)
    printed = out.getvalue()
    for name in ("1.xml: not XML", "2.xml: 'five'", "3.xml: no such", "4.jpg: no such image", "6.png: unreadable"):
        assert f"train/{name}" in printed
    for number, kind in ((2, "boxes without area"), (3, "boxes outside"), (4, "boxes that are cut")):
        line = printed[printed.index(f"\n{kind}") :].splitlines()[2]
        assert f"5.xml: object {number}, cat" in line


def test_lines_of_yolo_are_checked_one_by_one(tmp_path: Path, composed: DictConfig) -> None:
    for kind in ("images", "labels"):
        for split_name in ("train", "val"):
            (tmp_path / kind / split_name).mkdir(parents=True)
    for split_name in ("train", "val"):
        for i in range(12):
            Image.fromarray(texture(i + 50 * (split_name == "val"))).save(tmp_path / "images" / split_name / f"{i}.png")
            (tmp_path / "labels" / split_name / f"{i}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    (tmp_path / "labels" / "train" / "3.txt").write_text("0 0.5 0.5 0.25 0.25\n7 0.5 0.5 0.25 0.25\n0 1 2\n")
    (tmp_path / "images" / "train" / "5.png").write_text("no image")
    config = composed.copy()
    config.dataset.train.annotations = config.dataset.val.annotations = str(tmp_path / "data.yaml")
    out = io.StringIO()
    with pytest.raises(ValueError, match="images that cannot be read: 1, lines that cannot be read: 2"):
        check(config, [], tmp_path, Console(file=out, width=400))
    for name in ("3.txt:2: class number 7", "3.txt:3: 3 numbers", "5.png: "):
        assert name in out.getvalue()
