"""`llava-inspect survey`: photos in, a register out; killed anywhere, the same register in the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.answering.questions import make_answer
from eval.survey.findings import Finding, Findings
from eval.survey.photos import read_photos
from llava.common.errors import InputError
from llava.common.files import write_json
from llava.common.images import open_image
from llava.common.records import Answer, Question
from llava.novelty.pvalue import PValues
from llava_inspect.bursts import group_bursts
from llava_inspect.survey import _novelty_warnings, main
from tests.support.certified import certified
from tests.support.paths import REPO
from tests.support.small_model import image
from tests.support.surveyed import exif, write_photo
from tests.support.warm import WarmProcess

RECIPE = """
unit: tile
tiles: {side: 200, overlap: 0.25, whole: false}
defects: [{name: crack}, {name: rust}]
families:
  presence: {questions: ["Is there a defect?"]}
  kind: {questions: ["What is wrong?"]}
  box: {family: where, type: box, of: each, questions: ["Give the box of the {kind}."]}
boxes: {frame: whole, decimals: 2}
"""


def survey(photos: Path, output: Path, model: Path, *arguments: object) -> Findings:
    command = [
        "--photos",
        str(photos),
        "--model-path",
        str(model),
        "--device",
        "cpu",
        "--output",
        str(output),
    ]
    assert main([*command, *map(str, arguments)]) == 0
    return Findings.model_validate_json((output / "findings.json").read_text(encoding="utf-8"))


class RedIsACrack:
    """A model that says that a picture has a crack where it is red."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []  # of the pictures that it saw

    def answers(self, questions: Sequence[Question], images: Mapping[str, Path]) -> Iterator[Answer]:
        for question in questions:
            picture = open_image(images[question.images[0]])
            self.sizes.append(picture.size)
            red = picture.getchannel("R").point(lambda value: 255 if value > 200 else 0).getbbox()
            p = 0.9 if red else 0.1
            text, choices = "", None
            if question.category == "presence":
                text, choices = "yes" if red else "no", {"yes": p, "no": 1 - p}
            elif question.category == "kind":
                text, choices = "crack" if red else "none", {"crack": p, "rust": 0.0, "none": 1 - p}
            elif red:
                width, height = picture.size
                x1, y1, x2, y2 = red
                text = f"[{x1 / width:.3f}, {y1 / height:.3f}, {x2 / width:.3f}, {y2 / height:.3f}]"
            yield make_answer(question, "red", text, choices=choices)


def test_tiles_are_asked_and_found_things_put_back(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RedIsACrack()
    monkeypatch.setattr("eval.infer.load_answering_model", lambda args, processes: model)
    photo = Image.new("RGB", (500, 200), (90, 90, 90))
    photo.paste((230, 20, 20), (120, 80, 260, 120))  # in the first, second and third of three tiles
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "a.png")
    Image.new("RGB", (500, 200), (90, 90, 90)).save(tmp_path / "photos" / "b.png")
    (tmp_path / "my.yaml").write_text(RECIPE.replace("unit: tile", "unit: picture"))
    flags = ("--recipe", tmp_path / "my.yaml", "--set-recipe", "unit=tile")
    register = survey(tmp_path / "photos", tmp_path / "out", tiny_model_dir, *flags)
    found, sound = register.findings
    assert set(model.sizes) == {(200, 200)}, "tiles alone were asked about"
    assert (found.photo, found.decision, found.kind) == ("a.png", "defect", "crack")
    assert found.box == pytest.approx((120 / 500, 80 / 200, 260 / 500, 120 / 200), abs=0.01)
    assert (sound.photo, sound.decision, sound.p_yes) == ("b.png", "sound", 0.1)
    assert not (tmp_path / "out" / ".parts").exists()


def test_a_certified_decision_is_applied_to_what_it_is_for(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.infer.load_answering_model", lambda args, processes: RedIsACrack())
    (tmp_path / "photos").mkdir()
    for name, colour in (("red.png", (230, 20, 20)), ("grey.png", (90, 90, 90))):
        Image.new("RGB", (200, 200), colour).save(tmp_path / "photos" / name)
    recipe = RECIPE.replace("unit: tile\ntiles: {side: 200, overlap: 0.25, whole: false}\n", "")
    (tmp_path / "my.yaml").write_text(recipe)

    def decide(**changed: Any) -> Findings:
        write_json(tmp_path / "decision.json", certified(tiny_model_dir, **changed))
        flags = ("--recipe", tmp_path / "my.yaml", "--decision", tmp_path / "decision.json", "--overwrite")
        return survey(tmp_path / "photos", tmp_path / "out", tiny_model_dir, *flags)

    register = decide()
    assert register.certified == "It is promised." and register.warnings == ["Other cameras are not covered."]
    grey, red = register.findings
    assert (red.photo, red.decision, red.reason) == ("red.png", "defect", None)
    assert (grey.photo, grey.decision, grey.reason) == ("grey.png", "ask", "uncertain")
    assert "It is promised." in (tmp_path / "out" / "register.html").read_text(encoding="utf-8")
    register = decide(certified=False)
    assert register.certified is None and register.warnings[0] == "It is promised."
    for changed, message in (
        ({"fingerprint": "sha256:other"}, "certified for another model"),
        ({"fingerprint": None}, "certified for the model 'red', not for 'tiny-llava'"),
        ({"wordings": ["Is it broken?"]}, "ask as it was certified"),
        ({"unit": "tile"}, "certified for each tile, and here each picture is asked"),
    ):
        with pytest.raises(InputError, match=message):
            decide(**changed)


def test_a_recipe_that_asks_nothing_to_decide_by_is_refused(
    tmp_path: Path, tiny_model_dir: Path, put: Any
) -> None:
    put("photos/a.jpg")
    put("count.yaml", "defects: [{name: crack}]\nfamilies:\n  count: {questions: ['How many?']}\n")
    with pytest.raises(InputError, match="asks neither whether there is a defect nor of what kind"):
        survey(tmp_path / "photos", tmp_path / "out", tiny_model_dir, "--recipe", tmp_path / "count.yaml")
    with pytest.raises(InputError, match="out lies among the photos; name a folder elsewhere"):
        survey(tmp_path / "photos", tmp_path / "photos/out", tiny_model_dir, "--recipe", "insulator")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        survey(tmp_path / "nowhere", tmp_path / "out", tiny_model_dir, "--recipe", "insulator")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "say which model answers"),
        (["--decision", "decision.json"], "say which model answers"),
        (["--model-path", "nowhere"], "nowhere: no such model folder"),
        (["--model-path", "photos"], "photos"),
        (["--model-path", "no weights"], "no weights has no weights"),
        (["--model-path", str(REPO / "playground/tiny-llava"), "--novelty", "my.yaml"], "no novelty bank"),
    ],
)
def test_photos_are_not_cut_up_for_what_cannot_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Any, flags: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put("photos/a.jpg")
    put("my.yaml", RECIPE)
    put("no weights/config.json", '{"model_type": "llava"}')
    with pytest.raises(InputError, match=message):
        main(["--photos", "photos", "--recipe", "my.yaml", "--output", "out", *flags])
    assert not (tmp_path / "out").exists()


def test_a_survey_that_gets_no_answer_leaves_nothing(tmp_path: Path, tiny_model_dir: Path, put: Any) -> None:
    put("photos/a.jpg")
    put("my.yaml", RECIPE)
    with pytest.raises(InputError, match="unknown conv mode"):
        survey(
            tmp_path / "photos", tmp_path / "out", tiny_model_dir,
            "--recipe", tmp_path / "my.yaml", "--conv-mode", "v7",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"my\.yaml/out/questions.*: cannot be written"):
        survey(
            tmp_path / "photos", tmp_path / "my.yaml" / "out", tiny_model_dir,
            "--recipe", tmp_path / "my.yaml",
        )  # fmt: skip


def test_photos_cut_short_alone_are_refused_with_the_reason(tmp_path: Path, tiny_model_dir: Path) -> None:
    photo = write_photo(tmp_path / "photos" / "a.jpg", 1, (400, 300))
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    (tmp_path / "my.yaml").write_text(RECIPE)
    with pytest.raises(InputError, match=r"no question could be answered.*a\.jpg: the picture is damaged"):
        survey(tmp_path / "photos", tmp_path / "out", tiny_model_dir, "--recipe", tmp_path / "my.yaml")


@pytest.mark.parametrize(
    ("sound", "tiles", "said"), [(98, 1, True), (99, 1, False), (99, 2, True), (199, 2, False)]
)
def test_a_bank_too_small_to_call_anything_never_seen_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: int, tiles: int, said: bool
) -> None:
    """Sound pictures count alone, and so much more are needed as a photo has tiles."""
    bank = SimpleNamespace(
        p_value=PValues([1.0] * sound, [str(number) for number in range(sound)]),
        projections=np.zeros((400, 2)),
        calibration_groups=[str(number) for number in range(400)],
    )
    monkeypatch.setattr("llava.novelty.bank.read_bank", lambda path: bank)
    parts = {f"a.jpg {number}": "a.jpg" for number in range(tiles)}
    *never, drift = _novelty_warnings(Path("bank"), [], parts, {"a.jpg": "0"})
    assert drift == "Drift: the drift check needs 5 groups of pictures or more, the survey has 0."
    what = "Nothing" if tiles == 1 else f"No photo in {tiles} parts"
    assert [text.startswith(f"{what} can be called never seen") for text in never] == [True] * said


def flight(folder: Path, count: int) -> Path:
    """Photos of two towers with time and place, a burst of three, one cut short and one that is no photo."""
    for number in range(count):
        made = exif(f"2026:06:12 09:{number:02d}:00", (-33.5 - number / 1000, 150.0))
        write_photo(folder / f"tower {number % 2}" / f"{number:02d}.jpg", number, (160, 120), made)
    scene = image(99, (240, 180))
    for number in range(3):
        made = exif(f"2026:06:12 10:00:0{number}", (-33.4, 150.1))
        shot = scene.crop((2 * number, 0, 230 + 2 * number, 180))
        shot.save(folder / "tower 0" / f"burst{number}.jpg", exif=made.tobytes())
    content = (folder / "tower 1" / "01.jpg").read_bytes()
    (folder / "tower 1" / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "tower 1" / "text.jpg").write_text("no photo")
    return folder


def of(register: Findings, name: str) -> Finding:
    (found,) = (each for each in register.findings if name in each.photos and each.about == "defect")
    return found


@pytest.mark.slow
def test_killed_anywhere_it_ends_in_the_same_register(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = flight(tmp_path / "photos", 6)
    whole = survey(photos, tmp_path / "whole", tiny_model_dir, "--recipe", "insulator")
    assert "  tower 1/text.jpg: not a picture" in capsys.readouterr().err
    assert [of(whole, name).reason for name in ("tower 1/cut.jpg", "tower 1/text.jpg")] == ["unreadable"] * 2
    burst = of(whole, "tower 0/burst1.jpg")
    assert len(burst.photos) == 3 and burst.time and burst.time.startswith("2026-06-12T10:00:0")
    assert (burst.latitude, burst.asset) == (-33.4, "tower 0")
    assert "Left to a person: 2 photos that cannot be read here." in whole.warnings

    output = tmp_path / "killed"
    command = ["-m", "llava_inspect", "survey", "--model-path", tiny_model_dir, "--batch-size", "2"]
    command += ["--photos", photos, "--recipe", "insulator", "--device", "cpu", "--output", output]
    process = WarmProcess(*command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    partial = output / "answers.jsonl.partial"
    while not (partial.is_file() and partial.read_bytes().count(b"\n") > 4):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "findings.json").exists()
    survey(photos, output, tiny_model_dir, "--recipe", "insulator")
    assert "answers are there already" in capsys.readouterr().err
    for name in ("findings.json", "findings.csv", "findings.geojson", "findings.kml", "register.html"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(output.glob("*.partial*"))
    with pytest.raises(InputError, match="holds answers already; name another --output or add --overwrite"):
        survey(photos, output, tiny_model_dir, "--recipe", "insulator")


def test_bursts_are_one_group_and_a_timer_s_photos_are_not(tmp_path: Path) -> None:
    scene, other = image(1, (240, 180)), image(2, (240, 180))
    shots = {
        "a/1.jpg": (scene, "09:00:00"),
        "a/2.jpg": (scene.crop((8, 0, 240, 180)), "09:00:02"),  # no copy: it has moved
        "a/3.jpg": (other, "09:00:04"),  # something else, two seconds later
        "a/4.jpg": (scene.crop((16, 0, 240, 180)), "09:05:00"),  # the same scene, much later
        "b/1.jpg": (other, "09:00:05"),  # another folder
        "a/5.jpg": (scene, "11:00:00"),  # a copy
    }
    for name, (picture, clock) in shots.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name, exif=exif(f"2026:06:12 {clock}").tobytes())
    photos = read_photos({name: tmp_path / name for name in shots})
    assert group_bursts(photos, twins=None) == [0, 0, 2, 3, 4, 5]
    groups = group_bursts(photos, twins=2)
    assert groups[0] == groups[1] == groups[5] and len({groups[0], groups[2], groups[4]}) == 3
