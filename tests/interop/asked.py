"""What the clients are asked: held-out scenes of the embedded base's own kind, and questions that it knows.
Every second picture is wide, for the client to pad."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))  # last: it has modules with names of ours here

from tiny_base.canvas import HELD_OUT_SEED, SIZE  # noqa: E402
from tiny_base.questions import questions  # noqa: E402
from tiny_base.scenes import render  # noqa: E402

from llava.inference.engine import Engine, Request  # noqa: E402
from llava.model.builder import LoadedModel  # noqa: E402

FIRST = 9_000_000  # of the held-out scenes: the base's card uses others
MAX_NEW_TOKENS = 48


@dataclass(frozen=True)
class Asked:
    """A question about a picture."""

    text: str
    picture: Path


def save_questions(folder: Path, pictures: int = 25, each: int = 4) -> list[Asked]:
    """Draw pictures and the first questions about each."""
    asked = []
    for index in range(pictures):
        scene = render(HELD_OUT_SEED, FIRST + index)
        picture = folder / f"{index}.png"
        size = (SIZE * 3 // 2, SIZE) if index % 2 else (SIZE, SIZE)
        scene.image.resize(size).save(picture)
        pairs = questions(scene, np.random.default_rng(index))
        asked += [Asked(text, picture) for _, text, _ in pairs[:each]]
    return asked


def our_answers(loaded: LoadedModel, asked: list[Asked]) -> list[str]:
    images = {picture: Image.open(picture).convert("RGB") for picture in {one.picture for one in asked}}
    requests = [Request(number, one.text, [images[one.picture]]) for number, one in enumerate(asked)]
    results = Engine(loaded).answer(requests, max_new_tokens=MAX_NEW_TOKENS)
    return [result.text for result in results]
