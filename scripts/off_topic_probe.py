"""General questions without any defect, to see what tuning cost: colours, shapes, places and numbers of drawn
things.

    python scripts/off_topic_probe.py --output runs/probe
    # the same with the base model: --answers-file runs/probe/base.jsonl
    python -m eval.infer --model-path runs/merged --image-folder runs/probe \\
        --question-file runs/probe/questions.jsonl --answers-file runs/probe/merged.jsonl
    python -m eval.score ... --probe-truth runs/probe/truth.jsonl --probe-answers runs/probe/merged.jsonl \\
        --probe-baseline-answers runs/probe/base.jsonl

The scenes are drawn by scripts/tiny_base/, of a seed that the embedded base was never trained on. Any LLaVA
can be asked: what counts is base against tuned, not the share of right answers by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, wherever it is called from

import llava  # noqa: F401  # before what only the right Python has

# isort: split
import numpy as np
from tiny_base.canvas import COLOURS, HELD_OUT_SEED, PLACES, SHAPES
from tiny_base.questions import questions
from tiny_base.scenes import render

from llava.common.errors import InputError, run_command
from llava.common.files import atomic_folder, write_jsonl
from llava.common.records import YES_NO, Question, TaskType, Truth

STREAM = 20_000_000  # the first scene; the embedded base is scored on scenes before it

# By family of questions: the type of its answers, and their list where it is closed.
ANSWERS: dict[str, tuple[TaskType, Sequence[str]]] = {
    "presence": ("yesno", YES_NO),
    "any_colour": ("yesno", YES_NO),
    "colour": ("class", tuple(COLOURS)),
    "shape": ("class", SHAPES),
    "place": ("class", PLACES),
    "choice": ("class", "ABC"),
    "count": ("count", ()),
}


def build(folder: Path, images: int, seed: int) -> int:
    """Write images/, questions.jsonl and truth.jsonl into `folder`, and return the number of questions.

    At most one question of a family is asked about an image.
    """
    (folder / "images").mkdir()
    rng = np.random.default_rng((HELD_OUT_SEED, STREAM, seed))
    lines: list[tuple[Question, Truth]] = []
    drawn = 0
    for index in count(STREAM + seed * 1_000_000):
        if drawn == images:
            break
        scene = render(HELD_OUT_SEED, index)
        if not scene.things:  # a row of parts is too much like what is inspected
            continue
        name = f"images/{drawn:05d}.png"
        scene.image.save(folder / name)
        families: set[str] = set()
        for family, text, answer in questions(scene, rng):
            if family in ANSWERS and family not in families:
                families.add(family)
                lines.append(_question_and_truth(f"{drawn:05d}-{family}", name, family, text, answer))
        drawn += 1
    write_jsonl(folder / "questions.jsonl", [question for question, _ in lines])
    write_jsonl(folder / "truth.jsonl", [truth for _, truth in lines])
    return len(lines)


def _question_and_truth(
    question_id: str, image: str, family: str, text: str, answer: str
) -> tuple[Question, Truth]:
    task_type, classes = ANSWERS[family]
    choices = list(classes) or None
    return (
        Question(question_id=question_id, image=image, text=text, category=family, choices=choices),
        Truth(
            question_id=question_id,
            answer=answer,
            task=family,
            type=task_type,
            group=image,
            classes=choices if task_type == "class" else None,
        ),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--pictures", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other pictures (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.pictures < 1 or arguments.seed < 0:
        raise InputError("--pictures must be at least 1, --seed a whole number from 0 up")
    with atomic_folder(arguments.output) as folder:
        number = build(folder, arguments.pictures, arguments.seed)
    print(f"{arguments.pictures} pictures, {number} questions: {arguments.output}")
    return 0


if __name__ == "__main__":
    run_command(main)
