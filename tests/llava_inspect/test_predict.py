"""`llava-inspect predict`: photos in, answers with the photos' own names out; what cannot be read is said."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava.common.errors import InputError
from llava.inference.engine import Engine, Request, Result
from llava_inspect.predict import main
from tests.support.html_page import check_alone
from tests.support.small_model import image

BOXES = """
defects: [{name: crack}, {name: rust}]
families:
  presence_of: {family: presence, of: each, questions: ["Is there {phrase}?"]}
  kind: {questions: ["What is wrong?"]}
  box: {family: where, type: box, of: each, questions: ["Give the box of the {kind}."]}
boxes: {frame: padded, decimals: 2}
"""
SAYS = {
    "Is there a crack?": "yes",
    "Is there rust?": "no",
    "What is wrong?": "crack",
    "Give the box of the crack.": "[0.25, 0.50, 0.75, 0.75]",
    "Give the box of the rust.": "[0.10, 0.10, 0.20, 0.20]",
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos that can be read, one of them turned by EXIF and one of 16 bits; one cut short; a text."""
    folder = tmp_path / "photos"
    (folder / "line 3").mkdir(parents=True)
    image(0, (200, 100)).save(folder / "line 3" / "turm ü.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    image(1, (100, 60)).save(folder / "b.jpg", exif=exif)
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(grey).save(folder / "c.png")
    content = (folder / "b.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that reach the engine, which answers as SAYS says."""
    found: list[Request] = []

    def stream(self: Engine, requests: Iterator[Request], **options: Any) -> Iterator[Result]:
        for request in requests:
            found.append(request)
            text = SAYS.get(request.text, "A photo.")
            sure = {choice: 0.9 if choice == text else 0.1 for choice in request.choices or ()}
            yield Result(request.question_id, text, sure or None)

    monkeypatch.setattr(Engine, "stream", stream)
    return found


def predict(tmp_path: Path, model: Path, *arguments: object) -> Path:
    output = tmp_path / "out"
    command = [*map(str, arguments), "--model-path", str(model), "--device", "cpu", "--output", str(output)]
    assert main(command) == 0
    return output


def table(output: Path) -> list[dict[str, str]]:
    with (output / "answers.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_recipe_asks_and_every_answer_names_its_photo(
    photos: Path,
    tmp_path: Path,
    tiny_model_dir: Path,
    asked: list[Request],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "my.yaml").write_text(BOXES)
    output = predict(tmp_path, tiny_model_dir, photos, "--recipe", tmp_path / "my.yaml")
    rows = table(output)
    names = ["b.jpg", "c.png", "cut.jpg", "line 3/turm ü.jpg"]
    assert list(dict.fromkeys(row["photo"] for row in rows)) == names
    good = [row for row in rows if row["photo"] != "cut.jpg"]
    assert len(good) == 3 * 4, "where the rust is, is not told: there is none"
    for row in good:
        assert row["answer"] == SAYS[row["question"]] and not row["problem"]
        closed = row["task"] in ("presence_of", "kind")
        assert row["probability"] == ("0.9" if closed else "")
        assert row["p_yes"] == {"yes": "0.9", "no": "0.1"}.get(row["answer"], "")
    bad = [row for row in rows if row["photo"] == "cut.jpg"]
    assert bad and all("cut short" in row["problem"] and not row["answer"] for row in bad)
    assert "1 photo without an answer:\n  cut.jpg: the picture is damaged" in capsys.readouterr().err
    lines = [json.loads(line) for line in (output / "answers.jsonl").open(encoding="utf-8")]
    assert [line["metadata"]["source"] for line in lines] == [row["photo"] for row in rows]
    assert not [request for request in asked if "turm" in request.text]

    page = check_alone(
        (output / "gallery.html").read_text(encoding="utf-8"),
        *("form", "label", "select", "option", "input", "button", "output", "script", "title"),
    )
    assert len(page.named("img")) == 3 and "line 3/turm ü.jpg" in page.text
    drawn = [
        tuple(float(str(rect[side])) for side in ("x", "y", "width", "height"))
        for rect in page.named("rect")
        if rect["class"] == "tuned"
    ]
    upright, four_by_three, two_by_one = drawn  # each out of its padded square
    assert upright == pytest.approx((0.0833, 0.5, 0.8333, 0.25), abs=1e-3)
    assert four_by_three == pytest.approx((0.25, 0.5, 0.5, 0.3333), abs=1e-3)
    assert two_by_one == pytest.approx((0.25, 0.5, 0.5, 0.5), abs=1e-3)


def test_it_goes_on_after_an_interruption_and_overwrites_only_when_told(
    photos: Path, tmp_path: Path, tiny_model_dir: Path, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (photos, "--question", "Is there a crack?", "--question", "What?", "--choices", "yes", "no")
    whole = Engine.stream

    def interrupted(self: Engine, requests: Iterator[Request], **options: Any) -> Iterator[Result]:
        for number, result in enumerate(whole(self, requests, **options)):
            if number == 3:
                raise KeyboardInterrupt
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "stream", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict(tmp_path, tiny_model_dir, *arguments)
    assert not (tmp_path / "out" / "answers.csv").exists()
    asked.clear()
    output = predict(tmp_path, tiny_model_dir, *arguments)
    assert len(asked) == 3 and len(table(output)) == 8
    assert {path.name for path in output.iterdir()} == {
        *("answers.csv", "answers.jsonl", "gallery.html", "questions.jsonl")
    }
    with pytest.raises(InputError, match=r"holds answers already; name another --output or add --overwrite"):
        predict(tmp_path, tiny_model_dir, *arguments)
    predict(tmp_path, tiny_model_dir, photos / "b.jpg", photos / "line 3", "--overwrite")
    assert [(row["photo"], row["question"]) for row in table(output)] == [
        ("b.jpg", "Describe the picture."),
        ("line 3/turm ü.jpg", "Describe the picture."),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], r"nowhere: no such photo or folder"),
        (["{photos}/line 3/none"], "no photos in "),
        (["{photos}/cut.jpg"], r"no question could be answered; the first: .*cut short"),
        (["{photos}", "--choices", "yes", "no"], "--choices are the possible answers to a --question"),
        (["{photos}", "--question", "What?", "--choices", "yes"], "write two different answers or more"),
        (["{photos}", "--recipe", "vqa"], "vqa asks only what needs an annotation; write a --question"),
        (["{photos}", "--recipe", "nosuch"], "nosuch: no such file, and no recipe of that name ships"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    photos: Path, tmp_path: Path, tiny_model_dir: Path, arguments: list[str], message: str
) -> None:
    (photos / "line 3" / "none").mkdir()
    with pytest.raises(InputError, match=message):
        predict(tmp_path, tiny_model_dir, *(text.format(photos=photos) for text in arguments))
    assert not (tmp_path / "out" / "answers.jsonl").exists()


def test_the_folder_for_photos_is_used_as_its_readme_says(
    photos: Path,
    tmp_path: Path,
    tiny_model_dir: Path,
    asked: list[Request],
    repo: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (repo / "playground" / "data_infer" / "README.md").read_text(encoding="utf-8")
    (command,) = (line for line in text.splitlines() if line.startswith("    llava-inspect predict "))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "playground").mkdir()
    photos.rename(tmp_path / "playground" / "data_infer")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "merged").symlink_to(tiny_model_dir)
    assert main([*shlex.split(command)[2:], "--device", "cpu"]) == 0
    for name in ("answers.csv", "answers.jsonl", "gallery.html"):
        assert f"`{name}`" in text and (tmp_path / "runs" / "predict-data_infer" / name).is_file()
