"""What a training benchmark asks of a contender, and the data it is given. Torch-free.

Pictures are made at the model's own size, so that no contender decodes or resizes more than it must, and
short questions with short answers like those of our recipes, with a filler that brings a question and its
answer to about 50 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

REPO = Path(__file__).resolve().parents[1]
TOKENIZER_FOLDER = REPO / "playground" / "tiny-llava"
IMAGE_SIDE = 336  # pixels; with patches of 14 it is 24 x 24 = 576 tokens
CHATS = 5  # in which the inference benchmark times a second turn; the median counts
Device = Literal["cpu", "cuda"]
RANK, ALPHA, LEARNING_RATE = 16, 32, 2e-4
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

PARTS = ("clamp", "top disc", "bottom disc", "third disc", "cap", "pin", "conductor", "cross-arm")
STATES = ("no defect", "a broken disc", "a missing disc", "flashover marks", "pollution", "a bird nest")
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom right")


@dataclass(frozen=True)
class Job:
    """One process's work: `warm_steps` optimiser steps, then `steps` measured ones, then one more, so that
    as many batches are made ready within the measured time as are trained on."""

    folder: Path
    data: Path
    result: Path
    order: Path
    """The order in which ours read the records, for the contender that reads them one by one."""
    device: Device
    questions: int
    batch: int
    """Records an optimiser step."""
    warm_steps: int
    steps: int
    packing: bool
    gradient_checkpointing: bool
    workers: int
    attention: str = "auto"
    """Ours: the setting `attn_implementation`."""
    profile: bool = False

    @property
    def base(self) -> Path:
        return self.folder / f"base_{self.device}"

    @property
    def all_steps(self) -> int:
        return self.warm_steps + self.steps + 1

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), default=str), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        fields = json.loads(path.read_text(encoding="utf-8"))
        paths = {name: Path(fields[name]) for name in ("folder", "data", "result", "order")}
        return cls(**{**fields, **paths})


def write_data(folder: Path, questions: int, records: int) -> Path:
    """`records` records of conversation JSON, `questions` to a picture, and their pictures."""
    rng = np.random.default_rng(questions)
    images = folder / "pictures"
    images.mkdir(exist_ok=True)
    out = []
    for number in range(-(-records // questions)):
        name = f"pictures/{number:05d}.jpg"
        if not (folder / name).is_file():
            image(number).save(folder / name, quality=90)
        out += [_record(rng, number, question, name) for question in range(questions)]
    path = folder / f"data_{questions}.json"
    path.write_text(json.dumps(out[:records]), encoding="utf-8")
    return path


def image(seed: int) -> Image.Image:
    """Coloured blocks under noise: no two alike, and no easier to decode than a photo."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (12, 12, 3)).repeat(IMAGE_SIDE // 12, 0).repeat(IMAGE_SIDE // 12, 1)
    noise = rng.normal(0, 20, blocks.shape)
    return Image.fromarray(np.clip(blocks + noise, 0, 255).astype(np.uint8))


def question_and_answer(rng: np.random.Generator) -> tuple[str, str]:
    part, state, place = (str(rng.choice(words)) for words in (PARTS, STATES, PLACES))
    asked = (
        f"Is there {state} at the {part} in the {place} of the picture? Look at the discs one by one. "
        "Answer with yes or no and say where it is."
    )
    return (
        asked,
        f"Yes, {state} at the {part}, {place}." if rng.random() < 0.5 else "No, nothing of the kind.",
    )


def questions_of_images(images: int, questions: int, first: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield the seed of each image, from `first` on, and the questions about it."""
    rng = np.random.default_rng(first)
    for seed in range(first, first + images):
        yield seed, [question_and_answer(rng)[0] for _ in range(questions)]


def _record(rng: np.random.Generator, number: int, question: int, name: str) -> dict[str, object]:
    asked, answer = question_and_answer(rng)
    return {
        "id": f"{number:05d}-{question}",
        "image": name,
        "conversations": [
            {"from": "human", "value": f"<image>\n{asked}"},
            {"from": "gpt", "value": answer},
        ],
    }
