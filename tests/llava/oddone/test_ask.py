"""The model's verdict beside the method's: asked about the numbered strip and about each doubtful unit."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from llava.oddone.__main__ import main
from tests.support.commands import run_here
from tests.support.drawn_strings import DrawnString

pytest.importorskip("cv2")
pytest.importorskip("scipy")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    DrawnString(odd=11).draw().save(folder / "damaged.jpg")
    Image.new("RGB", (320, 240), (120, 140, 160)).save(folder / "sky.png")
    return folder


def test_both_verdicts_stand_side_by_side(photos: Path, tmp_path: Path, tiny_model_dir: Path) -> None:
    output = tmp_path / "odd"
    done = run_here(
        main, "--image-file", photos, "--output", output, "--model-path", tiny_model_dir, "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    damaged, sky = json.loads((output / "oddone.json").read_text())
    assert damaged["odd"]["sure"] and "model" not in sky  # without a string there is nothing to ask about

    of_strip, of_units = damaged["model"]["strip"], damaged["model"]["units"]
    compared = [index for index, unit in enumerate(damaged["units"]) if not unit["left_out"]]
    oddest = sorted(compared, key=lambda index: -damaged["units"][index]["score"])
    assert of_strip["index"] in compared
    assert 1 / len(compared) <= of_strip["probability"] <= 1
    assert [unit["index"] for unit in of_units] == oddest[:3]
    assert all(0 < unit["p_yes"] < 1 for unit in of_units)

    page = (output / "index.html").read_text()
    assert f"Odd: unit {oddest[0] + 1} of" in page
    named = re.search(r"names unit (\d+) \(probability (.*?)\)", page)
    assert named is not None and int(named[1]) == of_strip["index"] + 1
    assert float(named[2]) == pytest.approx(of_strip["probability"], abs=0.01)
    shown = re.findall(r"unit (\d+)</th><td>.*?</td><td>(.*?)</td>", page)
    assert [int(number) - 1 for number, _ in shown] == oddest[:3]
    assert [float(p_yes) for _, p_yes in shown] == pytest.approx([u["p_yes"] for u in of_units], abs=0.01)


def test_a_model_that_cannot_be_loaded_is_said_before_any_photo_is_looked_at(
    photos: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    done = run_here(main, "--image-file", photos, "--output", tmp_path / "odd", "--model-path", gone)
    assert done.returncode == 2
    assert done.stderr == f"error: {gone}: no such model folder\n" and not done.stdout
    assert not (tmp_path / "odd").exists()
