"""`llava-inspect run PHOTOS`: from annotated photos to a verdict, each step by its own command."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from llava.common.cli import IN_A_RUN, CommandParser, command_name
from llava.common.errors import InputError
from llava.common.files import read_text
from llava.common.shipped import DEFAULT_CONFIG, RECIPES, find_recipe, shipped_root
from llava_inspect.run_log import Log, refuse_changed_inputs
from llava_inspect.run_steps import (
    Run,
    Step,
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
        refuse_changed_inputs(run, log)
    if args.dry_run:
        print_plan(run, log)
        return 0
    begun = time.monotonic()
    with only_run_in(run.output) as lock:
        for index in range(len(make_steps(run))):
            do_step(run, index, log, lock)
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


def do_step(run: Run, index: int, log: Log, lock: int) -> None:
    """Do a step unless it is done; ends the process if its command fails."""
    steps = make_steps(run)  # anew: it goes by what earlier steps wrote
    step, inputs = steps[index], run.inputs()
    if step.name == "base answers":
        require_test_questions(run)
    is_last = index == len(steps) - 1  # it prints the verdict, and takes seconds
    is_done = log.is_done(step, inputs) and not is_last
    print_title(index, len(steps), step, " (done)" if is_done else "")
    if is_done:
        return
    if log.changed(step, inputs):
        remove(step.parts)
        step = make_steps(run)[index]
    log.write(step, inputs)
    begun = time.monotonic()
    print(f"  $ {typed(step.arguments)}", flush=True)
    code = run_command_of(step, lock)
    if code:
        stop(step, code)
    log.write(step, inputs, round(time.monotonic() - begun, 1))
    print(f"  ({duration(time.monotonic() - begun)})", flush=True)


def print_title(index: int, total: int, step: Step, state: str) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{index + 1}/{total} {step.title}{state}", style="bold")


def remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def run_command_of(step: Step, lock: int) -> int:
    """Run a step's command to its end, and return its exit code as a shell does.

    Ctrl-C reaches the command as well, which ends in its own way (training saves its state first), so here it
    is only waited for; SIGTERM reaches this process alone and is passed on.
    """
    started = Path(sys.argv[0])
    # the console script by itself, so that messages name commands as the user writes them
    program = [started] if started.name == "llava-inspect" else ["-m", "llava_inspect"]
    command = [sys.executable, *program, *step.arguments]
    with subprocess.Popen(command, pass_fds=[lock], env=os.environ | {IN_A_RUN: "1"}) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            while True:
                try:
                    code = process.wait()
                    return code if code >= 0 else 128 - code
                except KeyboardInterrupt:
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)


def stop(step: Step, code: int) -> NoReturn:
    """End as the step's command did, which has said why."""
    when = "the same command" if code > 128 else "when that is put right, the same command"
    print(f"stopped at {step.name}; {when} goes on from there", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def only_run_in(output: Path) -> Iterator[int]:
    """Yield a lock on the folder, which the commands of the steps hold too.

    So one that outlives its run (which was killed alone) is not disturbed by the next.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{output}: another run, or a command that it started, is still at work"
            ) from None
        yield file.fileno()


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
    print(f"\nDone in {duration(seconds)}. May you rely on it? Open {run.output / 'scores' / 'report.html'}")
    for what, command in (
        ("Talk about a photo", ["chat", "--model-path", merged, "--image-file", photo]),
        ("Ask about new photos", ["predict", "NEW_PHOTOS", "--model-path", merged, "--recipe", recipe]),
        (improve, arguments),
    ):
        print(f"{what}:\n  {typed(command)}")


def typed(arguments: Sequence[str]) -> str:
    """Return a command of llava-inspect as the user can type it."""
    name, *rest = arguments
    return f"{command_name(name, f'llava-inspect {name}')} {shlex.join(rest)}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
