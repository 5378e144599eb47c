"""The command: photos in, labelled pictures out; what it refuses, and what a model rejects."""

import json
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_prep.__main__ import main as data_prep
from data_prep.annotations import Shape
from data_prep.synthesis.filter import Made, Seen
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from data_prep.synthetic import read_synthetic
from llava.common.environment import how_to_install
from llava.common.images import open_image
from llava.common.masks import load_mask
from llava_inspect.making.painters import PAINTERS
from llava_inspect.making.plausible import IMPLAUSIBLE, LOST, ModelJudge, question_about
from llava_inspect.synthesize import main, speed_text
from llava_inspect.synthesize_flags import METHODS
from tests.support.chat_server import fake_chat
from tests.support.commands import run_here
from tests.support.drawn_strings import BROKEN, DrawnString
from tests.support.made import SpotPainter, recipe_of
from tests.support.photos import Boxes, contents, write_boxes, write_pair, write_photos
from tests.support.tiny_diffusers import save_tiny_diffusion
from tests.support.tiny_sam import save_tiny_sam

WHOLE = (5, 5, 75, 43)


@pytest.fixture(autouse=True)
def spots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAINTERS, "render", lambda photos, recipe, args: SpotPainter())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 24)


def synthesize(photos: Path, output: Path, *more: object) -> Any:
    flags = ("--method", "render", "--recipe", "insulator")
    return run_here(main, "--source", photos, "--output", output, *flags, *more)


def test_the_help_lists_all_methods() -> None:
    assert list(PAINTERS) == list(METHODS)


def test_rare_kinds_become_as_common_as_the_commonest(tmp_path: Path, photos: Path) -> None:
    done = synthesize(photos, tmp_path / "made")
    assert done.returncode == 0, done.stderr
    assert "not made: bird nest (it cannot be drawn)" in done.stdout
    assert f"--synthetic {tmp_path / 'made'}" in done.stdout
    file = read_synthetic(tmp_path / "made")
    assert file.info.settings["count"] == len(file.images)
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "images", "masks", "synthetic.json", "contact_sheet.png",
    }  # fmt: skip
    kinds = [image.synthetic.kind for image in file.images]
    have = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    before = {"missing disc": 3, "broken disc": 3, "flashover": 3, "pollution": 3, "bird nest": 4}
    assert {kind: before[str(kind)] + made for kind, made in have.items()} == dict.fromkeys(have, 4)


def test_any_number_of_threads_makes_the_same(tmp_path: Path, photos: Path) -> None:
    for workers in (1, 3):
        options = ("--count", 14, "--workers", workers, "--kinds", "broken", "Flashover-burn")
        assert synthesize(photos, tmp_path / str(workers), *options).returncode == 0
    first, second = (contents(tmp_path / str(workers)) for workers in (1, 3))
    assert first == second
    assert {image.synthetic.kind for image in read_synthetic(tmp_path / "1").images} == {
        "broken disc", "flashover",
    }  # fmt: skip
    other = synthesize(
        photos, tmp_path / "other", "--count", 14, "--seed", 1, "--kinds", "broken", "flashover"
    )
    assert other.returncode == 0
    assert contents(tmp_path / "other") != first


@pytest.mark.parametrize(
    ("seed", "says"),
    [(0, "goes on: 3 job(s) are done"), (4, "begins anew: 3 job(s) were done with other settings (seed)")],
)
def test_a_stopped_run_says_whether_it_goes_on(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, seed: int, says: str
) -> None:
    class Stops(SpotPainter):
        def paint(self, jobs: Sequence[Job]) -> Sequence[Painted | Rejected]:
            if jobs[0].number >= 3:
                raise KeyboardInterrupt
            return super().paint(jobs)

    flags = ("--count", 6, "--kinds", "flashover")
    with monkeypatch.context() as patch:
        patch.setitem(PAINTERS, "render", lambda photos, recipe, args: Stops())
        assert synthesize(photos, tmp_path / "made", *flags).returncode == 130
    done = synthesize(photos, tmp_path / "made", *flags, "--seed", seed)
    assert done.returncode == 0 and says in done.stdout
    assert "job(s)" not in synthesize(photos, tmp_path / "whole", *flags, "--seed", seed).stdout
    assert contents(tmp_path / "made") == contents(tmp_path / "whole")


def test_without_opencv_one_line_says_what_to_install(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = synthesize(photos, tmp_path / "made", "--method", "diffuse", "--diffusion-model", "absent")
    assert done.returncode == 2 and done.stderr == f"error: this needs OpenCV: {how_to_install('synth')}\n"
    assert done.stdout == ""


def test_speed_is_that_of_all_pictures_of_this_run() -> None:
    assert speed_text(0, 9, 3.0) == ""
    assert speed_text(3, 9, 90.0) == "2.0/min, 0:04:30 left"
    assert speed_text(900, 0, 60.0) == "900/min"


def test_only_photos_of_the_train_split_are_parents(tmp_path: Path, photos: Path) -> None:
    data = tmp_path / "data"
    assert (
        data_prep(["convert", "--source", str(photos), "--recipe", "insulator", "--output", str(data)]) == 0
    )
    assert synthesize(photos, tmp_path / "made", "--count", 40, "--data", data).returncode == 0
    pictures = json.loads((data / "manifest.json").read_text())["pictures"].values()
    trained = {picture["source"] + ".jpg" for picture in pictures if picture["split"] == "train"}
    parents = {
        parent.name
        for image in read_synthetic(tmp_path / "made").images
        for parent in image.synthetic.parents
    }
    assert parents <= trained


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--kinds", "hole"], "the recipe has no such defect"),
        (["--kinds", "nest"], "cannot make it: it cannot be drawn"),
        (["--kinds", "flashover", "--count", "0"], "0 is too low; give 1 or more"),
        (["--novelty", "none.safetensors"], "no such file"),
        (["--data", "."], "no manifest.json"),
        (["--least-size", "500"], "no picture could be made: too small in the model's pixels (9)"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, photos: Path, flags: list[str], says: str) -> None:
    count = [] if "--count" in flags else ["--count", "3"]
    done = synthesize(photos, tmp_path / "made", *flags, *count)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_made_pictures_and_folders_that_are_there_are_refused(tmp_path: Path, photos: Path) -> None:
    assert synthesize(photos, tmp_path / "made", "--count", 2).returncode == 0
    for source, output, says in (
        (tmp_path / "made", tmp_path / "more", "were made by `synthesize`"),
        (photos, tmp_path / "made", "exists already"),
        (photos, photos / "made", "lies among the photos"),
        (tmp_path / "absent", tmp_path / "more", "no such folder"),
    ):
        done = synthesize(source, output, "--count", 2)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_photos_without_a_sound_component_have_no_place(tmp_path: Path) -> None:
    write_boxes(tmp_path / "photos", [("insulator", WHOLE), ("flashover", (10, 10, 30, 30))], count=3)
    done = synthesize(tmp_path / "photos", tmp_path / "made", "--count", 2)
    assert "can make none of the recipe's defects" in done.stderr
    assert "flashover, pollution (no photo has a sound component to make it on)" in done.stdout


# --- a model that looks at the pictures --------------------------------------------------------------


@pytest.fixture
def made(photos: Path) -> tuple[Job, Made]:
    pixels = np.full((48, 80, 3), 120, np.uint8)
    photo = Photo(photos, "a", "0" * 64, (80, 48), (Shape("insulator", WHOLE),), ())
    job = Job(0, photo, "flashover", photo.components[0], 1)
    mask = np.ones((48, 80), bool)
    painted, seen = Painted(pixels + np.uint8(9), mask), Seen((0, 0, 80, 48), 10)
    return job, Made(painted, pixels, mask, photo, Shape("flashover", WHOLE), seen)


def test_the_question_is_in_the_words_of_the_recipe() -> None:
    recipe = recipe_of()
    assert question_about(recipe.components[0], recipe) == "Is there an insulator?"
    korean = recipe.in_language("ko")
    assert korean.components[0].phrase in question_about(korean.components[0], korean)


def test_a_model_rejects_what_it_no_longer_sees(
    tiny_model_dir: Path, made: tuple[Job, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = Namespace(
        model_path=str(tiny_model_dir), model_base=None, device="cpu", load_8bit=False, load_4bit=False,
        conv_mode=None,
    )  # fmt: skip
    judge = ModelJudge(flags, recipe_of(), None)
    assert judge(*made) is None  # nearly the same picture
    for after, why in ((0.44, LOST), (0.46, None)):
        answers = iter([0.9, after])
        monkeypatch.setattr(judge, "_sees", lambda *_, answers=answers: next(answers))
        assert judge(*made) == why
    monkeypatch.setattr(judge, "_sees", lambda *_: 0.9)
    monkeypatch.setattr(judge, "_meter", object())
    monkeypatch.setattr(judge, "_farthest", 5.0)
    for before, after, why in ((4, 4.9, None), (4, 5.1, IMPLAUSIBLE), (6, 5.1, None)):
        distances = iter([before, after])
        monkeypatch.setattr(judge, "_distance", lambda *_, distances=distances: next(distances))
        assert judge(*made) == why


# --- the methods themselves --------------------------------------------------------------------------


def strings(folder: Path) -> Path:
    """Draw photos of insulator strings, one sound and two with a broken disc."""
    for number, odd in enumerate((None, 4, 8)):
        drawn = DrawnString(discs=14, angle=-20.0 + 8 * number, odd=odd, defect=BROKEN, seed=number)
        x1, y1, x2, y2 = map(round, drawn.box)
        boxes: Boxes = [("insulator", (x1, y1, x2, y2))]
        if odd is not None:
            x, y = map(round, drawn.place(odd + 0.5)[0])
            boxes.append(("broken disc", (x - 24, y - 30, x + 24, y + 30)))
        write_pair(folder, f"p{number}", boxes, number, drawn.size)
        drawn.draw().save(folder / "images" / f"p{number}.jpg", quality=95)
    return folder


@pytest.mark.parametrize("method", ["paste", "render"])
def test_pictures_of_a_method_are_trained_on(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real painters
    pytest.importorskip("scipy")
    source, output = strings(tmp_path / "photos"), tmp_path / "made"
    recipe = ("--recipe", "insulator", "--source", source)
    flags = ("--method", method, "--kinds", "broken disc", "--count", 1, "--least-size", 1)
    done = run_here(main, *recipe, "--output", output, *flags)
    assert done.returncode == 0, done.stderr
    (image,) = read_synthetic(output).images
    assert image.synthetic.method == method
    assert len(image.synthetic.parents) == (2 if method == "paste" else 1)
    # All is trained on: three photos are too few for splits.
    converted = run_here(
        data_prep, "convert", *recipe, "--synthetic", output, "--output", tmp_path / "data", "splits.train=1",
        "splits.val=0", "splits.test=0",
    )  # fmt: skip
    assert converted.returncode == 0, converted.stderr
    records = json.loads((tmp_path / "data" / "train.json").read_text())
    assert any(record["meta"].get("method") == method for record in records)


@pytest.fixture(scope="module")
def diffusion_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_diffusion(tmp_path_factory.mktemp("diffusion") / "model")


def diffuse(photos: Path, output: Path, model: Path, *more: object) -> Any:
    fast = ("--steps", 2, "--batch-size", 2, "--least-size", 1)
    return synthesize(photos, output, "--method", "diffuse", "--diffusion-model", model, *fast, *more)


def test_diffusion_paints_what_is_wished(tmp_path: Path, photos: Path, diffusion_model: Path) -> None:
    flags = ("--kinds", "flashover", "--count", 3, "--segmenter", save_tiny_sam(tmp_path / "sam"))
    done = diffuse(photos, tmp_path / "made", diffusion_model, *flags, "--prompt", "{wish}: seen")
    assert done.returncode == 0, done.stderr
    file = read_synthetic(tmp_path / "made")
    assert file.info.method == "diffuse" and file.info.settings["steps"] == 2
    assert {image.synthetic.prompt for image in file.images} == {"flashover on an insulator: seen"}
    assert file.info.settings["prompt"] == "{wish}: seen"


def test_models_give_the_words(
    tmp_path: Path, photos: Path, diffusion_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with fake_chat() as chat:
        prompt = "flashover on an insulator, thick fog"
        chat.answer = lambda body: prompt if body["model"] == "writer" else "fog"
        words = ("--keyword-model", chat.url, "--language-model", chat.url, "--language-name", "writer")
        flags = ("--kinds", "flashover", "--count", 2, "--prompt", "{wish} at dusk")
        done = diffuse(photos, tmp_path / "made", diffusion_model, *flags, *words)
    assert done.returncode == 0, done.stderr
    file = read_synthetic(tmp_path / "made")
    assert {image.synthetic.prompt for image in file.images} == {prompt}
    assert file.info.settings["language_name"] == "writer"
    asked = [body["messages"][0]["content"] for body in chat.asked if body["model"] == "writer"]
    assert len(asked) == 1 and "Wish: flashover on an insulator at dusk\nKeywords: fog\n" in asked[0]


def test_a_component_gets_new_surroundings(tmp_path: Path, diffusion_model: Path) -> None:
    left, right, burn = (4, 4, 34, 44), (46, 4, 76, 30), (10, 10, 24, 20)
    both: Boxes = [("insulator", left), ("insulator", right), ("flashover", burn)]
    source = write_boxes(tmp_path / "photos", both, count=3)
    flags = ("--invert", "--count", 4, "--prompt", "{wish}, snow")
    noise = diffuse(source, output := tmp_path / "made", diffusion_model, *flags)
    assert "no outline of the component was found (12); --segmenter" in noise.stderr
    for file in (source / "images").iterdir():
        picture = Image.new("RGB", (80, 48), "beige")
        for box in (left, right):
            ImageDraw.Draw(picture).ellipse(box, "navy")
        picture.save(file)
    done = diffuse(source, output, diffusion_model, *flags)
    assert done.returncode == 0, done.stderr
    assert re.search(r"new surroundings\W+3\W+4\W+0", done.stdout)
    file = read_synthetic(output)
    names = {category.id: category.name for category in file.categories}
    labelled = []
    for image in file.images:
        facts = image.synthetic
        assert (facts.kind, facts.prompt) == (None, "the surroundings of an insulator, snow")
        painted = load_mask(output / facts.mask)
        pixels, photo = (
            np.asarray(open_image(path))
            for path in (output / image.file_name, source / facts.parents[0].name)
        )
        assert (pixels == photo)[~painted].all() and (pixels != photo)[painted].any(axis=1).mean() > 0.9
        of_it = [annotation for annotation in file.annotations if annotation.image_id == image.id]
        assert not any(annotation.made or annotation.segmentation for annotation in of_it)
        labelled.append({(names[annotation.category_id], annotation.box) for annotation in of_it})
        if ("flashover", burn) in labelled[-1]:
            assert not painted[10:20, 11:23].any()
    assert {("insulator", right)} in labelled
    assert {("insulator", left), ("flashover", burn)} in labelled and len(labelled) == 4

    data = tmp_path / "data"
    convert = ("--source", source, "--recipe", "insulator", "--synthetic", output, "--output", data)
    converted = run_here(data_prep, "convert", *convert, "--splits", "1,0,0")
    assert converted.returncode == 0, converted.stderr
    assert "by diffuse" in converted.stdout and "new background" in converted.stdout
    checked = run_here(data_prep, "check", data / "train.json", "--image-folder", data)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_kept_must_be_there(tmp_path: Path) -> None:
    write_boxes(tmp_path / "a", [("insulator", WHOLE), ("flashover", (10, 10, 30, 30))], count=1)
    write_boxes(tmp_path / "b", [("scratches", (10, 10, 30, 30))], count=1)
    flags = ("--method", "diffuse", "--diffusion-model", ".", "--invert")
    none = synthesize(tmp_path / "a", tmp_path / "made", *flags, "--kinds", "pollution")
    assert none.returncode == 2 and "has a box of a component with pollution on it" in none.stderr
    none = synthesize(tmp_path / "b", tmp_path / "made", *flags, "--recipe", "steel_surface")
    assert none.returncode == 2 and "the recipe names no components" in none.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--method", "diffuse"), "needs --diffusion-model"),
        (("--method", "paste", "--steps", 4), "--steps is for --method diffuse, not paste"),
        (("--method", "render", "--prompt", "{wish}"), "--prompt is for --method diffuse, not render"),
        (
            ("--method", "render", "--segmenter", "sam"),
            "--segmenter is for --method paste and diffuse, not render",
        ),
        (("--method", "paste", "--segmenter", "./sam"), "--segmenter: sam: no such model folder"),
        (
            ("--method", "diffuse", "--diffusion-model", "./nothing"),
            "nothing: no folder of a diffusion model",
        ),
        (("--method", "paste", "--invert"), "--invert is for --method diffuse, not paste"),
        (("--method", "diffuse", "--diffusion-model", ".", "--prompt", "rust"), "write {wish} where"),
        (
            ("--method", "paste", "--language-model", "lm"),
            "--language-model is for --method diffuse, not paste",
        ),
        (
            ("--method", "diffuse", "--diffusion-model", ".", "--language-name", "qwen3"),
            "give --language-model its address",
        ),
        (
            ("--method", "diffuse", "--diffusion-model", ".", "--prompt", "{wish}", "--keyword-model", "x"),
            "no place for keywords",
        ),
    ],
)
def test_bad_flags_of_diffusion_are_one_line(
    tmp_path: Path, photos: Path, flags: tuple[object, ...], says: str
) -> None:
    pytest.importorskip("diffusers")
    done = synthesize(photos, tmp_path / "made", *flags)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
