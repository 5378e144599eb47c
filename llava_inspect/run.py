"""`llava-inspect run PHOTOS`: from annotated photos to a verdict, each step by its own command."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from llava.common.cli import CommandParser
from llava.common.errors import InputError
from llava.common.files import read_text
from llava.common.shipped import DEFAULT_CONFIG, RECIPES, find_recipe, shipped_root
from llava_inspect.run_commands import do_step, duration, only_run_in, print_title, typed
from llava_inspect.run_log import Log, refuse_changed_inputs
from llava_inspect.run_steps import (
    Run,
    choose_config,
    make_steps,
    read_settings,
    require_test_questions,
)

NOTES = """A run that was stopped goes on with the same command; what is done is not repeated. OUTPUT holds
  photos.html          what is in the photos
  recipe.yaml          what is asked about them; edit it, then the same command with --overwrite
  data/                questions and answers; data/report.html shows them
  adapter/  merged/    what was learned, and the whole model
  answers.jsonl        its answers about the test photos; the base's are in answers_base.jsonl
  scores/report.html   which of its answers may you rely on?"""


def main(argv: Sequence[str]) -> int:
    args = parse_arguments(argv)
    run = plan_run(args)
    log = Log.read(run.output)
    if not args.overwrite:
        starter = "" if run.recipe else f" (with --recipe {run.recipe_file})"
        refuse_changed_inputs(run.output, make_steps(run), run.inputs(), log, starter)
    if args.dry_run:
        print_plan(run, log)
        return 0
    begun = time.monotonic()
    with only_run_in(run.output) as lock:
        total = len(make_steps(run))
        for index in range(total):
            if make_steps(run)[index].name == "base answers":
                require_test_questions(run)
            is_last = index == total - 1  # it prints the verdict, and takes seconds
            do_step(lambda: make_steps(run), index, run.inputs(), log, lock, again=is_last)
    print_what_next(run, time.monotonic() - begun, argv)
    return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "llava-inspect run",
        "From annotated photos to a verdict: inspect, convert, train, merge, answer and score, each by its "
        "own command, which is printed. The answers are about photos that training never saw, and the base "
        "model's stand beside them.",
        notes=NOTES,
        examples=[
            "photos",
            "photos --recipe insulator --output runs/first",
            "photos --recipe my.yaml --model llava15_7b_lora epochs=3",
        ],
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder of photos with annotations")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces a training setting")
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE.yaml",
        help="what to ask about the photos: a file, or the name of one that ships (default: one is written "
        "for the classes that are found)",
    )
    parser.add_argument(
        "--set-recipe",
        action="append",
        default=[],
        metavar="key=value",
        help="replaces a field of the recipe; may be given several times",
    )
    parser.add_argument(
        "--model",
        help="what to train: a training config (a file, or the name of one that ships), or a model that one "
        f"ships for (default: {DEFAULT_CONFIG}, a toy that a CPU trains)",
    )
    parser.add_argument(
        "--test-photos", type=Path, metavar="DIR", help="photos to test on (default: some of PHOTOS)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="a folder for all results (default: runs/NAME_OF_PHOTOS)"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="do again what was done with other photos, another recipe, model or other settings",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands; do nothing")
    return parser.parse_intermixed_args(argv)


def plan_run(args: argparse.Namespace) -> Run:
    """Make a run of the command line's arguments.

    Raises:
        InputError: A folder, the recipe or the training settings cannot be used.
    """
    output = args.output or Path("runs") / args.photos.resolve().name
    for photos in filter(None, (args.photos, args.test_photos)):
        if not photos.is_dir():
            why = "a file; name its folder" if photos.exists() else "no such folder"
            raise InputError(f"{photos}: {why}")
        if output.resolve().is_relative_to(photos.resolve()):
            raise InputError(f"--output {output} lies in {photos}; name a folder apart by --output")
    config = choose_config(args.model) if args.model else DEFAULT_CONFIG
    run = Run(
        photos=args.photos,
        output=output,
        recipe=args.recipe,
        recipe_overrides=tuple(args.set_recipe),
        test_photos=args.test_photos,
        model=args.model,
        config=config,
        overrides=tuple(args.overrides),
        settings=read_settings(config, output, args.overrides),
    )
    run.inputs()  # a mistake in the recipe
    return run


def print_plan(run: Run, log: Log) -> None:
    """Print the steps with their commands, and which are done."""
    steps, inputs = make_steps(run), run.inputs()
    for index, step in enumerate(steps):
        print_title(index, len(steps), step, " (done)" if log.is_done(step, inputs) else "")
        print(f"  $ {typed(step.arguments)}")
        if step.name == "train":
            print("  with --dry-run in place of --resume auto: how long it takes, and how much memory")


def print_what_next(run: Run, seconds: float, argv: Sequence[str]) -> None:
    """Print the time that all took, and what to do with the result."""
    first = json.loads(read_text(run.data / "questions_test.jsonl").partition("\n")[0])
    photo = str(run.data / first["image"])
    merged, recipe = str(run.output / "merged"), str(run.recipe_file)
    if (
        find_recipe(run.recipe_file).resolve().is_relative_to(shipped_root() / RECIPES)
    ):  # a checkout holds runs/ as well
        improve = "To improve it, edit a copy of the recipe and give it as --recipe"
        arguments = ["recipes", recipe, "--output", "my.yaml"]
    else:
        improve = f"To improve it, edit {recipe}, then"
        arguments = ["run", *argv, *([] if "--overwrite" in argv else ["--overwrite"])]
    survey = ["survey", "--photos", "NEW_PHOTOS", "--model-path", merged, "--recipe", recipe]
    changes = [word for change in run.recipe_overrides for word in ("--set-recipe", change)]
    print(f"\nDone in {duration(seconds)}. May you rely on it? Open {run.output / 'scores' / 'report.html'}")
    for what, command in (
        ("Talk about a photo", ["chat", "--model-path", merged, "--image-file", photo]),
        ("Survey new photos", [*survey, *changes]),
        (improve, arguments),
    ):
        print(f"{what}:\n  {typed(command)}")
