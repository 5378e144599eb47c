"""Is it better to label what `llava-inspect next` chooses than photos at random, or those most in doubt?

For each seed a pool of photos is rendered, and a test. 50 photos at random are labelled first, then 50 more
in each round, in three ways: `next`, which chooses from a survey of the pool by the model of the round before
(without a novelty bank); `uncertain`, the photos whose p_yes in such a survey is nearest 0.5; and `random`.
After each round the base is trained anew on all that is labelled, and scored by its balanced accuracy on the
test. The first photos, the test and the training seed are the same for the three ways, so that they are
compared in pairs. The area between two curves is divided by its width, which makes it a mean difference of
the scores; its intervals are Student's over the seeds.

    python -m benchmarks.next_to_label --output runs/bench_next --workers 2
    python -m benchmarks.next_to_label --output runs/bench_next_try --seeds 2 --pool 40 --each 8 --rounds 2 \
        --test-photos 20 max_steps=4

The second takes a few minutes. `--workers` seeds or ways are done side by side, each in a process of its own;
on a GPU up to 15. A killed run goes on with the same command: rounds/ holds a line for each training.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curve import convert, plan_run, render
from benchmarks.paired import mean_with_interval, shown
from benchmarks.suspects import command
from benchmarks.units import Unit, add_unit, read_units
from eval.answering.questions import read_questions
from eval.next import choose
from eval.prelabels.labels import read_findings
from eval.scoring.answers import AnswerFile, read_answers, read_truth
from eval.scoring.learning_curve import score_parts
from eval.survey.findings import Finding
from eval.survey.sightings import DEFECT
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_folder, sha256, write_json, write_text
from llava.common.records import Truth
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
class Learned:
    """What a model that was trained on the labelled photos scores, and what it finds in the pool's."""

    questions: str
    """See `Round`."""
    scores: dict[str, float]
    findings: Sequence[Finding]
    """Empty where they were not asked for."""


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and where what is done of it lies."""

    output: Path
    pool: int
    test_photos: int
    each: int
    rounds: int
    overrides: Sequence[str]

    @property
    def settings(self) -> dict[str, Any]:
        """What every finished round must have been done with."""
        return {name: value for name, value in vars(self).items() if name != "output"}

    def done(self, seed: int, way: str) -> list[Round]:
        """Read the finished rounds of a seed in one way."""
        return read_units(self.file(seed, way), Round, self.settings)

    def file(self, seed: int, way: str) -> Path:
        return self.output / "rounds" / f"{seed}_{way}.jsonl"

    def order(self, seed: int) -> list[str]:
        """Return the photos of a seed's pool in the order in which chance labels them."""
        order = [f"scene_{1000 + seed}_{index:05d}.jpg" for index in range(self.pool)]
        random.Random(seed).shuffle(order)
        return order


Learn = Callable[[Benchmark, int, str, int, Sequence[str], bool], Learned]
"""Trains in a round, given the seed, the way, the number of the round, the labelled photos, and whether the
pool is to be surveyed."""


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
    parser.add_argument("--workers", type=int, default=1, help="processes side by side")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="training settings")
    args = parser.parse_intermixed_args()
    if args.each * (args.rounds + 1) > args.pool:
        raise InputError(f"--pool {args.pool}: too few for {args.each} first and in {args.rounds} rounds")
    bench = Benchmark(args.output, args.pool, args.test_photos, args.each, args.rounds, args.overrides)
    seeds = range(args.seeds)
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        list(pool.map(partial(do_first, bench), seeds))
        for _ in pool.map(partial(do_way, bench, train), *zip(*product(seeds, WAYS), strict=True)):
            report(bench, seeds)
    for seed in seeds:
        shutil.rmtree(bench.output / f"seed{seed}", ignore_errors=True)


def do_first(bench: Benchmark, seed: int) -> None:
    """Render what a seed needs, and train on its first photos."""
    folder = bench.output / f"seed{seed}"
    if any(len(bench.done(seed, way)) < bench.rounds for way in WAYS):
        render(folder / "pool", bench.pool, 1000 + seed)
        render(folder / "test", bench.test_photos, 2000 + seed)
    do_round(bench, train, seed, FIRST, 0, bench.order(seed)[: bench.each])


def do_way(bench: Benchmark, learn: Learn, seed: int, way: str) -> None:
    """Do what is not done yet of the rounds of a seed in one way, after the first."""
    order = bench.order(seed)
    labelled = order[: bench.each]
    first = last = bench.done(seed, FIRST)[0]
    for number in range(1, bench.rounds + 1):
        labelled += last.chosen.get(way) or order[len(labelled) : len(labelled) + bench.each]
        last = do_round(bench, learn, seed, way, number, labelled)
        if last.questions != first.questions:
            raise InputError(f"{bench.output}: round {number} of {way} was asked other test questions")


def do_round(
    bench: Benchmark, learn: Learn, seed: int, way: str, number: int, labelled: Sequence[str]
) -> Round:
    """Train on the labelled photos, score, and choose what to label next; what is done is looked up."""
    finished = bench.done(seed, way)
    if done := next((one for one in finished if one.number == number), None):
        return done
    began = time.monotonic()
    ways = [one for one in CHOOSERS if way in (FIRST, one)] if number < bench.rounds else []
    learned = learn(bench, seed, way, number, labelled, bool(ways))
    unlabelled = [finding for finding in learned.findings if not {*finding.photos} & {*labelled}]
    chosen = {one: CHOOSERS[one](unlabelled, bench.each) for one in ways}
    if any(len(photos) < bench.each for photos in chosen.values()):
        raise InputError(f"seed {seed}: fewer than {bench.each} photos to choose; render a larger --pool")
    done = Round(
        settings=bench.settings,
        seconds=round(time.monotonic() - began, 1),
        seed=seed,
        way=way,
        number=number,
        questions=learned.questions,
        scores=learned.scores,
        chosen=chosen,
    )
    add_unit(bench.file(seed, way), finished, done)
    shutil.rmtree(round_folder(bench, seed, way, number), ignore_errors=True)
    return done


def round_folder(bench: Benchmark, seed: int, way: str, number: int) -> Path:
    """Return where a round does its work; it is removed when the round is done."""
    return bench.output / f"seed{seed}" / f"{way}{number}"


def train(
    bench: Benchmark, seed: int, way: str, number: int, labelled: Sequence[str], surveyed: bool
) -> Learned:
    """Tune the base, answer the test, and survey the pool where that is asked for; a `Learn`."""
    folder = round_folder(bench, seed, way, number)
    scenes, data = folder.parent, folder / "data"
    if not (folder / "labelled").exists():
        copy_scenes(scenes / "pool", labelled, folder / "labelled")
    convert(folder / "labelled", scenes / "test", data)
    run = plan_run(data, folder / "model", seed, bench.overrides)
    questions = [question for question in read_questions(data / QUESTIONS) if question.category in TASKS]
    title = f"Seed {seed}, {way}, round {number}, {len(labelled)} photos"
    part = Part("trained", title, read_records(data), questions)
    do_parts(run, [part])
    _, truths = read_truth(data / TRUTH)
    scores = score(read_answers(run.answers(part), "tuned", truths, data / TRUTH), truths)
    findings = survey(run.output / part.name / "adapter", scenes / "pool", folder) if surveyed else []
    return Learned(sha256(data / QUESTIONS), scores, findings)


def score(answers: AnswerFile, truths: Sequence[Truth]) -> dict[str, float]:
    """Return the balanced accuracy of each of TASKS, the headline of both."""
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
    seeds = [
        seed
        for seed in sorted({one.seed for one in done})
        if all((seed, way, rounds) in scores for way in WAYS)
    ]
    return {
        way: np.array([
            [scores[seed, FIRST, 0], *(scores[seed, way, number] for number in range(1, rounds + 1))]
            for seed in seeds
        ])
        for way in WAYS
    }  # fmt: skip


def area_between(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Return the area between two curves (seeds, points) over its width, with a 95% interval over seeds."""
    return mean_with_interval(np.trapezoid(one - other, axis=1) / (one.shape[1] - 1))


def report(bench: Benchmark, seeds: Sequence[int]) -> None:
    """Print the curves and the areas between them, of the seeds that are done, and write them."""
    done = [one for seed, way in product(seeds, (FIRST, *WAYS)) for one in bench.done(seed, way)]
    found = {task: curves(done, bench.rounds, task) for task in TASKS}
    if not seeds_of(found):
        return
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


if __name__ == "__main__":
    run_command(main)
