"""Is it better to label what `llava-inspect next` chooses than photos at random, or those most in doubt?

For each seed a pool of photos is rendered, and a test. 50 photos at random are labelled first, then 50 more
in each round, in three ways: `next`, which chooses from a survey of the pool by the model of the round before
(without a novelty bank); `uncertain`, the photos whose p_yes in such a survey is nearest 0.5; and `random`.
After each round the base is trained anew on all that is labelled, and scored by its balanced accuracy on the
test. The first photos, the test and the training seed are the same for the three ways, so that they are
compared in pairs. The area between two curves is divided by its width, which makes it a mean difference of
the scores; its intervals are Student's over the seeds.

    python -m benchmarks.next_to_label --output runs/bench_next
    python -m benchmarks.next_to_label --output runs/bench_next_try --seeds 2 --pool 40 --each 8 --rounds 2 \
        --test-photos 20 max_steps=4

The first takes some 5 hours on two cores (an estimate from 150 steps of training and a survey of 300
photos), the second a few minutes.
A killed run goes on with the same command: rounds.jsonl holds a line for each training that is scored.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.curve import convert, plan_run, render
from benchmarks.suspects import command
from benchmarks.units import Unit, add_unit, read_units
from eval.answering.questions import read_questions
from eval.next import choose
from eval.prelabels.labels import read_findings
from eval.scoring.answers import read_answers, read_truth
from eval.scoring.learning_curve import score_parts
from eval.survey.findings import Finding
from eval.survey.sightings import DEFECT
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_folder, sha256, write_json, write_text
from llava.common.shipped import RECIPES, shipped_root
from llava_inspect.parts import QUESTIONS, TRUTH, Part, do_parts, read_records

FIRST = "first"
NEXT, UNCERTAIN, RANDOM = WAYS = ("next", "uncertain", "random")
TASKS = ("presence", "kind")
PAIRS = ((NEXT, RANDOM), (NEXT, UNCERTAIN), (UNCERTAIN, RANDOM))
# What the survey asks: the questions whose answers the choice depends on.
SURVEY_RECIPE = "extends: {recipe}\nfamilies: {{count: null, where: null, describe: null}}\n"


class Round(Unit):
    """A training on what was labelled one way up to a round (0: the first photos, for all ways)."""

    seed: int
    way: str
    number: int
    questions: str
    """A hash of the test questions: they must be the same for all."""
    scores: dict[str, float]
    chosen: dict[str, list[str]]
    """What each way that needs the model would label next."""


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and what is done of it."""

    output: Path
    pool: int
    test_photos: int
    each: int
    rounds: int
    overrides: Sequence[str]
    settings: dict[str, Any]
    done: list[Round]

    @property
    def file(self) -> Path:
        return self.output / "rounds.jsonl"

    def find(self, seed: int, way: str, number: int) -> Round | None:
        wanted = (seed, way, number)
        return next((one for one in self.done if (one.seed, one.way, one.number) == wanted), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=2000, help="photos to choose from")
    parser.add_argument("--each", type=int, default=50, help="photos labelled first, and in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--test-photos", type=int, default=300)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="training settings")
    args = parser.parse_intermixed_args()
    if args.each * (args.rounds + 1) > args.pool:
        raise InputError(f"--pool {args.pool}: too few for {args.each} first and in {args.rounds} rounds")
    settings = {name: value for name, value in vars(args).items() if name not in ("output", "seeds")}
    done = read_units(args.output / "rounds.jsonl", Round, settings)
    bench = Benchmark(args.output, settings=settings, done=done, **settings)
    for seed in range(args.seeds):
        do_seed(bench, seed)
        report(bench)


def do_seed(bench: Benchmark, seed: int) -> None:
    """Do what is not done yet of all rounds of a seed, way by way."""
    folder = bench.output / f"seed{seed}"
    if bench.find(seed, WAYS[-1], bench.rounds) is None:
        render(folder / "pool", bench.pool, 1000 + seed)
        render(folder / "test", bench.test_photos, 2000 + seed)
    order = [f"scene_{1000 + seed}_{index:05d}.jpg" for index in range(bench.pool)]
    random.Random(seed).shuffle(order)
    first = do_round(bench, seed, FIRST, 0, order[: bench.each])
    for way in WAYS:
        labelled, last = order[: bench.each], first
        for number in range(1, bench.rounds + 1):
            labelled += last.chosen.get(way) or order[len(labelled) : len(labelled) + bench.each]
            last = do_round(bench, seed, way, number, labelled)
            if last.questions != first.questions:
                raise InputError(f"{folder}: round {number} of {way} was asked other test questions")
    shutil.rmtree(folder, ignore_errors=True)


def do_round(bench: Benchmark, seed: int, way: str, number: int, labelled: Sequence[str]) -> Round:
    """Train on the labelled photos, score, and choose what to label next; what is done is looked up."""
    if done := bench.find(seed, way, number):
        return done
    began = time.monotonic()
    scenes = bench.output / f"seed{seed}"
    folder = scenes / f"{way}{number}"
    data = folder / "data"
    if not (folder / "labelled").exists():
        copy_scenes(scenes / "pool", labelled, folder / "labelled")
    convert(folder / "labelled", scenes / "test", data)
    run = plan_run(data, folder / "model", seed, bench.overrides)
    questions = [question for question in read_questions(data / QUESTIONS) if question.category in TASKS]
    title = f"Seed {seed}, {way}, round {number}, {len(labelled)} photos"
    part = Part("trained", title, read_records(data), questions)
    do_parts(run, [part])
    scores = score(run.answers(part), data / TRUTH)
    chosen = {}
    ways = [one for one in CHOOSERS if way in (FIRST, one)]
    if ways and number < bench.rounds:
        findings = survey(run.output / part.name / "adapter", scenes / "pool", folder)
        unlabelled = [finding for finding in findings if not {*finding.photos} & {*labelled}]
        chosen = {one: CHOOSERS[one](unlabelled, bench.each) for one in ways}
        if any(len(photos) < bench.each for photos in chosen.values()):
            raise InputError(f"{folder}: fewer than {bench.each} photos to choose; render a larger --pool")
    done = Round(
        settings=bench.settings,
        seconds=round(time.monotonic() - began, 1),
        seed=seed,
        way=way,
        number=number,
        questions=sha256(data / QUESTIONS),
        scores=scores,
        chosen=chosen,
    )
    add_unit(bench.file, bench.done, done)
    shutil.rmtree(folder)
    return done


def score(answers_file: Path, truth_file: Path) -> dict[str, float]:
    """Return the balanced accuracy of each of TASKS, the headline of both."""
    _, truths = read_truth(truth_file)
    answers = read_answers(answers_file, "tuned", truths, truth_file)
    scores = {}
    for task in TASKS:
        whole, *_ = score_parts(task, [truth for truth in truths if truth.task == task], [answers], 1)
        scores[task] = round(float(whole.values[0]), 5)
    return scores


def copy_scenes(pool: Path, photos: Sequence[str], output: Path) -> None:
    """Copy some of the rendered photos with their annotations: those are the labelled ones."""
    with atomic_folder(output) as folder:
        for name in ("images", "annotations"):
            (folder / name).mkdir()
        for photo in photos:
            annotation = f"{Path(photo).stem}.xml"
            shutil.copy(pool / "images" / photo, folder / "images" / photo)
            shutil.copy(pool / "annotations" / annotation, folder / "annotations" / annotation)


def survey(adapter: Path, pool: Path, folder: Path) -> list[Finding]:
    """Have the model survey the pool, unless it has; returns what it found."""
    output, recipe = folder / "survey", folder / "survey.yaml"
    if not (output / "answers.jsonl").exists():  # which is written last
        shipped = shipped_root() / RECIPES / "insulator.yaml"
        write_text(recipe, SURVEY_RECIPE.format(recipe=shipped.resolve()))
        command("survey", "--model-path", adapter, "--photos", pool / "images",
                "--recipe", recipe, "--output", output)  # fmt: skip
    return read_findings(output / "findings.json").findings


def choose_next(findings: Sequence[Finding], count: int) -> list[str]:
    return [candidate.finding.photo for candidate in choose(findings, count)]


def choose_uncertain(findings: Sequence[Finding], count: int) -> list[str]:
    """Return the photos whose probability of a defect is nearest 0.5, the nearest first."""
    doubts = {
        finding.photo: abs(finding.p_yes - 0.5)
        for finding in findings
        if finding.about == DEFECT and finding.p_yes is not None
    }
    return sorted(doubts, key=lambda photo: doubts[photo])[:count]


CHOOSERS = {NEXT: choose_next, UNCERTAIN: choose_uncertain}


# --- what comes out ----------------------------------------------------------------------------------


def curves(done: Sequence[Round], rounds: int, task: str) -> dict[str, np.ndarray]:
    """Return the scores (seeds, 1 + rounds) of each way, of the seeds that are done."""
    scores = {(one.seed, one.way, one.number): one.scores[task] for one in done}
    seeds = [seed for seed in sorted({one.seed for one in done}) if (seed, WAYS[-1], rounds) in scores]
    return {
        way: np.array([
            [scores[seed, FIRST, 0], *(scores[seed, way, number] for number in range(1, rounds + 1))]
            for seed in seeds
        ])
        for way in WAYS
    }  # fmt: skip


def area_between(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Return the area between two curves (seeds, points) over its width, with a 95% interval over seeds."""
    areas = np.trapezoid(one - other, axis=1) / (one.shape[1] - 1)
    mean, seeds = float(areas.mean()), len(areas)
    half = None
    if seeds > 1:
        half = float(stats.t.ppf(0.975, seeds - 1) * areas.std(ddof=1) / np.sqrt(seeds))
    return {
        "mean": round(mean, 4),
        "low": None if half is None else round(mean - half, 4),
        "high": None if half is None else round(mean + half, 4),
        "seeds": [round(float(area), 4) for area in areas],
    }


def report(bench: Benchmark) -> None:
    """Print the curves and the areas between them, and write them."""
    found = {task: curves(bench.done, bench.rounds, task) for task in TASKS}
    areas = {
        task: {f"{one} - {other}": area_between(ways[one], ways[other]) for one, other in PAIRS}
        for task, ways in found.items()
    }
    print("\n".join(["", *tables(found, areas, bench.each)]), flush=True)
    means = {
        task: {way: scores.mean(axis=0).round(4).tolist() for way, scores in ways.items()}
        for task, ways in found.items()
    }
    write_json(
        bench.output / "next_to_label.json",
        {"settings": bench.settings, "seeds": seeds_of(found), "scores": means, "areas": areas},
    )


def seeds_of(found: dict[str, dict[str, np.ndarray]]) -> int:
    return len(found[TASKS[0]][RANDOM])


def tables(
    found: dict[str, dict[str, np.ndarray]], areas: dict[str, dict[str, dict[str, Any]]], each: int
) -> Iterator[str]:
    """Yield the lines of two Markdown tables."""
    points = found[TASKS[0]][RANDOM].shape[1]
    labelled = " | ".join(f"{each * (point + 1)} photos" for point in range(points))
    yield f"Balanced accuracy, mean of {seeds_of(found)} seeds:\n"
    yield f"| | {labelled} |"
    yield "|---" * (points + 1) + "|"
    for task, ways in found.items():
        for way, scores in ways.items():
            yield f"| {task}, {way} | " + " | ".join(f"{score:.3f}" for score in scores.mean(axis=0)) + " |"
    yield "\nArea between the curves, as a mean difference [95% interval over seeds]:\n"
    yield "| | " + " | ".join(areas[TASKS[0]]) + " |"
    yield "|---" * (len(PAIRS) + 1) + "|"
    for task, pairs in areas.items():
        yield f"| {task} | " + " | ".join(map(shown, pairs.values())) + " |"


def shown(area: dict[str, Any]) -> str:
    interval = "" if area["low"] is None else f" [{area['low']:+.3f}, {area['high']:+.3f}]"
    return f"{area['mean']:+.3f}{interval}"


if __name__ == "__main__":
    run_command(main)
