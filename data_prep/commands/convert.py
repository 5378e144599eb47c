"""`python -m data_prep convert`: annotated photos -> conversation JSON, test questions and their truth.

Reads everything first and writes nothing if anything is wrong; the output folder appears whole or not at
all. The same source, recipe and seed give the same bytes, whatever the number of workers, here or on a Ray
cluster (--ray). Over an earlier output (--overwrite) only what changed is made and written again; a second
run with the same input leaves every file as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from rich.console import Console

from data_prep.annotations import AnnotatedImage, AnnotatedSource
from data_prep.blend import blend, open_blend_file
from data_prep.commands.problems import ALL_OF_THEM, FEW, problem_lines
from data_prep.formats import find_reader
from data_prep.formats.seen import passed_over
from data_prep.images.prepare import Preparation, prepare_images
from data_prep.images.sharing import Workers, workers_of
from data_prep.images.store import ImageStore
from data_prep.images.units import PreparedImage, class_names, unknown_classes
from data_prep.made_folders import open_made_folders, refuse_made
from data_prep.made_pictures import add_made, held_out, made_facts, of_training_photos, with_labels_of_parents
from data_prep.output import foreign_files, output_folder
from data_prep.questions.candidates import join_words
from data_prep.questions.dialogues import make_dialogues
from data_prep.questions.guesses import guess_test, notes_of_guesses
from data_prep.questions.records import QuestionAnswer, to_dialogue, to_question, to_record, to_truth
from data_prep.questions.report_schema import report_schema
from data_prep.questions.select import BALANCED_AWAY, make_questions
from data_prep.recipe.schema import Recipe, Shares
from data_prep.report.conversion import conversion_report
from data_prep.report.page import page
from data_prep.report.summary import (
    SplitSummary,
    left_out_lines,
    make_manifest,
    print_summary,
    summarise_split,
)
from data_prep.source_folder import QUESTIONED, SPLITS, SourceFolder, Split
from data_prep.splits.assign import Conversion, split_units
from llava.common.cli import command_name
from llava.common.errors import InputError
from llava.common.files import write_json, write_json_list, write_jsonl, write_text
from llava.common.settings import load_settings, validate_settings
from llava.common.shipped import RECIPES, find_recipe, names_in


def run(args: argparse.Namespace) -> int:
    """Convert as `args` say, which are those of `command_lines.parse_convert`."""
    recipe = load_settings(Recipe, args.recipe, args.overrides)
    if args.splits is not None:
        train, val, test = args.splits
        values = recipe.splits.model_dump() | {"train": train, "val": val, "test": test}
        recipe = recipe.model_copy(update={"splits": validate_settings(Shares, values, "--splits")})
    _check_output(args)

    roots = [args.source, *([args.test_source] if args.test_source else [])]
    folders = [SourceFolder.scan(root, args.image_folder) for root in roots]
    sources = read_sources(folders, recipe, args.format)
    made = open_made_folders(args.synthetic, recipe)
    general = open_blend_file(args)
    with output_folder(args.output) as folder, workers_of(args) as workers:
        store = ImageStore(folder, recipe.pictures, args.output if args.output.exists() else None)
        prepared = prepare_all(sources, recipe, store, workers)
        conversion = split_units(prepared, recipe, args.seed, source_notes(sources), args.workers)
        if made:
            pictures = of_training_photos(made, conversion, prepared)
            pictures = with_labels_of_parents(pictures, recipe, sources, prepared)
            source = AnnotatedSource("synthetic", tuple(picture.image for picture in pictures))
            (written,) = prepare_all([source], recipe, store, workers)
            add_made(made, pictures, written, conversion, prepared, args.seed)
        summaries = write_questions(conversion, folder, args.seed)
        if schema := report_schema(recipe):
            write_json(folder / "report_schema.json", schema)
        _drop_unused_images(folder, conversion)
        blended = None
        if general:
            photos, files = held_out(conversion, prepared)
            fingerprints = [photo.fingerprint for photo in photos]
            blended = blend(general, folder, recipe, store, args.seed, workers, fingerprints, files)
        content = make_manifest(args, conversion, summaries, folder) | {
            "synthetic": made_facts(made, conversion),
            "blend": blended,
        }
        write_json(folder / "manifest.json", content)
        report = conversion_report(folder, conversion, summaries, sources, prepared, args.model_inputs)
        write_text(folder / "report.html", page(report))
    print_summary(Console(), args.output, conversion, summaries)
    return 0


def _check_output(args: argparse.Namespace) -> None:
    """Raise InputError where the output could replace what is read, or files of another origin."""
    output, test_source = args.output, args.test_source
    folders = (args.source, test_source, args.image_folder, args.blend_image_folder, *args.synthetic)
    for folder in filter(None, folders):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: {'a file; name its folder' if folder.exists() else 'no such folder'}"
            )
        inner, outer = output.resolve(), folder.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise InputError(f"--output {output} and {folder} lie one inside the other; name a folder apart")
    for file in filter(None, (args.recipe, args.blend)):
        if file.resolve().is_relative_to(output.resolve()):
            raise InputError(f"{file} lies in --output {output}; move one of them")
    if test_source and test_source.resolve() == args.source.resolve():
        raise InputError("--source and --test-source are the same folder; the test would be on training data")
    if output.exists() and not args.overwrite:
        raise InputError(f"{output} exists already; name another folder or add --overwrite")
    if output.exists() and not (output / "manifest.json").is_file():
        raise InputError(f"{output} is not an earlier conversion (no manifest.json); remove it yourself")
    if foreign := next(foreign_files(output), None):
        raise InputError(
            f"{foreign} is not a conversion's file; move it before --overwrite replaces {output}"
        )


def read_sources(folders: Sequence[SourceFolder], recipe: Recipe, format: str) -> list[AnnotatedSource]:
    """Read every annotation; InputError if any is unreadable (they are listed on stderr first)."""
    problems = [problem for folder in folders for problem in folder.naming_problems]
    _raise_problems(problems, "file(s) with names that cannot be used")
    sources = []
    for folder in folders:
        reader, why = find_reader(folder, format)
        print(f"{folder.root}: format {reader.NAME} ({why})")
        source, found = reader.read(folder)
        refuse_made(folder, source)
        problems += found
        unread = [] if found else passed_over(folder, source)
        sources.append(replace(source, notes=(*unread, *source.notes)))
    _raise_problems(problems, "annotation file(s) cannot be used")
    images = [image for source in sources for image in source.images]
    unknown = unknown_classes(images, recipe, recipe.known_names())
    _raise_problems(unknown, "class(es) are not in the recipe", _remedy(images, folders) if unknown else "")
    return sources


def _remedy(images: Iterable[AnnotatedImage], folders: Sequence[SourceFolder]) -> str:
    """Say which recipes that ship know all classes of the images, and how to get one that does."""
    written = class_names(images)
    knowing = []
    for name in names_in(RECIPES):
        recipe = load_settings(Recipe, find_recipe(Path(name)))
        if written <= recipe.known_names().keys():
            knowing.append(name)
    shipped = f"--recipe {' or '.join(knowing)} knows all classes here; " if knowing else ""
    inspect = command_name("inspect", "python -m data_prep inspect")
    return f"; {shipped}`{inspect} --source {folders[0].root} --write-recipe my.yaml` makes a recipe of them"


def _raise_problems(problems: Sequence[str], what: str, remedy: str = "") -> None:
    """Raise a single problem as it is; list several on stderr before an error that counts them. Both end in
    the `remedy`."""
    if len(problems) == 1:
        raise InputError(problems[0] + remedy)
    if problems:
        print(*problem_lines(problems), sep="\n", file=sys.stderr)
        listed = "listed above" if len(problems) <= FEW else f"examples above; {ALL_OF_THEM}"
        raise InputError(f"{len(problems):,} {what} ({listed}); nothing was written{remedy}")


def source_notes(sources: Sequence[AnnotatedSource]) -> list[str]:
    """Gather the notes of the readers, and how many images have no annotation."""
    notes = [note for source in sources for note in source.notes]
    for source in sources:
        if alone := source.unannotated:
            notes.append(f"{len(alone)} picture(s) without annotation left out, for instance {alone[0]}")
    return notes


def prepare_all(
    sources: Sequence[AnnotatedSource], recipe: Recipe, store: ImageStore, workers: Workers
) -> list[list[PreparedImage]]:
    """Decode, cut and encode every image that `store` does not know, and write the units.

    Args:
        sources: The annotated images.
        recipe: What units are cut.
        store: Where they are written, and what an earlier conversion knows of them.
        workers: Threads, or a cluster.

    Returns:
        The prepared images of each source.

    Raises:
        InputError: An image is damaged; all were tried.
    """
    jobs = [(number, image) for number, source in enumerate(sources) for image in source.images]
    prepared: list[list[PreparedImage]] = [[] for _ in sources]
    problems: list[str] = []
    preparation = Preparation(recipe, recipe.known_names(), store)
    results = prepare_images([image for _, image in jobs], preparation, "pictures", workers)
    for (number, _), result in zip(jobs, results, strict=True):
        if isinstance(result, str):
            problems.append(result)
        else:
            prepared[number].append(result)
    _raise_problems(problems, "picture(s) cannot be used")
    store.add_to_cache((item.digest, item.cached) for items in prepared for item in items)
    return prepared


def write_questions(conversion: Conversion, folder: Path, seed: int) -> dict[Split, SplitSummary]:
    """Make the questions and write train.json, val.json, test.json, questions_test.jsonl, truth_test.jsonl;
    for calibration the same files as for test.

    A split without questions has no file. Units that nothing is asked about are dropped from `conversion`. A
    task that has no question in train is not asked in the others either.
    """
    recipe, group_of = conversion.recipe, conversion.group_of
    summaries: dict[Split, SplitSummary] = {}
    train: list[QuestionAnswer] = []
    untrained: set[str] = set()
    for split in SPLITS:
        if split == "calibration" and not recipe.splits.calibration:
            continue
        qas, skipped = make_questions(conversion.units[split], recipe, split, seed)
        if split == "train":
            train = qas
        else:
            trained = {qa.task for qa in train}
            asked = [qa for qa in qas if qa.task in trained or qa.family == "talk"]
            for task in {qa.task for qa in qas} - {qa.task for qa in asked}:
                untrained.add(task)
                skipped[f"{task}: it is not trained"] += sum(qa.task == task for qa in qas)
            qas = asked
        conversion.left_out.update(skipped)
        if split == "train" and not qas:
            why = "".join(f"; {line}" for line in left_out_lines(conversion))
            raise InputError(f"the recipe asks nothing of the training pictures{why}; look at its families")
        unasked = conversion.drop_unasked(split, {qa.unit.image for qa in qas})
        if others := unasked - skipped[BALANCED_AWAY]:
            conversion.left_out["pictures that no family asks about"] += others
        summaries[split] = summarise_split(conversion.units[split], qas, group_of)
        if not qas:
            continue
        dialogues = make_dialogues(qas, recipe, seed) if split == "train" else []
        records = (to_record(qa, recipe, group_of[qa.unit.image]) for qa in qas)
        more = (to_dialogue(dialogue, recipe, group_of[dialogue[0].unit.image]) for dialogue in dialogues)
        write_json_list(folder / f"{split}.json", chain(records, more))
        if split in QUESTIONED:
            blind = guess_test(train, qas)
            write_jsonl(folder / f"questions_{split}.jsonl", (to_question(qa, recipe) for qa in qas))
            write_jsonl(
                folder / f"truth_{split}.jsonl",
                (to_truth(qa, recipe, group_of[qa.unit.image], blind.get(qa.id)) for qa in qas),
            )
    if untrained:
        conversion.notes.append(_note_untrained(sorted(untrained)))
    conversion.notes += notes_of_guesses(train, group_of)
    return summaries


def _note_untrained(tasks: Sequence[str]) -> str:
    verb, families = ("is", "family") if len(tasks) == 1 else ("are", "families")
    named, remedy = join_words(tasks, "and"), " ".join(f"families.{task}=null" for task in tasks)
    return (
        f"{named} {verb} neither trained nor asked: the training pictures give no question, or always the "
        "same answer (to learn yes and no, pictures with and without a defect are needed); add pictures, "
        f"or leave the {families} out ({remedy})"
    )


def _drop_unused_images(folder: Path, conversion: Conversion) -> None:
    """Remove images that were encoded and then left out (copies have the name of what was kept)."""
    used = {Path(name).name for name in conversion.group_of}
    for path in (folder / "images").iterdir():
        if path.name not in used:
            path.unlink()
