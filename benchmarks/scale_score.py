"""Measure how long `llava-inspect score` takes for a test of many answers, and how much memory.

    python -m benchmarks.scale_score --answers 100000 1000000 --output scale_score.json

Writes truth, questions and the answers of a tuned and of a base model as `convert` and `infer` write them, to
a temporary folder: 7 questions about each picture (presence, kind and place with probabilities, count, box,
description, report), groups of 1 to 5 pictures. There are no pictures: the report says so. Then the command
itself runs, in a process of its own. Bytes an answer are what its peak grows by from a test of 1,000 answers
on; an answer is a question with its truth and the answers of both models (of one with `--alone`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from llava.common.files import write_json

REPO = Path(__file__).resolve().parents[1]
KINDS = ("missing disc", "broken disc", "flashover", "pollution", "bird nest", "none")
PLACES = (
    *("top left", "top", "top right", "left", "centre", "right"),
    *("bottom left", "bottom", "bottom right", "not in this picture"),
)
LINES = ("line_north", "line_south", "line_west")
QUESTIONS = {
    "presence": "Is there a defect?",
    "kind": "What is wrong with the insulator?",
    "where": "Where is the {kind}?",
    "count": "How many defects are there?",
    "box": "Give the box of the {kind}.",
    "describe": "Describe the insulator.",
    "report": "Write a condition report of the insulator as JSON.",
}
CHOICES = {"presence": ("yes", "no"), "kind": KINDS, "where": PLACES}
CLASSES = {"kind": KINDS, "where": PLACES, "box": PLACES[-1:]}
TYPES = {
    **{"presence": "yesno", "kind": "class", "where": "class", "count": "count"},
    **{"box": "box", "describe": "text", "report": "json"},
}
GUESSES = {"presence": "no", "kind": KINDS[0], "where": PLACES[0], "count": "0"}  # without looking
RIGHT = {"tuned": 0.85, "base": 0.5}  # share of the answers
SMALLEST = 1000  # answers of the run that the others are compared with
Row = dict[str, Any]


# --- a test like those of `convert`, and answers like those of `infer` --------------------------------


def make_test(answers: int, seed: int = 0) -> Iterator[tuple[Row, Row, Row, Row]]:
    """Yield a line each of truth, questions, and the answers of tuned and base, `answers` times."""
    generator = np.random.default_rng(seed)
    rows = (row for picture, group in _pictures(generator) for row in _ask(picture, group, generator))
    for truth, question in islice(rows, answers):
        tuned, base = (_answer(truth, question, model, generator) for model in RIGHT)
        yield truth, question, tuned, base


def _pictures(generator: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Yield numbers of pictures without end, each with that of its group, which has 1 to 5 pictures."""
    picture = count(0)
    for group in count(0):
        for _ in range(generator.integers(1, 6)):
            yield next(picture), group


def _ask(picture: int, group: int, generator: np.random.Generator) -> Iterator[tuple[Row, Row]]:
    """Yield the truth and the question of each question about a picture; every other one has no defect."""
    defective = picture % 2 == 0
    kind = KINDS[generator.integers(len(KINDS) - 1)] if defective else KINDS[-1]
    place = PLACES[generator.integers(len(PLACES) - 1)] if defective else PLACES[-1]
    low, high = np.sort(generator.uniform(0.1, 0.9, (2, 2)), axis=0)
    box = [f"{value:.3f}" for value in (*low - 0.02, *high + 0.02)]
    described = f"An insulator with a {kind} at the {place}, {picture % 97} m from the mast."
    report = {"component": "insulator", "defect": kind, "severity": "severe", "location": place}
    answers = {
        "presence": "yes" if defective else "no",
        "kind": kind,
        "where": place,
        "count": str(generator.integers(1, 4)) if defective else "0",
        "box": f"[{', '.join(box)}]" if defective else PLACES[-1],
        "describe": described if defective else "An insulator without defects.",
        "report": json.dumps(report),
    }
    line = LINES[group % len(LINES)]
    source = f"{line}/photo_{picture:07d}"
    for number, (task, answer) in enumerate(answers.items()):
        meta: Row = {"source": source, "kinds": [kind] if defective else [], "about": "defect"}
        if task == "box":
            meta |= {"frame": "padded", "decimals": 3, "width": 304, "height": 304 + 16 * (picture % 4)}
        if defective:
            meta["area"] = round(float(np.prod(high - low + 0.04)), 5)
        if task in GUESSES:
            meta["blind"] = answer if generator.random() < 0.4 else GUESSES[task]
        ids: Row = {"question_id": f"{picture * len(QUESTIONS) + number:016x}"}
        truth = ids | {
            "answer": answer,
            "task": task,
            "type": TYPES[task],
            "group": f"{line}/mast_{group:06d}",
        }
        truth |= {"classes": list(CLASSES[task])} if task in CLASSES else {}
        truth |= {"label": kind, "language": "en", "meta": meta}
        text = QUESTIONS[task].format(kind=kind if defective else KINDS[0])
        question = ids | {"image": f"images/{picture:016x}.jpg", "text": text, "category": task}
        question |= {"choices": list(CHOICES[task])} if task in CHOICES else {}
        yield truth, question | {"source": f"{source}.jpg"}


def _answer(truth: Row, question: Row, model: str, generator: np.random.Generator) -> Row:
    """Return a model's answer, with probabilities where the question has choices."""
    metadata: Row = {"source": question["source"]}
    said = truth["answer"]
    if choices := question.get("choices"):
        scores = generator.normal(size=len(choices))
        scores[choices.index(said)] += 4 * RIGHT[model] - 1
        chances = np.exp(scores) / np.exp(scores).sum()
        metadata["choices"] = {name: round(float(p), 6) for name, p in zip(choices, chances, strict=True)}
        said = choices[int(chances.argmax())]
    elif generator.random() > RIGHT[model]:
        said = {
            "count": "2",
            "box": f"[0.100, 0.200, 0.{generator.integers(300, 999)}, 0.700]",
            "describe": f"The picture shows an insulator, a mast and {generator.integers(1000)} trees.",
            "report": '{"component": "insulator", "defect": "none"}',
        }[truth["task"]]
    return {
        "question_id": truth["question_id"],
        "prompt": question["text"],
        "text": said,
        "answer_id": f"{generator.integers(1 << 62):016x}",
        "model_id": model,
        "metadata": metadata,
    }


def write_test(folder: Path, answers: int) -> None:
    """Write truth.jsonl, questions.jsonl, tuned.jsonl and base.jsonl."""
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / f"{name}.jsonl").open("w", encoding="utf-8"))
            for name in ("truth", "questions", "tuned", "base")
        ]
        for rows in make_test(answers):
            for file, row in zip(files, rows, strict=True):
                file.write(json.dumps(row) + "\n")


# --- measuring ---------------------------------------------------------------------------------------


def measure(folder: Path, alone: bool) -> tuple[float, float]:
    """Run the command on the files of `write_test`; returns seconds and the peak of its memory in MB."""
    command = [sys.executable, "-m", "eval.score", "--truth-file", f"{folder}/truth.jsonl"]
    command += ["--answers-file", f"{folder}/tuned.jsonl", "--output", f"{folder}/scores"]
    command += [] if alone else ["--baseline-answers", f"{folder}/base.jsonl"]
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"eval.score ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", type=int, nargs="+", default=[100_000], metavar="N")
    parser.add_argument("--alone", action="store_true", help="without the answers of a base model")
    parser.add_argument("--output", type=Path, help="JSON to write the figures to")
    parser.add_argument("--write", type=Path, metavar="DIR", help="only write the files of the first N here")
    args = parser.parse_args()
    if args.write:
        args.write.mkdir(parents=True, exist_ok=True)
        write_test(args.write, args.answers[0])
        return
    rows: list[Row] = []
    for answers in (SMALLEST, *args.answers):
        with tempfile.TemporaryDirectory() as folder:
            # A process starts with its parent's peak as its own: this one stays small.
            write = [sys.executable, "-m", "benchmarks.scale_score", "--answers", str(answers)]
            subprocess.run([*write, "--write", folder], check=True, cwd=REPO)
            seconds, peak = measure(Path(folder), args.alone)
        grown = 1e6 * (peak - rows[0]["peak_mb"]) / (answers - SMALLEST) if rows else None
        rows.append({"answers": answers, "seconds": seconds, "peak_mb": peak, "bytes_an_answer": grown})
    print("| answers | seconds | peak MB | bytes an answer |\n|---|---|---|---|")
    for row in rows:
        grown = row["bytes_an_answer"]
        shown = "" if grown is None else f"{grown:,.0f}"
        print(f"| {row['answers']:,} | {row['seconds']:,.1f} | {row['peak_mb']:,.0f} | {shown} |")
    if args.output:
        write_json(args.output, {"base": not args.alone, "runs": rows})


if __name__ == "__main__":
    main()
