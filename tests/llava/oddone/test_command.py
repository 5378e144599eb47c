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


def test_a_box_is_of_one_photo(photos: Path, tmp_path: Path) -> None:
    done = run_here(main, "--image-file", photos, "--box", "1,2,300,400", "--output", tmp_path)
    assert done.returncode == 2 and "--box is of one photo" in done.stderr


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    done = run_here(main, "--image-file", tmp_path, "--output", tmp_path / "odd")
    assert done.returncode == 2 and "no photos lie in this folder" in done.stderr
