"""The photos of benchmarks.rare_defects: few of one kind of defect, and what each arm makes of them."""

from __future__ import annotations

import gzip
import random
import shutil
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

from pydantic import BaseModel

from benchmarks.curve import render
from benchmarks.suspects import command
from eval.answering.questions import read_questions
from eval.scoring.answers import read_truth
from llava.common.errors import InputError
from llava.common.files import (
    atomic_folder,
    atomic_path,
    read_json,
    read_json_list,
    sha256,
    to_json,
    write_json,
)
from llava.common.records import Question, Record, Truth
from llava_inspect.parts import QUESTIONS, TRAIN, TRUTH

METHODS = PASTE, RENDER = ("paste", "render")
NONE, REPEAT = "none", "repeat"
ARMS = (NONE, *METHODS, REPEAT)
TASKS = ("kind", "presence_of", "presence")
IMAGES = "images"
RENDERED_KEPT, PHOTOS_KEPT = 10, 5
# Of photos 40% are for the test, as there are few of each kind. A test of their own is rendered for scenes.
PHOTOS_SPLITS = ("splits.train=0.6", "splits.test=0.4")
RENDERED_SPLITS = ("splits.train=1", "splits.test=0")
# Made pictures may be as many as the photos: more than are made. A made scratch on a photo of stains must not
# be asked for its kind, which by the largest box would be stains. Dialogues are not tested. 144 pixels are
# what the embedded base reads.
CONVERSION = (
    "splits.val=0",
    "synthetic.share=0.5",
    "several=skip",
    "dialogues=0",
    "pictures.max_side=144",
    "pictures.quality=85",
)


class Subject(BaseModel):
    """Photos with a kind of defect, of which `kept` photos are left to train on."""

    name: str
    recipe: str
    kind: str
    kept: int
    folder: str = ""
    """Empty where the photos are rendered."""


class Plan(BaseModel):
    """What is prepared for each seed."""

    subjects: list[Subject]
    train_photos: int
    test_photos: int
    count: int | None = None
    """Of made pictures; None for as many as `synthesize` thinks right."""


class Prepared(BaseModel):
    """What each arm of a seed is trained on, and what all are asked."""

    train: dict[str, list[Record]]
    questions: list[Question]
    truths: list[Truth]


@dataclass(frozen=True)
class Benchmark:
    """Where everything lies, and what is to be prepared there."""

    output: Path
    plan: Plan

    @property
    def prepared(self) -> Path:
        return self.output / "prepared"

    def scratch(self, subject: Subject, seed: int) -> Path:
        return self.output / "scratch" / f"{subject.name}_{seed}"

    def file(self, subject: Subject, seed: int) -> Path:
        """Return the file of a `Prepared`."""
        return self.prepared / subject.name / f"seed{seed}.json.gz"


def read_subject(text: str) -> Subject:
    """Read FOLDER:RECIPE:KIND."""
    folder, recipe, kind = [*text.rsplit(":", 2), "", ""][:3]
    if not kind:
        raise InputError(f"--photos {text}: name its recipe and the kind to cut too, FOLDER:RECIPE:KIND")
    return Subject(name=Path(folder).name, recipe=recipe, kind=kind, kept=PHOTOS_KEPT, folder=folder)


def read_benchmark(output: Path) -> Benchmark:
    """Read what is prepared in a folder."""
    return Benchmark(output, Plan.model_validate(read_json(output / "prepared" / "plan.json")))


def prepare(bench: Benchmark, seeds: int, workers: int) -> None:
    """Prepare the seeds that are not; InputError if the folder holds what was prepared otherwise."""
    if (file := bench.prepared / "plan.json").exists() and read_benchmark(bench.output) != bench:
        raise InputError(f"{file} says that it was prepared otherwise: name another --output")
    write_json(file, bench.plan)
    left = [one for one in product(bench.plan.subjects, range(seeds)) if not bench.file(*one).exists()]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for do in (make_rare, partial(make_pictures, PASTE), partial(make_pictures, RENDER), gather):
            list(pool.map(partial(do, bench), *zip(*left, strict=True)))
    size = sum(path.stat().st_size for path in bench.prepared.rglob("*") if path.is_file())
    print(f"\n{bench.prepared}: {size / 1e6:.1f} MB")


def make_rare(bench: Benchmark, subject: Subject, seed: int) -> None:
    """Split the photos into those to train on, of which the kind is cut, and those to test on."""
    folder = bench.scratch(subject, seed)
    train, test, whole = folder / "train", folder / "test", folder / "whole"
    if train.exists():
        return
    photos, shares = Path(subject.folder), PHOTOS_SPLITS
    if not subject.folder:
        photos, shares = folder / "photos", RENDERED_SPLITS
        render(photos, bench.plan.train_photos, 1000 + seed)
        render(test, bench.plan.test_photos, 2000 + seed)
    if not whole.exists():
        command("convert", "--source", photos, "--recipe", subject.recipe, "--seed", seed,
                "--output", whole, "splits.val=0", "dialogues=0", *shares)  # fmt: skip
    if not test.exists():
        copy_photos(photos, kinds_of(read_json_list(whole / "test.json", Record)), test)
    kinds = kinds_of(read_json_list(whole / TRAIN, Record))
    copy_photos(photos, cut(kinds, subject.kind, subject.kept, seed), train)


def kinds_of(records: Sequence[Record]) -> dict[str, set[str]]:
    """Return the kinds of defect that each photo shows, by the photo's name."""
    return {str(record.meta["source"]): set(record.meta["kinds"]) for record in records}


def cut(kinds: Mapping[str, Collection[str]], kind: str, kept: int, seed: int) -> set[str]:
    """Return all photos that do not show a kind, and `kept` of those that do, drawn by the seed."""
    showing = sorted(photo for photo, seen in kinds.items() if kind in seen)
    if len(showing) <= kept:
        raise InputError(f"{kind}: {len(showing)} photos to train on show it, too few to be cut to {kept}")
    return {*kinds} - {*showing} | {*random.Random(seed).sample(showing, kept)}


def copy_photos(source: Path, photos: Collection[str], output: Path) -> None:
    """Copy some of the photos with their annotations and masks: the files that are called as they are."""
    stems = {PurePosixPath(photo).name for photo in photos}
    with atomic_folder(output) as folder:
        for file in source.rglob("*"):
            if file.is_file() and file.stem.removesuffix("_mask") in stems:
                copy = folder / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)


def make_pictures(method: str, bench: Benchmark, subject: Subject, seed: int) -> None:
    """Make pictures of the kind from the photos to train on, unless they are there."""
    folder = bench.scratch(subject, seed)
    count = ["--count", bench.plan.count] if bench.plan.count else []
    if not (folder / f"made_{method}").exists():
        command("synthesize", "--source", folder / "train", "--recipe", subject.recipe,
                "--kinds", subject.kind, "--method", method, *count, "--seed", seed, "--workers", 1,
                "--output", folder / f"made_{method}")  # fmt: skip


def gather(bench: Benchmark, subject: Subject, seed: int) -> None:
    """Convert for each arm, and write what is needed to train and to test."""
    folder, file = bench.scratch(subject, seed), bench.file(subject, seed)
    train, questions = {}, set()
    for arm in (NONE, *METHODS):
        made = ["--synthetic", folder / f"made_{arm}"] if arm in METHODS else []
        if not (folder / arm).exists():
            command("convert", "--source", folder / "train", "--test-source", folder / "test",
                    "--recipe", subject.recipe, "--seed", seed, *made, "--output", folder / arm,
                    *CONVERSION)  # fmt: skip
        train[arm] = read_json_list(folder / arm / TRAIN, Record)
        questions.add(sha256(folder / arm / QUESTIONS))
        for image in (folder / arm / IMAGES).iterdir():
            copy_image(image, file.parent / IMAGES / image.name)
    if len(questions) > 1:
        raise InputError(f"{folder}: the arms would be asked different test questions")
    added, copies = repeat(
        train[NONE], subject.kind, len({one.images[0] for one in train[PASTE] if one.is_synthetic})
    )
    for copy, original in copies.items():
        copy_image(folder / NONE / original, file.parent / copy)
    train[REPEAT] = train[NONE] + added
    asked = [question for question in read_questions(folder / NONE / QUESTIONS) if question.category in TASKS]
    _, truths = read_truth(folder / NONE / TRUTH)
    with atomic_path(file) as temporary:
        everything = Prepared(train=train, questions=asked, truths=truths)
        temporary.write_bytes(gzip.compress(to_json(everything).encode(), mtime=0))


def copy_image(image: Path, output: Path) -> None:
    """Copy an image unless it is there: names are hashes of the contents, which many seeds share."""
    if not output.exists():
        with atomic_path(output) as temporary:
            shutil.copyfile(image, temporary)


def repeat(records: Sequence[Record], kind: str, count: int) -> tuple[list[Record], dict[str, str]]:
    """Repeat the photos of a kind in turn, under new names: the trainer joins the questions of one image.

    Returns:
        The records about `count` copies, and what each copy is of, by the names of the images.
    """
    of_image: dict[str, list[Record]] = {}
    for record in records:
        if kind in record.meta["kinds"]:
            of_image.setdefault(record.images[0], []).append(record)
    added, copies = [], {}
    for number, image in zip(range(count), cycle(sorted(of_image)), strict=False):
        name = f"{IMAGES}/{number}_{Path(image).name}"
        copies[name] = image
        added += [
            record.model_copy(update={"id": f"{number}_{record.id}", "image": name})
            for record in of_image[image]
        ]
    return added, copies
