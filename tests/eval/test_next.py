"""Which photos of a survey are labelled next."""

import csv
import json
from pathlib import Path
from shutil import rmtree

import pytest

from eval.next import choose, main
from llava.common.errors import InputError
from tests.support.found import finding, write_survey


def photos(*found, count: int = 99) -> list[str]:
    return [one.finding.photo for one in choose(found, count)]


def test_the_least_sure_come_first() -> None:
    """The model's answer is "no defect" or "a defect of this kind"; it is as sure as its likelier answer."""
    sure = finding("1", "sure.jpg", kind="nest", p_yes=0.99, kind_probability=0.99)
    which = finding("2", "which.jpg", kind="nest", p_yes=0.99, kind_probability=0.4)
    whether = finding("3", "whether.jpg", kind="nest", p_yes=0.5, kind_probability=0.98)
    nearly = finding("4", "nearly.jpg", kind="nest", p_yes=0.05, kind_probability=0.4)
    assert photos(sure, which, whether, nearly) == ["which.jpg", "whether.jpg", "nearly.jpg", "sure.jpg"]
    assert [round(one.uncertainty, 3) for one in choose([sure, which, whether, nearly], 2)] == [0.604, 0.5]


def test_kinds_take_turns() -> None:
    nests = [finding(f"n{n}", f"nest{n}.jpg", kind="nest", p_yes=0.5 + n / 100) for n in range(9)]
    cracks = [finding(f"c{n}", f"crack{n}.jpg", kind="crack", p_yes=0.9 + n / 100) for n in range(3)]
    sound = [finding(f"s{n}", f"sound{n}.jpg", "sound", p_yes=0.4 - n / 100) for n in range(9)]
    chosen = photos(*nests, *cracks, *sound, count=12)
    assert sorted(name[:-5] for name in chosen) == ["crack"] * 3 + ["nest"] * 5 + ["sound"] * 4
    assert set(chosen[:3]) == {"nest0.jpg", "crack0.jpg", "sound0.jpg"}


def test_a_photo_of_two_kinds_costs_none_of_them_its_turn() -> None:
    both = [
        finding(f"{kind}{n}", f"{n}.jpg", kind=kind, p_yes=0.6)
        for n in range(6)
        for kind in ("nest", "crack")
    ]
    of = [one.of for one in choose(both, 6)]
    assert sorted(of) == ["crack"] * 3 + ["nest"] * 3


def test_what_was_never_seen_has_its_turn_the_most_unlike_first() -> None:
    usual = [finding(f"{n}", f"usual{n}.jpg", "sound", p_yes=0.5, novelty=0.3) for n in range(5)]
    unlike = finding("a", "unlike.jpg", "sound", p_yes=0.01, novelty=0.04)
    most = finding("b", "most.jpg", "ask", p_yes=0.01, novelty=0.002, reason="never seen")
    chosen = choose([*usual, unlike, most], 4)
    assert [one.finding.photo for one in chosen if one.of == "never seen"] == ["most.jpg", "unlike.jpg"]


def test_one_photo_of_a_burst_and_none_that_cannot_be_read() -> None:
    burst = finding("1", "a.jpg", kind="nest", p_yes=0.6, photos=["a.jpg", "b.jpg"])
    also = finding("2", "b.jpg", kind="crack", p_yes=0.7, photos=["b.jpg", "a.jpg"])
    other = finding("3", "c.jpg", kind="crack", p_yes=0.9)
    unreadable = finding("4", "d.jpg", "ask", reason="unreadable", problem="cut short")
    assert photos(burst, also, other, unreadable) == ["a.jpg", "c.jpg"]


def test_the_command_writes_tasks_in_that_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A photo that nothing was found in is written all the same: it is there to be labelled."""
    box = (0.1, 0.2, 0.5, 0.8)
    survey = write_survey(
        tmp_path,
        finding("1", "sure.jpg", kind="nest", p_yes=0.99, box=box),
        finding("2", "unsure.jpg", kind="nest", p_yes=0.6, box=box),
        finding("3", "sound.jpg", "sound", p_yes=0.3),
        kinds=("nest",),
    ).parent
    assert main(["--survey", str(survey), "--count", "2"]) == 0
    assert "2 photos to label: 1 nest, 1 sound" in capsys.readouterr().out
    folder = survey / "next"
    rows = list(csv.DictReader((folder / "next.csv").open(encoding="utf-8-sig")))
    assert [(row["photo"], row["of"], row["uncertainty"]) for row in rows] == [
        ("unsure.jpg", "nest", "0.4000"),
        ("sound.jpg", "sound", "0.3000"),
    ]
    first, second = json.loads((folder / "label-studio" / "tasks.json").read_text())
    assert first["data"]["image"].endswith("unsure.jpg") and "predictions" not in second
    assert (folder / "yolo" / "labels" / "sound.txt").read_text() == ""
    written = (folder / "next.csv").read_bytes()
    rmtree(folder / "cvat")
    with pytest.raises(InputError, match=r"next\.csv exists already"):
        main(["--survey", str(survey), "--count", "1", "--format", "cvat"])
    assert (folder / "next.csv").read_bytes() == written, "the other tools' files are of these photos"


def test_a_survey_of_unreadable_photos_is_refused(tmp_path: Path) -> None:
    survey = write_survey(
        tmp_path, finding("1", "a.jpg", "ask", reason="unreadable", problem="cut short")
    ).parent
    with pytest.raises(InputError, match="no photo could be read and answered"):
        main(["--survey", str(survey)])
