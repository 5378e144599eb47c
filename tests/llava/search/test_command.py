"""`python -m llava.search` finds a shape in a photo, and says what it did, also where it is stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.search_scenes import Scene, compose
from llava.common.errors import InputError
from llava.inference.live import LiveEngine
from llava.model.builder import load_model
from llava.search.__main__ import main
from llava.search.find import search
from llava.search.reference import thing_in
from llava.search.windows import centre_in
from tests.support.warm import run_warm


@pytest.fixture(scope="module")
def scene() -> Scene:
    return compose(7, (760, 500))  # an orange diamond among shapes, on a rendered ground


@pytest.fixture(scope="module")
def photo(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "big.jpg"
    scene.image.save(path, quality=92)
    return path


def test_it_finds_a_shape_and_asks_about_it(
    tiny_model_dir: Path, scene: Scene, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, output = tmp_path / "thing.png", tmp_path / "found"
    x1, y1, x2, y2 = scene.box
    scene.image.crop((x1 - 20, y1 - 20, x2 + 20, y2 + 20)).save(reference)
    arguments = ["--image-file", photo, "--find", scene.words, "--reference", reference, "--top", "3"]
    arguments += ["--ask", "What colour is the diamond?", "--output", output]
    assert main(["--model-path", *map(str, [tiny_model_dir, *arguments])]) == 0

    found = json.loads((output / "found.json").read_text())
    assert found["words"] == "an orange diamond" and (found["width"], found["height"]) == (760, 500)
    assert found["complete"] and found["windows_asked"] == found["windows_total"] > 10
    first, *others = found["found"]
    assert len(others) <= 2
    assert centre_in(scene.box, tuple(first["box"]))
    assert first["p_yes"] > 0.5 and first["answer"] == "orange"
    assert first["similarity"] > max(other["similarity"] for other in others)
    for number in range(1, len(found["found"]) + 1):
        with Image.open(output / "crops" / f"{number}.jpg") as crop:
            assert max(crop.size) <= 640
    with Image.open(output / "heat.png") as heat:
        assert heat.size == (760, 500)
    page = (output / "report.html").read_text()
    assert "an orange diamond" in page and "What colour is the diamond?" in page
    assert f"1. yes {first['p_yes']:.2f}" in capsys.readouterr().out


def test_a_stopped_search_writes_what_it_has(tiny_model_dir: Path, tmp_path: Path) -> None:
    compose(3, (6000, 4000)).image.save(tmp_path / "huge.jpg")
    output = tmp_path / "found"
    done = run_warm(
        "-c", STOPPED_EARLY, "--model-path", tiny_model_dir,
        "--image-file", tmp_path / "huge.jpg", "--find", "a cyan circle", "--output", output,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "stopped: what was found so far is written" in done.stderr
    found = json.loads((output / "found.json").read_text())
    assert not found["complete"] and 0 < found["windows_asked"] < found["windows_total"]
    assert found["found"]
    assert "was stopped after" in (output / "report.html").read_text()


STOPPED_EARLY = f"""
import os, runpy, sys
from llava.search import find
search = find.search

def interrupted(*arguments, **named):
    for number, progress in enumerate(search(*arguments, **named)):
        yield progress
        if number == 1:
            os.kill(os.getpid(), {int(signal.SIGINT)})

find.search = interrupted
runpy.run_module("llava.search", run_name="__main__")
"""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--find", " "], "nothing to find"),
        (["--find", "a star " * 3000], "context is 2048"),
        (["--find", "a star", "--top", "0"], "top is 0"),
        (["--find", "a star", "--smallest", "0"], "smallest is 0"),
        (["--find", "a star", "--reference", "absent.jpg"], "absent.jpg"),
    ],
)
def test_bad_input_leaves_nothing(
    tiny_model_dir: Path, photo: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    common = [
        "--model-path",
        str(tiny_model_dir),
        "--image-file",
        str(photo),
        "--output",
        str(tmp_path / "f"),
    ]
    with pytest.raises(InputError, match=message):
        main([*common, *arguments])
    assert not (tmp_path / "f").exists()


def test_an_output_that_cannot_be_written_is_said_before_the_search(
    photo: Path, put: Callable[..., Path]
) -> None:
    output = put("a file") / "found"
    with pytest.raises(InputError, match=f"{output}: cannot be written"):
        main(["--model-path", "absent", "--image-file", str(photo), "--find", "a star",
              "--output", str(output)])  # fmt: skip


def test_a_question_that_cannot_be_asked_is_said_before_the_search(tiny_model_dir: Path) -> None:
    with LiveEngine(load_model(tiny_model_dir)) as engine:
        for question, message in (("<image> <image>?", "2 <image> mark"), ("why " * 3000, "context is 2048")):
            with pytest.raises(InputError, match=message):
                search(engine, Image.new("RGB", (50, 50)), "a star", ask=question)


def test_windows_are_no_larger_than_the_photo(tiny_model_dir: Path) -> None:
    with LiveEngine(load_model(tiny_model_dir)) as engine:
        *_, last = search(engine, Image.new("RGB", (50, 30)), "a star", smallest=10**400, ask=" ")
    assert last.result.side == 50 and last.result.complete
    (place,) = last.result.found
    assert place.box == (0, 0, 50, 30) and place.answer is None


def test_only_an_earlier_search_is_replaced(photo: Path, put: Callable[..., Path]) -> None:
    arguments = ["--model-path", "absent", "--image-file", str(photo), "--find", "a star", "--overwrite"]
    kept = put("photos/kept.jpg")
    for output, message in ((kept.parent, "is not an earlier search"), (kept, "is a file; name a folder")):
        with pytest.raises(InputError, match=message):
            main([*arguments, "--output", str(output)])
    assert kept.is_file() and not list(kept.parent.parent.glob(".*"))


def test_an_existing_folder_is_kept(tiny_model_dir: Path, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--overwrite"):
        main(["--model-path", str(tiny_model_dir), "--image-file", str(photo), "--find", "a star",
              "--output", str(tmp_path)])  # fmt: skip


@pytest.mark.parametrize(
    "description, thing",
    [
        ("A red star at the left.", "a red star"),
        ("The image shows a man in a white shirt, standing.", "a man"),
        ("This picture features two dogs and a cat.", "two dogs"),
        ("", ""),
    ],
)
def test_the_first_thing_of_a_description_is_searched(description: str, thing: str) -> None:
    assert thing_in(description) == thing
