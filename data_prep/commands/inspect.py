"""`python -m data_prep inspect`: look at annotated photos before converting them.

Looks on past whatever is damaged and reports it: the page says what `convert` would stop at. Of pictures
without annotations it shows sizes and near-twins.
"""

from __future__ import annotations

import argparse
import difflib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import track

from data_prep.annotations import (
    AnnotatedImage,
    AnnotatedSource,
    Shape,
    merge_annotations,
    plain_name,
)
from data_prep.commands.problems import problem_lines
from data_prep.formats import NoFormatError, find_reader
from data_prep.images.decode import decoded
from data_prep.images.units import Unit, perceptual_hash
from data_prep.model_inputs import ModelInput
from data_prep.recipe.schema import Grouping, Recipe, Shares
from data_prep.report.model import Dialogue, Lines, Report, Role, Seen, View, roles_of
from data_prep.report.page import page
from data_prep.report.survey import pick, survey
from data_prep.source_folder import SourceFolder
from data_prep.splits.splits import Member, count_leaks, find_groups, scaled_shares
from llava.common.errors import InputError
from llava.common.files import write_text
from llava.common.html.markup import readable
from llava.common.settings import load_settings

_STOPS = "Convert stops until these are put right."


@dataclass(frozen=True)
class Looked:
    """A picture that could be read: as the report shows it and as grouping needs it, the most conspicuous
    thing on it, what had to be put right in its annotations and done to its pixels."""

    view: View
    member: Member
    label: str
    notes: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Naming:
    """What a recipe makes of the names of classes in annotations; without one they stay as they are."""

    recipe: Recipe | None

    def of(self, written: str) -> str | None:
        """The recipe's name, the written one where the recipe does not know it, None to pass over it."""
        if self.recipe is None:
            return written
        names = self.recipe.known_names()
        if plain_name(written) not in names:
            return written
        kind = names[plain_name(written)]
        return None if kind is None else kind.name

    def fate(self, written: str) -> str:
        """In words, for a table. `unknown` at its beginning marks a name that convert stops at."""
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
    looked, damaged = look(source.images or alone, Naming(recipe), args.workers)
    if not looked:
        first = next(iter([*problems, *damaged]), "it holds no picture")
        raise InputError(f"{args.source}: no picture can be read ({first})")
    report = inspection(folder, source, looked, problems, damaged, recipe, args.model_inputs)
    write_text(args.output, page(report))
    _tell(Console(), report, [*problems, *damaged], args.output)
    return 0


def _read(folder: SourceFolder, format: str) -> tuple[AnnotatedSource, list[str]]:
    """The source and its problems; pictures without any annotations are a source of none."""
    try:
        reader, why = find_reader(folder, format)
    except NoFormatError as error:
        if not folder.images:
            raise
        print(f"{error}: looking at the pictures alone", flush=True)
        return AnnotatedSource("no annotations", (), tuple(folder.images)), []
    print(f"{folder.root}: format {reader.NAME} ({why})", flush=True)
    return reader.read(folder)


def look(images: Sequence[AnnotatedImage], naming: Naming, workers: int) -> tuple[list[Looked], list[str]]:
    """Decode every picture in `workers` threads. Returns those that can be read, in order, and a line for
    each that cannot."""

    def work(image: AnnotatedImage) -> Looked | str:
        try:
            return _look(image, naming)
        except InputError as error:
            return str(error)

    looked, damaged = [], []
    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes outside Python's lock
        results = track(
            pool.map(work, images),
            "pictures",
            len(images),
            console=Console(stderr=True),
            transient=True,
        )
        for result in results:
            if isinstance(result, str):
                damaged.append(result)
            else:
                looked.append(result)
    return looked, damaged


def _look(image: AnnotatedImage, naming: Naming) -> Looked:
    with decoded(image.file) as opened:
        size, looks = opened.image.size, perceptual_hash(opened.image)
    shapes, notes = merge_annotations(image, size, opened.orientation)
    named = tuple(
        Shape(name, shape.box, shape.area) for shape in shapes if (name := naming.of(shape.name)) is not None
    )
    labels = [name for item in image.annotations for label in item.labels if (name := naming.of(label))]
    conversations = tuple(
        Dialogue(talk.task, talk.turns) for item in image.annotations for talk in item.conversations
    )
    split = image.split or ""
    unique = tuple(dict.fromkeys(labels))
    view = View(image.key, image.file, size, named, unique, split, conversations=conversations)
    roles = roles_of(naming.recipe) if naming.recipe else {}
    member = Member(image.key, looks, 0, image.group, image.split)
    return Looked(view, member, _label(view, roles), tuple(notes), opened.changes)


def _label(view: View, roles: dict[str, Role]) -> str:
    """The most conspicuous thing that is no component, as `convert` would balance the splits by it."""
    things = tuple(shape for shape in view.shapes if roles.get(shape.name) != "component")
    labels = tuple(name for name in view.labels if roles.get(name) != "component")
    size = (round(view.size[0]), round(view.size[1]))
    return Unit(view.name, view.name, "", size, (), things, labels).label


def inspection(
    folder: SourceFolder,
    source: AnnotatedSource,
    looked: Sequence[Looked],
    problems: Sequence[str],
    damaged: Sequence[str],
    recipe: Recipe | None,
    model_inputs: Sequence[ModelInput],
) -> Report:
    """The report on a source as it is. `problems` are of its annotations, `damaged` of its pictures."""
    views = [item.view for item in looked]
    members = [item.member for item in looked]
    rule = recipe.group if recipe else Grouping()
    groups = find_groups(members, rule)
    report = survey(
        f"What is in {folder.root}",
        views,
        pick(views),
        [Seen(view.name, view.file, view.split) for view in views],
        [member.fingerprint for member in members],
        count_leaks(
            members, groups, rule, scaled_shares(recipe.splits if recipe else Shares(), without_test=False)
        ),
        recipe,
        model_inputs,
    )
    report.facts = [
        ("format", source.format),
        ("annotated pictures", f"{len(source.images):,}"),
        ("without annotation", f"{len(source.unannotated):,}"),
        ("cannot be read", f"{len(damaged):,}"),
        ("boxes", f"{sum(len(view.shapes) for view in views):,}"),
        ("independent groups", f"{len(set(groups)):,}"),
    ]
    report.mapping = _mapping(source, recipe)
    if recipe and source.images:
        report.kinds = {
            split: Counter(item.label for item in looked if item.view.split == split)
            for split in report.splits
        }
    unknown = [written for written, fate in report.mapping if fate.startswith("unknown")]
    report.warnings = [
        *([] if source.images else ["no picture is annotated: convert needs annotations"]),
        *_counted(problems, "annotation problem(s): convert stops until they are put right"),
        *_counted(damaged, "picture(s) cannot be used: convert stops until they are put right"),
        *_counted(unknown, "class name(s) that the recipe does not know; add them, or ignore them"),
        *report.warnings,
    ]
    alone = [path.relative_to(folder.image_root).as_posix() for path in source.unannotated]
    changes = Counter(change for item in looked for change in item.changes)
    report.notes = [
        Lines("Annotations that cannot be used", _STOPS, problems, whole=True),
        Lines("Pictures that cannot be used", _STOPS, damaged, whole=True),
        Lines(
            "Put right or passed over",
            "A line for each thing.",
            [*source.notes, *(note for item in looked for note in item.notes)],
        ),
        Lines(
            "Changed in pictures",
            "Done while they are read.",
            [f"{change}: {count:,} picture(s)" for change, count in sorted(changes.items())],
        ),
        Lines("Pictures without annotation", "They are left out of a conversion.", alone),
    ]
    return report


def _counted(lines: Sequence[str], what: str) -> list[str]:
    return [f"{len(lines):,} {what}. The first: {lines[0]}"] if lines else []


def _mapping(source: AnnotatedSource, recipe: Recipe | None) -> list[tuple[str, str]]:
    """Every class name as written, unknown ones first, with what the recipe makes of it."""
    if recipe is None:
        return []
    naming = Naming(recipe)
    written = {
        name
        for image in source.images
        for item in image.annotations
        for name in (*(shape.name for shape in item.shapes), *item.labels)
    }
    fates = [(name, naming.fate(name)) for name in sorted(written)]
    return sorted(fates, key=lambda pair: not pair[1].startswith("unknown"))


def _tell(console: Console, report: Report, unusable: Sequence[str], output: Path) -> None:
    def say(text: str) -> None:
        console.print(escape(readable(text)), highlight=False, soft_wrap=True)

    say(", ".join(f"{name}: {value}" for name, value in report.facts))
    for line in report.warnings:
        say(f"warning: {line}")
    for line in problem_lines(unusable):
        say(line)
    say(f"report: {output}")
