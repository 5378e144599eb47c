"""What `python -m data_prep convert` refuses, and how it says so."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_prep.__main__ import main as data_prep
from data_prep.commands.problems import FEW, problem_lines
from llava.common.errors import InputError
from tests.support.photos import needs_bytes_as_names, write_boxes, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set", 12)


def spoil(source: Path, how: str) -> list[str]:
    """Damage the copy `source` in one way; returns what the error must name."""
    first, second = sorted((source / "annotations").glob("*.xml"))[:2]
    image = source / "images" / f"{first.stem}.jpg"
    if how == "cut xml":
        first.write_text(first.read_text()[:90])
        return [first.name, "cut short"]
    if how == "two bad xml":
        first.write_text("<annotation>")
        second.write_text("")
        return [first.name, second.name, "2 annotation file(s)", "nothing was written"]
    if how == "truncated picture":
        image.write_bytes(image.read_bytes()[:-300])
        return [image.name, "cut short"]
    if how == "picture absent":
        image.unlink()
        return [first.name, "no picture"]
    if how == "unknown class":
        first.write_text(first.read_text().replace(">insulator<", ">pylon<"))
        return [first.name, "pylon", "to the aliases of a component or defect, to sound or to ignore"]
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how", ["cut xml", "two bad xml", "truncated picture", "picture absent", "unknown class"]
)
def test_bad_photos_leave_nothing_behind(repo: Path, tmp_path: Path, how: str) -> None:
    source = write_photos(tmp_path / "photos", 12)
    named = spoil(source, how)
    done = run_command(repo, "--source", source, "--output", tmp_path / "out" / "data")
    assert done.returncode == 2
    assert all(word in done.stderr for word in named), done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == (3 if how == "two bad xml" else 1) and lines[-1].startswith("error: ")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def run_command(repo: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    recipe = repo / "configs" / "recipes" / "insulator.yaml"
    command = [sys.executable, "-m", "data_prep", "convert", "--recipe", recipe, *arguments]
    return subprocess.run(list(map(str, command)), cwd=repo, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "{tmp}/absent"], "no such folder"),
        (["--source", "{tmp}/empty"], "no pictures and no annotations in it or below"),
        (["--source", "{photos}", "families.knd.times=2"], "families.knd"),
        (["--source", "{photos}", "pictres.max_side=9"], "did you mean 'pictures'"),
        (["--source", "{photos}", "--recipe", "{tmp}/absent.yaml"], "absent.yaml: no such file"),
        (["--source", "{photos}", "--test-source", "{photos}"], "same folder"),
        (["--source", "{photos}", "--output", "{photos}/out"], "inside the other"),
        (["--source", "{photos}", "--splits", "1,2"], "three shares"),
        (["--source", "{photos}", "--workers", "0"], "1 or more"),
        (["--source", "{photos}", "--output", "{tmp}/file/out"], "file/out: cannot be written"),
    ],
)
def test_bad_arguments(repo: Path, photos: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    filled = [argument.format(tmp=tmp_path, photos=photos) for argument in arguments]
    done = run_command(repo, "--output", tmp_path / "out", *filled)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1], done.stderr
    assert not (tmp_path / "out").exists()


def test_help_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_prep(["--help"]) == 0
    assert "convert" in capsys.readouterr().out
    with pytest.raises(InputError, match="no command 'convrt'; choose inspect, convert"):
        data_prep(["convrt"])


@needs_bytes_as_names
def test_names_that_are_not_utf8_are_refused_in_one_line(repo: Path, tmp_path: Path) -> None:
    def convert(source: Path) -> int:
        recipe, output = repo / "configs" / "recipes" / "insulator.yaml", tmp_path / "out"
        options = ["--source", str(source), "--recipe", str(recipe), "--output", str(output)]
        return data_prep(["convert", *options])

    photos = write_photos(tmp_path / "photos", count=12)
    first = min((photos / "images").iterdir())
    first.rename(os.fsdecode(os.fsencode(first.with_name("caf")) + b"\xe9.jpg"))
    with pytest.raises(InputError, match=r"images/caf\\udce9\.jpg: its name is not UTF-8; rename it"):
        convert(photos)
    assert not (tmp_path / "out").exists()
    photos.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    with pytest.raises(InputError, match=r"/\\udcff: its name is not UTF-8; rename the folder"):
        convert(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")))


def test_thirty_problems_of_several_sorts_can_be_read(repo: Path, tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos", 36)
    files = sorted((source / "annotations").glob("*.xml"))
    for file in files[:16]:
        file.write_text(file.read_text()[:-20])
    for file in files[16:26]:
        (source / "images" / f"{file.stem}.jpg").unlink()
    for file in files[26:30]:
        file.write_text(file.read_text().replace("<xmin>5</xmin>", "<xmin>left</xmin>"))
    done = run_command(repo, "--source", source, "--output", tmp_path / "out")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert len(lines) <= 3 * 4 + 1, done.stderr
    # The commonest sort comes first, with examples and how many more there are.
    assert all("not valid XML" in line and line.startswith("problem: ") for line in lines[:3])
    assert lines[3] == "  ... and 13 more like these"
    assert all(files[26].parent.name in line for line in lines if line.startswith("problem: "))
    assert [line for line in lines if "more like these" in line][1] == "  ... and 7 more like these"
    assert sum("'left'" in line for line in lines) == 3 and lines[-2] == "  ... and 1 more like these"
    assert lines[-1].startswith("error: 30 annotation file(s) cannot be used (examples above; ")
    assert "data_prep inspect" in lines[-1] and lines[-1].endswith("nothing was written")
    # That command has every one of them, and says the same on the console.
    page = tmp_path / "page.html"
    command = [sys.executable, "-m", "data_prep", "inspect", "--source", source, "--output", page]
    shown = subprocess.run(list(map(str, command)), cwd=repo, capture_output=True, text=True, check=True)
    text = page.read_text()
    assert all(file.name in text for file in files[:30])
    assert all(line in shown.stdout for line in lines[:-1])


def test_few_problems_are_all_listed_like_beside_like() -> None:
    problems = [f"/a/{number}.xml: {('cut short', 'no picture')[number % 2]}" for number in range(FEW)]
    lines = problem_lines(problems)
    assert sorted(lines) == sorted(f"problem: {problem}" for problem in problems)
    assert all("cut short" in line for line in lines[: FEW // 2])


def test_a_thousand_problems_take_a_screen() -> None:
    words = [f"fault{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(100)]
    problems = [f"/a/{number}.xml: {words[number % 100]}" for number in range(1000)]
    lines = problem_lines([*problems, "/a/b\x1b.xml: faultaa"])
    assert len(lines) < 60 and lines[-1] == "  ... and 880 of 88 more kinds"
    assert not any("\x1b" in line for line in lines)


def test_an_unknown_class_points_to_the_recipe_that_knows_it(tmp_path: Path) -> None:
    places = [(9, 9, 30, 30), (50, 9, 70, 30)]
    boxes = [[("insulator", (5, 5, 75, 43)), ("defect", place)] for place in places]
    source = write_boxes(tmp_path / "photos", *boxes)
    convert = ["convert", "--source", str(source), "--output", str(tmp_path / "out"), "--recipe"]
    with pytest.raises(InputError) as caught:
        data_prep([*convert, "insulator"])
    assert "; --recipe defect knows all classes here; `python -m data_prep inspect" in str(caught.value)
    assert str(caught.value).endswith(f"--source {source} --write-recipe my.yaml` makes a recipe of them")
    assert data_prep([*convert, "defect"]) == 0
