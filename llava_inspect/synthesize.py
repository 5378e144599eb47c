"""`llava-inspect synthesize`: labelled pictures of rare defects, made from annotated photos."""

from __future__ import annotations

import hashlib
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from llava.common.cli import command_name, print_next
from llava.common.errors import InputError
from llava_inspect.synthesize_flags import method_settings, parse_arguments

if TYPE_CHECKING:
    from data_prep.annotations import AnnotatedSource
    from data_prep.recipe.schema import Recipe
    from data_prep.synthesis.filter import Made
    from data_prep.synthesis.make import Workshop
    from data_prep.synthesis.painted import Job, Painter
    from data_prep.synthesis.photos import Photos
    from data_prep.synthesis.plan import Planner
    from data_prep.synthesis.writer import Outcome, PictureWriter

LARGER = "unit=tile, or unit=object with crops.windows=4, shows defects larger; --least-size sets the bound"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    from data_prep.model_inputs import model_input_of
    from data_prep.recipe.schema import Recipe
    from data_prep.synthesis.filter import LEAST_PATCHES, Filter
    from data_prep.synthesis.make import Workshop
    from data_prep.synthesis.photos import read_photos, trained_keys
    from data_prep.synthesis.plan import Planner, share_out
    from data_prep.synthesis.writer import PictureWriter
    from llava.common.files import sha256
    from llava.common.masks import import_opencv
    from llava.common.settings import load_settings
    from llava.common.shipped import find_recipe
    from llava_inspect.making.painters import PAINTERS, with_prompt
    from llava_inspect.run_commands import only_run_in

    check_output(args)
    import_opencv()  # which all methods need; it says what to install
    recipe = with_prompt(load_settings(Recipe, find_recipe(args.recipe), args.overrides), args.prompt)
    model_input = model_input_of(args.model)
    trained = trained_keys(args.data) if args.data else None
    found = read_photos(read_source(args, recipe), recipe, trained, args.workers)
    print_left_out(found, args)
    asked = named_kinds(args.kinds, recipe)
    planner = Planner(found.photos, bool(recipe.components), args.seed, asked)
    if args.invert:
        check_kept(asked, recipe, planner)
    painter = PAINTERS[args.method](found.photos, recipe, args)
    examples: dict[str | None, int]
    jobs: list[str | None]
    if args.invert:
        examples = {None: planner.count_photos(None)}
        jobs = [None] * (args.count or examples[None])
    else:
        kinds = choose_kinds(asked, recipe, painter, planner)
        examples = {kind: found.examples[kind] for kind in kinds}
        jobs = [*share_out(found.examples, kinds, args.count or default_count(found, kinds))]
    least = LEAST_PATCHES * model_input.patch if args.least_size is None else args.least_size
    settings = {
        "count": len(jobs),
        "kinds": sorted(asked) if args.invert else list(examples),
        "least_size": least,
        "model": model_input.summary,
        "looked_at_by": args.model_path,
    } | method_settings(args)
    everything = settings | {
        "method": args.method,
        "seed": args.seed,
        "recipe": recipe.model_dump(mode="json"),
        "photos": fingerprint(found),
        "novelty": args.novelty and sha256(args.novelty),
    }
    writer = PictureWriter(args.output, args.method, [kind.name for kind in recipe.kinds], everything)
    workshop = Workshop(
        painter,
        planner,
        Filter(recipe, model_input, least),
        writer,
        load_judge(args, recipe),
        args.workers,
    )
    with only_run_in(writer.folder):
        print_earlier(writer)
        outcomes = make(workshop, jobs)
        finish(args, workshop, outcomes, found, settings)
    print_made(args, outcomes, examples)
    return 0


def check_output(args: Namespace) -> None:
    """Raise InputError where the output is there, or would be taken for photos."""
    if not args.source.is_dir():
        raise InputError(f"--source {args.source}: no such folder")
    if args.output.resolve().is_relative_to(args.source.resolve()):
        raise InputError(f"--output {args.output} lies among the photos; name a folder elsewhere")
    if args.output.exists():
        raise InputError(f"--output {args.output} exists already; name another folder or remove it first")


def read_source(args: Namespace, recipe: Recipe) -> AnnotatedSource:
    """Read the annotations, which may not be those of made pictures."""
    from data_prep.commands.convert import read_sources
    from data_prep.source_folder import SourceFolder

    return read_sources([SourceFolder.scan(args.source, args.image_folder)], recipe, args.format)[0]


def print_left_out(found: Photos, args: Namespace) -> None:
    """Say which photos are not used; InputError if none is left."""
    for reason, count in found.left_out.items():
        print(f"left out: {count:,} photo(s) ({reason})")
    if not found.photos:
        where = f"--source {args.source}"
        if args.data:
            raise InputError(f"{where}: no photo of {args.data}'s train split that can be used is in it")
        raise InputError(f"{where}: no photo with boxes, and none that is annotated as sound")


def named_kinds(asked: Sequence[str] | None, recipe: Recipe) -> set[str]:
    """Return the defects that --kinds names, by the recipe's names; InputError if it has no such."""
    from data_prep.annotations import plain_name

    names = {plain_name(name): kind.name for kind in recipe.defects for name in (kind.name, *kind.aliases)}
    for name in asked or ():
        if plain_name(name) not in names:
            known = ", ".join(recipe.kind_names)
            raise InputError(f"--kinds {name!r}: the recipe has no such defect; it has {known}")
    return {names[plain_name(name)] for name in asked or ()}


def check_kept(asked: Collection[str], recipe: Recipe, planner: Planner) -> None:
    """Raise InputError where there is nothing to keep whose surroundings could be new."""
    if not recipe.components:
        raise InputError(
            "--invert keeps a component and paints around it, and the recipe names no components"
        )
    if not planner.count_photos(None):
        of_kind = f" with {' or '.join(sorted(asked))} on it" if asked else ""
        raise InputError(f"--invert: no photo that can be used has a box of a component{of_kind}")


def choose_kinds(asked: Collection[str], recipe: Recipe, painter: Painter, planner: Planner) -> list[str]:
    """Return the kinds to make, in the recipe's order: of those asked for, or of all if none is.

    Raises:
        InputError: A kind that was asked for cannot be made, or none can.
    """
    wanted = set(asked or recipe.kind_names)
    reasons: dict[str, str] = {}
    for kind in recipe.kind_names:
        if kind in wanted:
            why = painter.can_make(kind)
            if why is None and not planner.count_photos(kind):
                why = "no photo has a sound component to make it on"
            if why is not None:
                reasons[kind] = why
    if asked and reasons:
        kind, why = next(iter(reasons.items()))
        raise InputError(f"--kinds {kind!r}: --method {painter.method} cannot make it: {why}")
    for why in dict.fromkeys(reasons.values()):
        print(f"not made: {', '.join(kind for kind in reasons if reasons[kind] == why)} ({why})")
    kinds = [kind for kind in recipe.kind_names if kind in wanted and kind not in reasons]
    if not kinds:
        raise InputError(f"--method {painter.method} can make none of the recipe's defects of these photos")
    return kinds


def default_count(found: Photos, kinds: Sequence[str]) -> int:
    """Return how many pictures are made where no number is given."""
    from data_prep.synthesis.plan import lacking

    count = min(lacking(found.examples, kinds), len(found.photos))
    if not count:
        named = ", ".join(kinds)
        raise InputError(f"{named}: as common as the commonest kind already; say how many with --count")
    return count


def fingerprint(found: Photos) -> str:
    """Return a hash of the photos and their annotations."""
    digest = hashlib.sha256()
    for photo in found.photos:
        digest.update(repr((photo.name, photo.sha256, photo.components, photo.defects)).encode())
    return digest.hexdigest()


def load_judge(args: Namespace, recipe: Recipe) -> Callable[[Job, Made], str | None]:
    """Return what judges the pictures: the model that is named, or nobody."""
    from data_prep.synthesis.make import accept

    if not args.model_path:
        return accept
    from llava_inspect.making.plausible import ModelJudge  # loads torch

    return ModelJudge(args, recipe, args.novelty)


def print_earlier(writer: PictureWriter) -> None:
    """Say what becomes of what a killed run made."""
    jobs, others = writer.earlier()
    if others:
        print(f"begins anew: {jobs:,} job(s) were done with other settings ({', '.join(others)})")
    elif jobs:
        print(f"goes on: {jobs:,} job(s) are done")


def make(workshop: Workshop, kinds: Sequence[str | None]) -> list[Outcome]:
    """Make the pictures, with a bar that shows how many there are, how fast, and what was rejected."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("making pictures"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[rejected]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(kinds), speed="", rejected="")
        began = time.monotonic()
        made = rejected = 0

        def show(outcome: Outcome) -> None:
            nonlocal made, rejected
            made += outcome.image is not None
            rejected += outcome.image is None
            speed = speed_text(workshop.writer.made, len(kinds) - made, time.monotonic() - began)
            shown = f"{rejected:,} rejected" if rejected else ""
            progress.update(task, completed=made, speed=speed, rejected=shown)

        try:
            return workshop.make(kinds, show)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            raise


def speed_text(made: int, left: int, seconds: float) -> str:
    """Say how many pictures were made a minute, and how long those that are left will take.

    Over the whole time: pictures come in batches, so that the last few tell nothing.
    """
    if not made or seconds <= 0:
        return ""
    rate = 60 * made / seconds
    said = f"{rate:,.1f}/min" if rate < 10 else f"{rate:,.0f}/min"
    return f"{said}, {timedelta(seconds=round(60 * left / rate))} left" if left else said


def finish(
    args: Namespace,
    workshop: Workshop,
    outcomes: Sequence[Outcome],
    found: Photos,
    settings: Mapping[str, Any],
) -> None:
    """Write synthetic.json and the contact sheets; InputError if no picture was made."""
    from data_prep.synthesis.sheet import draw_sheets
    from data_prep.synthesis.writer import rejections
    from llava.common.synthetic import Info

    reasons = rejections(outcomes)
    if not any(outcome.image for outcome in outcomes):
        workshop.writer.discard()
        listed = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
        raise InputError("; ".join([f"no picture could be made: {listed}", *remedies(reasons, args)]))
    info = Info(
        method=args.method, recipe=str(args.recipe), seed=args.seed, settings=dict(settings), rejected=reasons
    )
    file = workshop.writer.synthetic_file(outcomes, info)
    draw_sheets(workshop.writer.folder, file, {photo.name: photo for photo in found.photos})
    workshop.writer.finish(file)


def remedies(reasons: Collection[str], args: Namespace) -> list[str]:
    """Return what helps against reasons of rejection."""
    from data_prep.synthesis.filter import TOO_SMALL
    from llava_inspect.making.regions import NO_OUTLINE

    found = [LARGER] if TOO_SMALL in reasons else []
    if NO_OUTLINE in reasons and not args.segmenter:
        found.append("--segmenter, a SAM, may find outlines where colours tell too little")
    return found


def print_made(args: Namespace, outcomes: Sequence[Outcome], examples: Mapping[str | None, int]) -> None:
    """Print what was made, what was rejected, and what to do next.

    `examples` counts the photos that show each kind to make; those of None may get new surroundings.
    """
    from rich.console import Console
    from rich.table import Table

    from data_prep.synthesis.writer import rejections

    made = Counter(outcome.kind for outcome in outcomes if outcome.image)
    tries = Counter(outcome.kind for outcome in outcomes)
    title = f"{made.total():,} pictures in {args.output} ({args.method})"
    table = Table("kind", "photos with it", "made", "rejected", title=title)
    for kind, photos in examples.items():
        numbers = (photos, made[kind], tries[kind] - made[kind])
        table.add_row(kind or "new surroundings", *(f"{number:,}" for number in numbers))
    Console().print(table)
    reasons = rejections(outcomes)
    for reason, count in reasons.most_common():
        print(f"rejected: {count:,} ({reason})")
    for remedy in remedies(reasons, args):
        print(f"note: {remedy}")
    print(f"look at: {args.output / 'contact_sheet.png'}")
    if not args.data:
        print("note: without --data, convert leaves out those whose photos are in its other splits")
    convert = command_name("convert", "python -m data_prep convert")
    print_next(
        f"{convert} --source {args.source} --recipe {args.recipe} --synthetic {args.output} --output DATA"
    )
