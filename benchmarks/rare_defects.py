"""Do the pictures of `llava-inspect synthesize` help a model to see a defect of which there are few photos?

For each seed one kind of defect is cut from the training photos, but for a few: broken discs to 10 of the
rendered scenes, and of each of --photos the named kind to 5. Then the base is trained in four ways (arms):

    none     on the photos
    paste    also on the pictures that `synthesize --kinds KIND --method paste` made of these photos
    render   the same with --method render
    repeat   also on copies of the few, as many as pasted ones: what more weight on them alone would do

The photos, the training seed, the test questions and the number of optimiser steps are the same in all arms:
made pictures take the place of passes over the photos, so that no gain is that of a longer training. Each
seed has scenes of its own, or splits the photos otherwise.

    kind, recall               "What is wrong?" is answered by the rare kind: the share of the test photos of
                               which that is the truth (photos of several kinds are not asked)
    kind, called so wrongly    the same share of all other photos that are asked so
    kind, balanced accuracy    the mean recall of all kinds in that question, and of "none"
    by name, recall            "Is there ...?" names the kind and is answered yes: the share of the test
                               photos that show it
    by name, balanced ...      the mean of that and of the share of "no" of those that do not show it
    presence, balanced ...     the same of "Is there a defect?", where the recipe asks that

An answer that cannot be read is a wrong one. What an arm differs by from `none` is a mean over the seeds, in
pairs, with Student's 95% interval.

    python -m benchmarks.rare_defects prepare --output runs/rare --workers 2 \\
        --photos neu_det:steel_surface:scratches
    python -m benchmarks.rare_defects train --output runs/rare --workers 2
    python -m benchmarks.rare_defects report --output runs/rare

`prepare` renders, makes pictures and converts. To train, on another machine too, only OUTPUT/prepared is
needed: pictures of the size that the base reads, and a file for each seed. OUTPUT/scratch is what they were
made of, contact sheets included. `train` does --workers arms side by side, each in a process of its own (on a
GPU up to 15), and leaves in OUTPUT/units what `report` needs. Killed ones go on. A trial of minutes:

    python -m benchmarks.rare_defects prepare --output runs/rare_try --seeds 1 --train-photos 200 \\
        --test-photos 30 --count 2
    python -m benchmarks.rare_defects train --output runs/rare_try --steps 4
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks.paired import mean_with_interval, shown
from benchmarks.rare_photos import (
    ARMS,
    METHODS,
    NONE,
    RENDERED_KEPT,
    REPEAT,
    TASKS,
    Benchmark,
    Plan,
    Prepared,
    Subject,
    prepare,
    read_benchmark,
    read_subject,
)
from benchmarks.units import Unit, add_unit, read_units
from eval.scoring.answers import AnswerFile, read_answers
from eval.scoring.families import ClosedFamily, family_of
from eval.scoring.tasks import group_by_task
from llava.common.errors import InputError, run_command
from llava.common.files import (
    read_jsonl,
    write_json,
)
from llava.common.records import Truth
from llava.common.shipped import DEFAULT_CONFIG
from llava_inspect.parts import Part, PartedRun, do_parts
from llava_inspect.run_steps import read_settings

KIND, BY_NAME, PRESENCE = TASKS
UNITS = "units"


class Trained(Unit):
    """An arm of a seed, and how many pictures it was trained on."""

    subject: str
    seed: int
    arm: str
    pictures: int
    scores: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("prepare", "train", "report"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes side by side")
    preparing = parser.add_argument_group("prepare").add_argument
    preparing("--seeds", type=int, default=5)
    preparing("--train-photos", type=int, default=400, help="scenes to train on, before the cut")
    preparing("--test-photos", type=int, default=300, help="scenes to test on")
    preparing("--photos", nargs="*", default=[], metavar="FOLDER:RECIPE:KIND", help="do the same with these")
    preparing("--count", type=int, help="made pictures (default: until the kind is as common as others)")
    training = parser.add_argument_group("train").add_argument
    training("--steps", type=int, default=800, help="optimiser steps of each training")
    training("overrides", nargs="*", metavar="key=value", help="training settings")
    args = parser.parse_intermixed_args()
    if args.step == "prepare":
        scenes = Subject(name="scenes", recipe="insulator", kind="broken disc", kept=RENDERED_KEPT)
        plan = Plan(
            subjects=[scenes, *map(read_subject, args.photos)],
            train_photos=args.train_photos,
            test_photos=args.test_photos,
            count=args.count,
        )
        prepare(Benchmark(args.output, plan), args.seeds, args.workers)
    elif args.step == "train":
        train(read_benchmark(args.output), args.steps, args.overrides, args.workers)
    else:
        report(args.output)


# --- train -------------------------------------------------------------------------------------------


def train(bench: Benchmark, steps: int, overrides: Sequence[str], workers: int) -> None:
    """Do the trainings that are not done; those on copies come last."""
    device = "cuda" if torch.cuda.is_available() else "cpu"  # which round otherwise: not to be compared
    settings = {
        "plan": bench.plan.model_dump(exclude_none=True),  # as it is read again
        "steps": steps,
        "overrides": list(overrides),
        "device": device,
    }
    seeds = sorted({int(file.name[4:-8]) for file in bench.prepared.glob("*/seed*.json.gz")})
    jobs = [
        (subject, seed, arm)
        for arms in ((NONE, *METHODS), (REPEAT,))
        for seed, subject, arm in product(seeds, bench.plan.subjects, arms)
    ]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(train_arm, bench, settings, *job) for job in jobs]):
            done.result()
            report(bench.output)


def train_arm(bench: Benchmark, settings: dict[str, Any], subject: Subject, seed: int, arm: str) -> None:
    """Tune the base in one arm and score it, unless that is done."""
    name = f"{subject.name}_{seed}_{arm}"
    unit, folder, file = (
        bench.output / UNITS / f"{name}.jsonl",
        bench.output / "trainings" / name,
        bench.file(subject, seed),
    )
    if read_units(unit, Trained, settings):
        return
    began = time.monotonic()
    prepared = Prepared.model_validate_json(gzip.decompress(file.read_bytes()))
    changed = (f"seed={seed}", f"max_steps={settings['steps']}", *settings["overrides"])
    run = PartedRun(
        data=file.parent,
        output=folder,
        config=DEFAULT_CONFIG,
        overrides=changed,
        settings=read_settings(DEFAULT_CONFIG, folder, changed),
        overwrite=False,
    )
    part = Part("trained", f"{subject.name}, seed {seed}, {arm}", prepared.train[arm], prepared.questions)
    do_parts(run, [part])
    answers = read_answers(run.answers(part), arm, prepared.truths, file)
    done = Trained(
        settings=settings,
        seconds=round(time.monotonic() - began, 1),
        subject=subject.name,
        seed=seed,
        arm=arm,
        pictures=len({image for record in part.records for image in record.images}),
        scores=score(answers, prepared.truths, subject.kind),
    )
    add_unit(unit, [], done)
    shutil.rmtree(folder)


def score(answers: AnswerFile, truths: Sequence[Truth], kind: str) -> dict[str, float]:
    """Return the scores that the docstring of the module explains, presence only where it is asked."""
    tasks = group_by_task(truths)
    counts, balanced = judge(answers, tasks[KIND])
    by_name, balanced_by_name = judge(
        answers, [truth for truth in tasks[BY_NAME] if truth.meta["about"] == kind]
    )
    others = [row for name, row in counts.items() if name != kind]
    scores = {
        "kind, recall": counts[kind][kind] / sum(counts[kind].values()),
        "kind, called so wrongly": sum(row[kind] for row in others)
        / sum(sum(row.values()) for row in others),
        "kind, balanced accuracy": balanced,
        "by name, recall": by_name["yes"]["yes"] / sum(by_name["yes"].values()),
        "by name, balanced accuracy": balanced_by_name,
    }
    if PRESENCE in tasks:
        scores["presence, balanced accuracy"] = judge(answers, tasks[PRESENCE])[1]
    return {name: round(value, 5) for name, value in scores.items()}


def judge(answers: AnswerFile, truths: Sequence[Truth]) -> tuple[dict[str, dict[str, float]], float]:
    """Return how often each class of a task was answered by which, "" for none of them, and the balanced
    accuracy, as `llava-inspect score` counts them."""
    family = family_of("", truths)
    assert isinstance(family, ClosedFamily)
    sums = family.evaluate([answers.text(str(truth.question_id)) for truth in truths]).rows.total()
    names = [*family.classes, ""]
    counts = {
        name: dict(zip(names, map(float, row), strict=True))
        for name, row in zip(family.classes, family.confusion(sums), strict=True)
    }
    return counts, float(family.metrics(sums)[family.headline])


# --- report ------------------------------------------------------------------------------------------


def report(output: Path) -> None:
    """Print the tables of what is done, and write them."""
    done = [one for file in sorted((output / UNITS).glob("*.jsonl")) for one in read_jsonl(file, Trained)]
    if not done:
        raise InputError(f"{output / UNITS}: no training is done")
    if any(one.settings != done[0].settings for one in done):
        raise InputError(f"{output / UNITS} holds results of different settings")
    found = {}
    for subject in Plan.model_validate(done[0].settings["plan"]).subjects:
        if of_subject := [one for one in done if one.subject == subject.name]:
            found[subject.name] = summarise(of_subject)
            print("\n".join(["", *table(subject, found[subject.name])]), flush=True)
    runs = [one.model_dump(exclude={"settings"}) for one in done]
    write_json(
        output / "rare_defects.json", {"settings": done[0].settings, "subjects": found, "trainings": runs}
    )


def summarise(done: Sequence[Trained]) -> dict[str, Any]:
    """Return of each arm how many seeds are done, the pictures it trained on and its mean scores, and what
    its scores differ by from those of `none` in the same seeds."""
    by_arm = {arm: {one.seed: one for one in done if one.arm == arm} for arm in ARMS}
    arms = {
        arm: {
            "seeds": len(seeds),
            "pictures": round(fmean(one.pictures for one in seeds.values())),
            "scores": {
                name: round(fmean(one.scores[name] for one in seeds.values()), 4) for name in done[0].scores
            },
        }
        for arm, seeds in by_arm.items()
        if seeds
    }
    differences = {}
    for arm in ARMS[1:]:
        if paired := sorted(set(by_arm[arm]) & set(by_arm[NONE])):
            differences[f"{arm} - {NONE}"] = {
                name: mean_with_interval(
                    np.array(
                        [by_arm[arm][seed].scores[name] - by_arm[NONE][seed].scores[name] for seed in paired]
                    )
                )
                for name in done[0].scores
            }
    return {"arms": arms, "differences": differences}


def table(subject: Subject, found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    arms, differences = found["arms"], found["differences"]
    heads = [f"{arm} ({one['seeds']} seeds)" for arm, one in arms.items()]
    yield f"{subject.name}, {subject.kept} training photos of {subject.kind} [95% interval over seeds]:\n"
    yield "| | " + " | ".join([*heads, *differences]) + " |"
    yield "|---" * (1 + len(heads) + len(differences)) + "|"
    pictures = [str(one["pictures"]) for one in arms.values()]
    yield "| training pictures | " + " | ".join([*pictures, *("" for _ in differences)]) + " |"
    for name in next(iter(arms.values()))["scores"]:
        means = [f"{one['scores'][name]:.3f}" for one in arms.values()]
        yield (
            f"| {name} | " + " | ".join([*means, *(shown(one[name]) for one in differences.values())]) + " |"
        )


if __name__ == "__main__":
    run_command(main)
