"""The command: its page, JSON and pictures, and what it says of bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from llava.oddone.__main__ import main
from tests.support.commands import run_here
from tests.support.drawn_strings import DrawnString

pytest.importorskip("cv2")
pytest.importorskip("scipy")

KINDS = ("units", "strip", "scores", "neighbours", "cut_out")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    DrawnString(odd=11).draw().save(folder / "damaged.jpg")
    Image.new("RGB", (320, 240), (120, 140, 160)).save(folder / "sky.png")
    return folder


def test_a_folder_becomes_a_page_without_torch(photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from llava.oddone.__main__ import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--image-file", photos, "--output", tmp_path / "odd"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "It stands out clearly" in done.stdout
    damaged, sky = json.loads((tmp_path / "odd" / "oddone.json").read_text())
    assert damaged["photo"].endswith("damaged.jpg") and damaged["odd"]["sure"]
    assert sky["odd"] is None and "No string was found" in sky["warnings"][0]
    for kind in KINDS:
        Image.open(tmp_path / "odd" / f"damaged_{kind}.png").load()
    page = (tmp_path / "odd" / "index.html").read_text()
    assert page.count("data:image/jpeg") == len(KINDS) + 1
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--box", "1,2,3"], "'1,2,3' is no box; give x1,y1,x2,y2"),
        (
            ["--box", "2000,2000,2100,2100"],
            "damaged.jpg: box 2000,2000,2100,2100 is empty or outside the photo",
        ),
        (["--axis", "50"], "damaged.jpg: axis 50"),
    ],
)
def test_bad_input_is_one_line(photos: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run_here(main, "--image-file", photos / "damaged.jpg", "--output", tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_bad_photos_are_listed_at_the_end_and_cost_no_others(photos: Path, tmp_path: Path) -> None:
    good = (photos / "damaged.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(good[: len(good) // 2])
    (tmp_path / "b.jpg").write_text("no picture")
    (tmp_path / "c.jpg").write_bytes(good)
    done = run_here(main, "--image-file", tmp_path, "--output", tmp_path / "odd")
    assert done.returncode == 2
    summary, first, second = done.stderr.splitlines()[-3:]
    assert summary == "error: 2 of 3 photos could not be looked at:"
    assert f"{tmp_path}/a.jpg: the picture is damaged or cut short" in first
    assert f"{tmp_path}/b.jpg: not a picture" in second
    found, *left_out = json.loads((tmp_path / "odd" / "oddone.json").read_text())
    assert found["photo"].endswith("c.jpg") and found["odd"]["sure"]
    assert [Path(row["photo"]).name for row in left_out] == ["a.jpg", "b.jpg"]
    assert all(row["problem"] for row in left_out)
    page = (tmp_path / "odd" / "index.html").read_text()
    assert "not a picture that Pillow can read" in page and page.count("data:image/jpeg") == len(KINDS)


def test_photos_of_one_name_keep_their_own_pictures(photos: Path, tmp_path: Path) -> None:
    sizes = {"x/a.jpg": (300, 200), "y/a.jpg": (310, 200), "y/A.png": (320, 200), "y/a_2.png": (330, 200)}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (120, 140, 160)).save(tmp_path / name)
    named = [tmp_path / "x", tmp_path / "y", tmp_path / "x" / "a.jpg"]
    done = run_here(main, "--image-file", *named, "--output", tmp_path / "odd")
    assert done.returncode == 0, done.stderr
    shown = [Image.open(file).size for file in (tmp_path / "odd").glob("*_units.png")]
    assert sorted(shown) == sorted(sizes.values())
    page = (tmp_path / "odd" / "index.html").read_text()
    assert all(page.count(str(tmp_path / name)) == 2 for name in sizes)


def test_a_photo_that_is_not_there_is_said_first(photos: Path, tmp_path: Path) -> None:
    named = [photos, tmp_path / "gone.jpg"]
    done = run_here(main, "--image-file", *named, "--output", tmp_path / "odd")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'gone.jpg'}: no such photo or folder\n"
    assert not (tmp_path / "odd").exists()


def test_a_box_is_of_one_photo(photos: Path, tmp_path: Path) -> None:
    done = run_here(main, "--image-file", photos, "--box", "1,2,300,400", "--output", tmp_path)
    assert done.returncode == 2 and "--box is of one photo" in done.stderr


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    done = run_here(main, "--image-file", tmp_path, "--output", tmp_path / "odd")
    assert done.returncode == 2 and "no photos lie in this folder" in done.stderr
