"""`python -m data_prep inspect`: look at annotated photos before converting them.

Looks on past whatever is damaged and reports it: the page says what `convert` would stop at. Of pictures
without annotations it shows sizes and akin pictures.
"""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from data_prep.annotations import (
    AnnotatedImage,
    AnnotatedSource,
    Shape,
    merge_annotations,
    plain_name,
)
from data_prep.commands.problems import problem_lines
from data_prep.formats import AUTO, NoFormatError, find_reader
from data_prep.formats.seen import passed_over
from data_prep.images.decode import decoded
from data_prep.images.fingerprint import fingerprint
from data_prep.images.points import find_points
from data_prep.images.sharing import Workers, share, workers_of
from data_prep.images.taken import time_taken
from data_prep.images.units import Unit
from data_prep.model_inputs import ModelInput
from data_prep.recipe.schema import Grouping, Recipe, Shares
from data_prep.report.model import (
    ComparedImage,
    Dialogue,
    MessageList,
    Report,
    ShapeRole,
    View,
    roles_of,
)
from data_prep.report.page import page
from data_prep.report.survey import choose_samples, survey
from data_prep.source_folder import SourceFolder
from data_prep.splits.assign import scaled_shares
from data_prep.splits.groups import count_leaks, find_groups
from data_prep.splits.member import GroupMember
from data_prep.splits.named import propose_gap
from data_prep.starter.text import starter_recipe
from llava.common.cli import command_name, print_next
from llava.common.errors import InputError
from llava.common.files import write_text
from llava.common.html.markup import readable
from llava.common.settings import load_settings

_STOPS = "Convert stops until these are put right."


@dataclass(frozen=True)
class InspectedImage:
    """An image that could be read: as the report shows it, as grouping needs it, its label (the most
    conspicuous thing on it), notes on its annotations and changes of its pixels."""

    view: View
    member: GroupMember
    label: str
    notes: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class ClassMapping:
    """Maps the class names of annotations to those of a recipe; without a recipe they stay as they are."""

    recipe: Recipe | None

    def name_of(self, written: str) -> str | None:
        """Return the recipe's name, the written one where it has none, None for a class to pass over."""
        if self.recipe is None:
            return written
        names = self.recipe.known_names()
        if plain_name(written) not in names:
            return written
        kind = names[plain_name(written)]
        return None if kind is None else kind.name

    def describe(self, written: str) -> str:
        """Describe the mapping of a name in words; they begin with `unknown` if convert would stop at it."""
        assert self.recipe is not None
        names = self.recipe.known_names()
        plain = plain_name(written)
        if plain in names:
            kind = names[plain]
            if kind is None:
                return "passed over (sound or ignore)"
            return f"{roles_of(self.recipe)[kind.name]}: {kind.name}"
        nearest = difflib.get_close_matches(plain, [name for name in names if name], n=1, cutoff=0.5)
        hint = f"the nearest name it has is {nearest[0]!r}" if nearest else "it has no name like it"
        return f"unknown to the recipe; {hint}"


def run(args: argparse.Namespace) -> int:
    """Inspect as `args` say, which are those of `command_lines.parse_inspect`."""
    recipe = load_settings(Recipe, args.recipe, args.overrides) if args.recipe else None
    folder = SourceFolder.scan(args.source, args.image_folder)
    source, problems = _read(folder, args.format)
    problems = [*folder.naming_problems, *problems]
    alone = [AnnotatedImage(path, folder.key(path)) for path in source.unannotated]
    with workers_of(args) as workers:
        inspected, damaged = inspect_images(source.images or alone, ClassMapping(recipe), workers)
    if not inspected:
        first = next(iter([*problems, *damaged]), "it holds no picture")
        raise InputError(f"{args.source}: no picture can be read ({first})")
    rule = recipe.group if recipe else Grouping(time=propose_gap([image.member for image in inspected]))
    report = inspection_report(
        folder, source, inspected, problems, damaged, recipe, rule, args.model_inputs, args.workers
    )
    if args.output:
        write_text(args.output, page(report))
    _print_summary(Console(), report, [*problems, *damaged], args.output)
    if args.write_recipe:
        _write_recipe(args, [image.view for image in inspected], rule.time)
    return 0


def _write_recipe(args: argparse.Namespace, views: Sequence[View], gap: float | None) -> None:
    """Write a first recipe, with `gap` as its `group.time`, and say what to do with it."""
    words = ["--source", args.source, "--recipe", args.write_recipe, "--output", "runs/data"]
    words += ["--format", args.format] if args.format != AUTO else []
    words += ["--image-folder", args.image_folder] if args.image_folder else []
    convert = command_name("convert", "python -m data_prep convert")
    command = f"{convert} {shlex.join(map(str, words))}"
    write_text(args.write_recipe, starter_recipe(str(args.source), views, args.model_inputs[0], command, gap))
    print(f"recipe: {args.write_recipe} (a first one: read and edit it)")
    print_next(command)


def _read(folder: SourceFolder, format: str) -> tuple[AnnotatedSource, list[str]]:
    """Read the source and its problems; images without any annotations make a source of none."""
    try:
        reader, why = find_reader(folder, format)
    except NoFormatError as error:
        if not folder.images:
            raise
        print(f"{error}: looking at the pictures alone", flush=True)
        return AnnotatedSource("no annotations", (), tuple(folder.images)), []
    print(f"{folder.root}: format {reader.NAME} ({why})", flush=True)
    return reader.read(folder)


def inspect_images(
    images: Sequence[AnnotatedImage], mapping: ClassMapping, workers: Workers
) -> tuple[list[InspectedImage], list[str]]:
    """Decode every image; return those that can be read, in order, and a line for each that cannot."""
    inspected, damaged = [], []
    for result in share(_try_to_inspect, mapping, images, "pictures", workers):
        if isinstance(result, str):
            damaged.append(result)
        else:
            inspected.append(result)
    return inspected, damaged


def _try_to_inspect(mapping: ClassMapping, image: AnnotatedImage) -> InspectedImage | str:
    try:
        return _inspect_image(image, mapping)
    except InputError as error:
        return str(error)


def _inspect_image(image: AnnotatedImage, mapping: ClassMapping) -> InspectedImage:
    with decoded(image.file) as opened:
        size, print_of_it = opened.image.size, fingerprint(opened.image)
        points = find_points(opened.image)
    shapes, notes = merge_annotations(image, size, opened.orientation)
    named = tuple(
        Shape(name, shape.box, shape.area)
        for shape in shapes
        if (name := mapping.name_of(shape.name)) is not None
    )
    labels = [name for item in image.annotations for label in item.labels if (name := mapping.name_of(label))]
    conversations = tuple(
        Dialogue(conversation.task, conversation.turns)
        for item in image.annotations
        for conversation in item.conversations
    )
    split = image.split or ""
    unique = tuple(dict.fromkeys(labels))
    view = View(image.key, image.file, size, named, unique, split, conversations=conversations)
    roles = roles_of(mapping.recipe) if mapping.recipe else {}
    member = GroupMember(
        image.key,
        print_of_it,
        0,
        image.group,
        image.split,
        time_taken(image.file),
        image.file,
        size,
        points,
    )
    return InspectedImage(view, member, _label(view, roles), tuple(notes), opened.changes)


def _label(view: View, roles: dict[str, ShapeRole]) -> str:
    """Return the most conspicuous thing that is no component: the label that `convert` balances splits by."""
    things = tuple(shape for shape in view.shapes if roles.get(shape.name) != "component")
    labels = tuple(name for name in view.labels if roles.get(name) != "component")
    size = (round(view.size[0]), round(view.size[1]))
    return Unit(view.name, view.name, "", size, (), things, labels).label


def inspection_report(
    folder: SourceFolder,
    source: AnnotatedSource,
    inspected: Sequence[InspectedImage],
    problems: Sequence[str],
    damaged: Sequence[str],
    recipe: Recipe | None,
    rule: Grouping,
    model_inputs: Sequence[ModelInput],
    workers: int,
) -> Report:
    """Make the report on a source as it is.

    Args:
        folder: The source's files.
        source: What was read of them.
        inspected: The images that can be read.
        problems: What is wrong with the annotations, a line each.
        damaged: What is wrong with images, a line each.
        recipe: The recipe that the source is to be converted by, if one was named.
        rule: By which images are grouped.
        model_inputs: The models whose view of box sizes is shown.
        workers: Threads that open images.
    """
    views = [image.view for image in inspected]
    members = [image.member for image in inspected]
    groups = find_groups(members, rule, workers)
    shares = scaled_shares(recipe.splits if recipe else Shares(), without_test=False)
    report = survey(
        f"What is in {folder.root}",
        views,
        choose_samples(views),
        [ComparedImage(view.name, view.file, view.split) for view in views],
        groups.checks,
        count_leaks(members, groups, shares),
        recipe,
        model_inputs,
    )
    report.facts = [
        ("format", source.format),
        ("annotated pictures", f"{len(source.images):,}"),
        ("without annotation", f"{len(source.unannotated):,}"),
        ("cannot be read", f"{len(damaged):,}"),
        ("boxes", f"{sum(len(view.shapes) for view in views):,}"),
        ("independent groups", f"{len(set(groups.names)):,}"),
        ("box sizes judged by", model_inputs[0].summary),
    ]
    report.mapping = _map_classes(source, recipe)
    if recipe and source.images:
        report.kinds = {
            split: Counter(image.label for image in inspected if image.view.split == split)
            for split in report.splits
        }
    unknown = [written for written, mapped in report.mapping if mapped.startswith("unknown")]
    report.warnings = [
        *([] if source.images else ["no picture is annotated: convert needs annotations"]),
        *_count_warning(problems, "annotation problem(s): convert stops until they are put right"),
        *(passed_over(folder, source) if source.images and not problems else []),
        *_count_warning(damaged, "picture(s) cannot be used: convert stops until they are put right"),
        *_count_warning(
            unknown,
            "class name(s) that the recipe does not know; add them or ignore them, or let --write-recipe "
            "(without --recipe) make a recipe of them",
        ),
        *report.warnings,
    ]
    report.notes = _messages(folder, source, inspected, problems, damaged)
    return report


def _messages(
    folder: SourceFolder,
    source: AnnotatedSource,
    inspected: Sequence[InspectedImage],
    problems: Sequence[str],
    damaged: Sequence[str],
) -> list[MessageList]:
    alone = [path.relative_to(folder.image_root).as_posix() for path in source.unannotated]
    changes = Counter(change for image in inspected for change in image.changes)
    return [
        MessageList("Annotations that cannot be used", _STOPS, problems, in_full=True),
        MessageList("Pictures that cannot be used", _STOPS, damaged, in_full=True),
        MessageList(
            "Put right or passed over",
            "A line for each thing.",
            [*source.notes, *(note for image in inspected for note in image.notes)],
        ),
        MessageList(
            "Changed in pictures",
            "Done while they are read.",
            [f"{change}: {count:,} picture(s)" for change, count in sorted(changes.items())],
        ),
        MessageList("Pictures without annotation", "They are left out of a conversion.", alone),
    ]


def _count_warning(lines: Sequence[str], what: str) -> list[str]:
    return [f"{len(lines):,} {what}. The first: {lines[0]}"] if lines else []


def _map_classes(source: AnnotatedSource, recipe: Recipe | None) -> list[tuple[str, str]]:
    """List every class name as written with what the recipe maps it to, unknown ones first."""
    if recipe is None:
        return []
    mapping = ClassMapping(recipe)
    written = {
        name
        for image in source.images
        for item in image.annotations
        for name in (*(shape.name for shape in item.shapes), *item.labels)
    }
    descriptions = [(name, mapping.describe(name)) for name in sorted(written)]
    return sorted(descriptions, key=lambda pair: not pair[1].startswith("unknown"))


def _print_summary(console: Console, report: Report, unusable: Sequence[str], output: Path | None) -> None:
    def say(text: str) -> None:
        console.print(escape(readable(text)), highlight=False, soft_wrap=True)

    say(", ".join(f"{name}: {value}" for name, value in report.facts))
    for line in report.warnings:
        say(f"warning: {line}")
    if report.akin:
        say(report.akin.summary)
    for line in problem_lines(unusable):
        say(line)
    if output:
        say(f"report: {output}")
