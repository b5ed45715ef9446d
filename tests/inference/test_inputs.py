"""What `input=` may be, and how results are named after it."""

from pathlib import Path

import pytest

from detector.inference.inputs import find_inputs


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = ["a.jpg", "a.png", "2024/b.JPG", "2024/deep/c.tif", ".hidden/d.png", "found/e.png", "clip.mp4", "notes.txt"]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def names(given: object, **options: object) -> list[tuple[str, str]]:
    return [(i.name, i.stem) for i in find_inputs(given, **options)]  # type: ignore[arg-type]


def test_a_folder_is_searched_with_those_below_it(photos: Path) -> None:
    below = [("2024/b.JPG", "2024/b"), ("2024/deep/c.tif", "2024/deep/c"), ("a.jpg", "a.jpg"), ("a.png", "a.png")]
    assert names("photos", output=photos / "found") == below
    assert names("photos") == [*below, ("found/e.png", "found/e")]
    assert [i.path for i in find_inputs("photos/2024")] == [Path("photos/2024/b.JPG"), Path("photos/2024/deep/c.tif")]
    assert names("photos/2024")[0] == ("b.JPG", "b")


def test_an_image_and_a_video_are_named_by_themselves(photos: Path) -> None:
    assert names(str(photos / "a.jpg")) == [("a.jpg", "a")]
    (video,) = find_inputs("photos/clip.mp4")
    assert (video.name, video.is_video) == ("clip.mp4", True)


def test_a_pattern_keeps_the_folders_behind_its_fixed_part(photos: Path) -> None:
    assert names("photos/*/*.JPG") == [("2024/b.JPG", "2024/b")]
    assert names("photos/**/*.*", output=photos / "found") == [
        ("2024/b.JPG", "2024/b"),
        ("2024/deep/c.tif", "2024/deep/c"),
        ("a.jpg", "a.jpg"),
        ("a.png", "a.png"),
        ("clip.mp4", "clip"),
    ]
    (photos / "x[1].png").touch()
    assert names("photos/x[1].png") == [("x[1].png", "x[1]")]  # the file, not a pattern


def test_names_come_from_standard_input(photos: Path) -> None:
    lines = ["photos/2024/b.JPG\n", "photos/a.png\r\n", "\n", "photos/a.png\n", "photos/none.png"]
    assert names("-", lines=lines) == [("2024/b.JPG", "2024/b"), ("a.png", "a"), ("none.png", "none")]
    assert names(["photos/2024", "photos/a.png"]) == [
        ("2024/b.JPG", "2024/b"),
        ("2024/deep/c.tif", "2024/deep/c"),
        ("a.png", "a"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none", r"input 'none': no such file or folder"),
        ("photos/*.bmp", r"'photos/\*\.bmp': the pattern matches no image or video$"),
        ("photos/*.txt", r"no image or video, but 1 others, such as photos/notes\.txt"),
        ("videos", r"the folder has no images.*it has 1 videos"),
        ("-", r"standard input has no names"),
        ([], r"names no image"),
    ],
)
def test_what_is_not_there_is_named(photos: Path, given: object, message: str) -> None:
    (photos.parent / "videos").mkdir()
    (photos.parent / "videos" / "clip.MOV").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_inputs(given, lines=[])  # type: ignore[arg-type]
