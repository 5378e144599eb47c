"""The prompt of a job: its wish, its photo's keywords, and no more than the encoders read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from data_prep.annotations import Shape
from data_prep.synthesis.painted import Job, Photo
from llava.common.files import sha256
from llava.painting.fitting import fits
from llava_inspect.making.prompts import JobPrompts
from tests.support.clip_words import clip_tokenizer
from tests.support.made import recipe_of

STRING = Shape("insulator", (20.0, 30.0, 180.0, 60.0))
TOKENIZERS = [clip_tokenizer(), clip_tokenizer("broken disc")]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    Image.new("RGB", (2000, 1000), "teal").save(tmp_path / "a.png")
    photo = Photo(tmp_path / "a.png", "a.png", sha256(tmp_path / "a.png"), (2000, 1000), (STRING,), ())
    return Job(0, photo, "broken disc", STRING, 0)


def test_without_models_the_recipes_template_says_it(job: Job) -> None:
    recipe = recipe_of("insulator", "synthetic.prompt='{wish}, {keywords}, haze'")
    assert JobPrompts(recipe, TOKENIZERS)(job) == "a broken disc on an insulator, haze"
    shipped = JobPrompts(recipe_of(), TOKENIZERS)(job)
    assert shipped.startswith("a photo of a broken disc on an insulator") and fits(shipped, TOKENIZERS)


def test_a_photo_is_asked_about_once_and_what_is_written_fits(job: Job) -> None:
    seen: list[tuple[int, int]] = []
    written: list[str] = []

    def see(picture: Image.Image, questions: Sequence[str]) -> list[str]:
        seen.append(picture.size)
        return ["fog"] * len(questions)

    def write(instruction: str) -> str:
        written.append(instruction)
        return "A broken disc on an insulator, " + "grey fog over a field, " * 9

    prompts = JobPrompts(recipe_of(), TOKENIZERS, see, write)
    first = prompts(job)
    assert first.startswith("A broken disc on an insulator, grey fog") and fits(first, TOKENIZERS)
    assert prompts(replace(job, number=1, seed=4)) == first
    prompts(replace(job, kind="bird nest"))
    assert seen == [(1024, 512)] and len(written) == 2 and "Keywords: fog" in written[0]
