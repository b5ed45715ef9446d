"""The folder of the results: an earlier prediction's files are removed, and never anything else."""

import subprocess
from pathlib import Path

import pytest

from detector.inference.output_folder import LIST, UNFINISHED, OutputFolder, earlier_files


def write(path: Path, **files: str) -> None:
    folder = OutputFolder(path)
    for name, text in files.items():
        folder.write_text(name.replace("__", "/") + ".txt", text)
    folder.close()


def content(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}


def test_files_of_an_earlier_prediction_are_removed(tmp_path: Path) -> None:
    write(tmp_path / "out", a="1", sub__deep__b="2", c="3")
    assert content(tmp_path / "out") == {"a.txt", "sub/deep/b.txt", "c.txt", LIST}
    (tmp_path / "out" / "c.txt").unlink()  # the user may remove some
    write(tmp_path / "out", a="4")
    assert content(tmp_path / "out") == {"a.txt", LIST}
    assert not (tmp_path / "out" / "sub").exists()
    assert (tmp_path / "out" / "a.txt").read_text() == "4"


def test_the_list_is_one_of_sha256sum(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    for name in ("plain.txt", "with blank.txt", "back\\slash.txt", "new\nline.txt"):
        folder.write_text(name, name)
    folder.close()
    command = ["sha256sum", "--check", "--strict", "--quiet", LIST]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(earlier_files(tmp_path / "out")) == 4


@pytest.mark.parametrize("kind", ["foreign", "changed", "link", "folder", "unlisted"])
def test_what_is_not_of_a_prediction_is_kept(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "out", a="1", b="2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("1")
    out, name = tmp_path / "out", "photo.jpg"
    if kind == "foreign":
        (out / name).write_text("mine")
    elif kind == "changed":
        (out / (name := "a.txt")).write_text("corrected")
    elif kind == "link":
        (out / (name := "a.txt")).unlink()
        (out / "a.txt").symlink_to(tmp_path / "mine" / "photo.jpg")
    elif kind == "folder":
        (out / (name := "link")).symlink_to(tmp_path / "mine")
    else:
        (out / LIST).unlink()
        name = "a.txt"
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match=rf"'.*out' holds more than .*{name}.*Nothing is removed: give another"):
        OutputFolder(out)
    assert content(tmp_path) == before
    assert (tmp_path / "mine" / "photo.jpg").read_text() == "1"


def test_a_list_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("1")
    write(tmp_path / "out", a="1")
    digest = (tmp_path / "out" / LIST).read_text().split()[0]
    with (tmp_path / "out" / LIST).open("a") as file:
        file.write(f"{digest}  ../mine.txt\n{digest}  {tmp_path}/mine.txt\n")
    write(tmp_path / "out")
    assert content(tmp_path) == {"mine.txt", f"out/{LIST}"}


def test_an_empty_folder_and_none_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    write(tmp_path / "empty", a="1")
    write(tmp_path / "new" / "deep", a="1")
    assert (tmp_path / "empty" / "below").is_dir()
    with pytest.raises(NotADirectoryError, match=r"a\.txt' is a file"):
        OutputFolder(tmp_path / "empty" / "a.txt")


def test_what_was_not_finished_has_no_name(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.write_text("a.txt", "1")
    with pytest.raises(FileNotFoundError), folder.writing("b.txt") as path:
        (path.parent / "none" / path.name).write_text("fails")
    assert content(tmp_path / "out") == {"a.txt", LIST}
    assert (tmp_path / "out" / UNFINISHED).is_dir()
    write(tmp_path / "out", c="3")  # as after a kill, without `close`
    assert content(tmp_path / "out") == {"c.txt", LIST}
    assert not (tmp_path / "out" / UNFINISHED).exists()


def test_two_results_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.write_text("masks/a.png", "1")
    with pytest.raises(ValueError, match=r"masks/a\.png: two results would have this name"):
        folder.write_text("masks/a.png", "2")
    assert (tmp_path / "out" / "masks" / "a.png").read_text() == "1"
