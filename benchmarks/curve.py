"""Does the 90% interval of `llava-inspect curve` hold what a training on twice the photos really scores?

Each run renders 2n photos and a test of its own, and trains on nested parts of them: n/8, n/4, n/2 and n,
from which `curve` predicts the scores at 2n, and all 2n, which is the truth. All answer the same test
questions. The table counts how often the interval holds the real score: of presence and kind it should in 17
runs of 20. On simulated curves benchmarks.curve_simulated counts the same.

    python -m benchmarks.curve --output runs/bench_curve --workers 2
    python -m benchmarks.curve --output runs/bench_curve_try --runs 1 --photos 32 --test-photos 24 max_steps=4

The second takes a few minutes. `--workers` runs are done side by side, each in a process of its own.
A killed run goes on with the same command: runs.jsonl holds a line for each run that is done.
"""

from __future__ import annotations

import argparse
import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from benchmarks.suspects import command
from benchmarks.units import Unit, add_unit, read_units
from eval.answering.questions import read_questions
from eval.scoring.answers import AnswerFile, read_answers, read_truth
from eval.scoring.learning_curve import LEVEL, Range, ScoredParts, make_curve, score_parts
from eval.scoring.tasks import group_by_task
from llava.common.errors import run_command
from llava.common.files import write_json
from llava.common.records import Truth
from llava.common.shipped import DEFAULT_CONFIG
from llava_inspect.curve import RESAMPLES, SHARES, nested_parts
from llava_inspect.parts import QUESTIONS, TRUTH, PartedRun, count_photos, do_parts, plan, read_records

AIM = ("presence", "kind")
AIM_SHARE = 17 / 20


class Predicted(BaseModel):
    """A score at each part, what was predicted for twice the last (or why nothing was), and the truth."""

    name: str
    metric: str
    measured: list[float]
    expected: Range | None = None
    why_not: str = ""
    real: float


class Run(Unit):
    number: int
    photos: list[int]
    """Of each part; the last is what was predicted for."""
    scores: list[Predicted]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--photos", type=int, default=400, help="n: what the largest part of `curve` holds")
    parser.add_argument("--test-photos", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1, help="processes side by side")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="training settings")
    args = parser.parse_intermixed_args()
    settings = {"photos": args.photos, "test_photos": args.test_photos, "overrides": args.overrides}
    file = args.output / "runs.jsonl"
    runs = read_units(file, Run, settings)
    left = sorted(set(range(args.runs)) - {run.number for run in runs})
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(do_run, number, args, settings) for number in left]):
            add_unit(file, runs, done.result())
            report(runs, args.output / "curve.json")
    report(runs, args.output / "curve.json")


def do_run(number: int, args: Namespace, settings: dict[str, Any]) -> Run:
    """Do one run, and remove its folder."""
    began = time.monotonic()
    folder = args.output / f"run{number}"
    photos, scores = train_and_predict(folder, number, args)
    shutil.rmtree(folder)
    seconds = round(time.monotonic() - began, 1)
    return Run(settings=settings, seconds=seconds, number=number, photos=photos, scores=scores)


def train_and_predict(folder: Path, number: int, args: Namespace) -> tuple[list[int], list[Predicted]]:
    """Do one run in its folder, or go on with it; returns the numbers of photos and the scores."""
    photos, test, data = folder / "photos", folder / "test", folder / "data"
    render(photos, 2 * args.photos, 1000 + number)
    render(test, args.test_photos, 2000 + number)
    convert(photos, test, data)
    run = plan_run(data, folder / "parts", number, args.overrides)
    shares = [2 * share for share in SHARES] + [1]
    parts = nested_parts(read_records(data), read_questions(data / QUESTIONS), shares)
    do_parts(run, parts)
    _, truths = read_truth(data / TRUTH)
    files = [read_answers(run.answers(part), part.name, truths, data / TRUTH) for part in parts]
    sizes = [count_photos(part.records) for part in parts]
    return sizes, predict_scores(sizes, truths, files)


def render(output: Path, count: int, seed: int) -> None:
    """Render photos, unless they are there."""
    if not output.exists():
        command("scenes", "--count", count, "--seed", seed, "--output", output)


def convert(photos: Path, test: Path, data: Path) -> None:
    """Convert rendered photos to train and to test on, unless they are."""
    if not data.exists():
        command("convert", "--source", photos, "--test-source", test, "--recipe", "insulator",
                "--output", data, "splits.val=0")  # fmt: skip


def plan_run(data: Path, output: Path, seed: int, overrides: Sequence[str]) -> PartedRun:
    """Make a run of trainings from a seed."""
    settings = [f"seed={seed}", *overrides]
    return plan(
        Namespace(data=data, output=output, config=DEFAULT_CONFIG, overrides=settings, overwrite=False)
    )


def predict_scores(
    sizes: Sequence[int], truths: Sequence[Truth], files: Sequence[AnswerFile]
) -> list[Predicted]:
    """Predict all scores of the last part from those of the others, given the answers of each part."""
    return [
        predict_last(sizes, scored)
        for task, of_task in group_by_task(truths).items()
        for scored in score_parts(task, of_task, files, RESAMPLES)
    ]


def predict_last(sizes: Sequence[int], scored: ScoredParts) -> Predicted:
    """Predict the score of the last part from the others, as `llava-inspect curve` does."""
    known = replace(scored, values=scored.values[:-1], draws=scored.draws[:, :-1])
    curve = make_curve(sizes[:-1], known)
    return Predicted(
        name=scored.name,
        metric=scored.metric,
        measured=[part.value for part in curve.measured],
        expected=curve.expected,
        why_not=curve.why_not,
        real=round(float(scored.values[-1]), 4),
    )


def report(runs: Sequence[Run], file: Path) -> None:
    """Print how often the intervals held, and write all."""
    rows = summarise(runs)
    print(
        f"\n{len(runs)} runs, {LEVEL:.0%} intervals, {runs[0].photos} photos\n" if runs else "no run is done"
    )
    print("| score | could say | holds | mean width | mean error | real gain, mean | aim |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        said, held = row["could_say"], row["holds"]
        figures = [row["mean_width"], row["mean_error"], row["mean_gain"]]
        shown = " | ".join("" if figure is None else f"{figure:.3f}" for figure in figures)
        print(f"| {row['score']} | {said} of {row['runs']} | {held} | {shown} | {row['aim']} |", flush=True)
    write_json(file, {"summary": rows, "runs": [run.model_dump() for run in runs]})


def summarise(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return for each score how often it could be predicted and the interval held, and how wide that is."""
    by_name: dict[str, list[Predicted]] = {}
    for run in runs:
        for score in run.scores:
            by_name.setdefault(score.name, []).append(score)
    rows = []
    for name, scores in by_name.items():
        said = [(score.expected, score.real) for score in scores if score.expected]
        held = sum(expected.low <= real <= expected.high for expected, real in said)
        rows.append({
            "score": name,
            "metric": scores[0].metric,
            "runs": len(scores),
            "could_say": len(said),
            "holds": held,
            "mean_width": _mean([expected.high - expected.low for expected, _ in said]),
            "mean_error": _mean([real - expected.value for expected, real in said]),
            "mean_gain": _mean([score.real - score.measured[-1] for score in scores]),
            "aim": ("met" if held >= AIM_SHARE * len(said) else "missed") if said and name in AIM else "",
        })  # fmt: skip
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


if __name__ == "__main__":
    run_command(main)
