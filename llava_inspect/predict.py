"""`llava-inspect predict`: ask a model about photos, without writing a question file."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.common.cli import CommandParser
from llava.common.errors import InputError
from llava.common.remote import address_of, is_file, is_folder, list_files, resolved, shown

if TYPE_CHECKING:
    from data_prep.recipe.schema import Recipe
    from eval.predict import PhotoQuestion

DESCRIBE = "Describe the picture."  # what is asked where nothing else is said
NOTES = """What is asked: what the recipe asks of a test photo, in its own words and with its choices (but
nothing that needs an annotation, such as the kind of what is in a given box); and each --question; or
else to describe the picture. Where something is, is told only where the model says that it is there.

A killed run goes on with the same command. Photos that cannot be read are listed at the end.

Photos, their folders and the output may be at addresses (s3://bucket/photos, gs://..., extra `cloud`): see
docs/cloud.md for what is fetched when. An output for an address is made in --cache-folder, and sent when it
is complete."""
EXAMPLES = [
    "photos --model-path runs/merged --recipe insulator",
    'photos/a.jpg photos/b.heic --model-path runs/first\n--question "Is there a crack?" --choices yes no',
    "photos --model-path runs/merged --output runs/answers",
]


def parse_arguments(argv: Sequence[str]) -> Namespace:
    from eval.infer import add_answering_flags

    parser = CommandParser(
        "llava-inspect predict",
        "Ask a model about photos: answers.csv, answers.jsonl, and gallery.html to look at.",
        notes=NOTES,
        examples=EXAMPLES,
    )
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS", help="photos, and folders of them")
    parser.add_argument("--recipe", type=Path, help="ask what this recipe asks: a file, or one that ships")
    parser.add_argument("--question", action="append", help="ask this of every photo; may be repeated")
    parser.add_argument(
        "--choices", nargs="+", metavar="ANSWER", help="its possible answers: gives a probability of each"
    )
    parser.add_argument("--output", type=Path, help="folder to write (default: runs/predict-PHOTOS)")
    add_answering_flags(parser)
    args = parser.parse_args(argv)
    if args.choices and not args.question:
        raise InputError("--choices are the possible answers to a --question; add it, or leave them out")
    if args.choices and len(set(args.choices)) < 2:
        raise InputError("--choices: write two different answers or more")
    if args.question and any(not text.strip() for text in args.question):
        raise InputError("--question is empty; write the question")
    if args.output is None:
        name = resolved(args.photos[0]).stem if len(args.photos) == 1 else "photos"
        args.output = Path("runs") / f"predict-{name}"
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    from eval.predict import predict

    args.image_folder, photos = find_photos(args.photos)
    return predict(args, photos, questions_to_ask(args))


def find_photos(paths: Sequence[Path]) -> tuple[Path, dict[str, Path]]:
    """Return the folder that all photos lie in, and each photo's path by its name below it.

    InputError for a path that does not exist, if there is no photo, or if some lie at addresses and others
    here or in another bucket.
    """
    from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder

    folders, found = [], list[Path]()
    for path in (path.absolute() if address_of(path) is None else path for path in paths):
        if address_of(path) is not None and not is_file(path):
            folders.append(path)
            found += _photos_at(path)
        elif path.is_dir():
            source = SourceFolder.scan(path)
            for problem in source.naming_problems:
                print(f"left out: {problem}", file=sys.stderr)
            folders.append(path)
            found += source.images
        elif is_file(path):
            folders.append(path.parent)
            found.append(path)
        else:
            raise InputError(f"{path}: no such photo or folder")
    if not found:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no photos in {', '.join(map(shown, paths))} ({kinds})")
    try:
        root = Path(os.path.commonpath(folders))
    except ValueError:  # of absolute paths and addresses
        root = Path()
    if not root.is_absolute() and address_of(root) is None:
        raise InputError("photos at addresses must all lie in one bucket; give the others to another command")
    return root, {photo.relative_to(root).as_posix(): photo for photo in found}


def _photos_at(folder: Path) -> list[Path]:
    """Return the photos below a folder at an address, of the same names as of one here."""
    from data_prep.source_folder import IMAGE_SUFFIXES

    if not is_folder(folder):
        raise InputError(f"{shown(folder)}: no such photo or folder")
    paths = [folder / name for name in list_files(folder) if not any(map(_is_hidden, name.split("/")))]
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]


def _is_hidden(part: str) -> bool:
    """Tell whether a part of a name hides what has it; `..`, which a bucket allows, would lead elsewhere."""
    return part.startswith(".")


def questions_to_ask(args: Namespace) -> list[PhotoQuestion]:
    """Return what the flags ask of every photo."""
    from eval.predict import PhotoQuestion

    asked = _of_recipe(args.recipe) if args.recipe else []
    # A box in the answer to a question of the user's is taken to be in the recipe's frame.
    frame = next((question.frame for question in asked), None)
    choices = tuple(args.choices) if args.choices else None
    yes_no = _yes_no(choices)
    asked += [
        PhotoQuestion(text, choices=choices, yes_no=yes_no, frame=frame) for text in args.question or []
    ]
    if asked:
        return asked
    print(f"no --recipe and no --question: asking {DESCRIBE!r}", file=sys.stderr)
    return [PhotoQuestion(DESCRIBE)]


def _yes_no(choices: tuple[str, ...] | None) -> tuple[str, str] | None:
    """Return the user's words for yes and no, where these are the choices."""
    plain = {choice.casefold(): choice for choice in choices or ()}
    return (plain["yes"], plain["no"]) if plain.keys() == {"yes", "no"} else None


def _of_recipe(name: Path) -> list[PhotoQuestion]:
    """Return the recipe's questions about any photo, in all its languages."""
    recipe = read_recipe(name)
    asked = recipe_questions(recipe, name, recipe.language_shares)
    if recipe.unit != "picture":
        part = "a crop around each component" if recipe.unit == "object" else "tiles of each photo"
        print(
            f"note: {name} trains on {part}; here whole photos are asked about: give such parts as photos",
            file=sys.stderr,
        )
    return asked


def read_recipe(name: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, a file or the name of one that ships, and apply `key=value` overrides."""
    from data_prep.recipe.schema import Recipe
    from llava.common.settings import load_settings
    from llava.common.shipped import find_recipe

    return load_settings(Recipe, find_recipe(name), overrides)


def recipe_questions(recipe: Recipe, name: Path, languages: Collection[str]) -> list[PhotoQuestion]:
    """Return the recipe's questions about any photo in some of its languages; `name` is what it was read
    from. InputError if all of them need an annotation."""
    from data_prep.questions.of_photos import photo_questions, presupposes
    from data_prep.questions.records import to_question
    from eval.predict import PhotoQuestion

    asked = []
    for qa in photo_questions(recipe):
        if qa.language not in languages:
            continue
        question = to_question(qa, recipe)
        asked.append(
            PhotoQuestion(
                text=qa.question,
                task=qa.task,
                family=qa.family,
                choices=tuple(question.choices) if question.choices else None,
                yes_no=recipe.yes_no(qa.language) if qa.type == "yesno" else None,
                about=qa.about,
                presupposes=presupposes(qa, recipe),
                frame=recipe.boxes.frame,
            )
        )
    if not asked:
        raise InputError(f"{name} asks only what needs an annotation; write a --question")
    return asked
