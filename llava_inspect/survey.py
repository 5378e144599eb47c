"""`llava-inspect survey`: a folder of photos in, a register of findings out."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llava.common.cli import CommandParser
from llava.common.errors import InputError
from llava.common.remote import is_folder, resolved, shown
from llava_inspect.predict import find_photos, read_recipe, recipe_questions

if TYPE_CHECKING:
    from data_prep.recipe.schema import Recipe
    from eval.predict import AskedQuestion, PhotoQuestion
    from eval.survey.findings import Findings
    from eval.survey.photos import PhotoFacts
    from eval.survey.sightings import Part
    from llava.deciding.decision import Decision

NOTES = """What is asked: what the recipe asks of a test photo, in its first language. With `unit: tile` the
photos are cut as in training, and what is found in tiles is put back into the photo. With `unit: object`
whole photos are asked about: only annotations say where the objects are.

A killed run goes on with the same command. register.html is a page to work through what was found.

Photos and the output may be at addresses (s3://bucket/flight, gs://..., extra `cloud`): see docs/cloud.md for
what is fetched when. An output for an address is made in --cache-folder, and sent when it is complete."""
EXAMPLES = [
    "--model-path runs/photos/merged --photos flight_0612 --recipe insulator",
    "--model-path runs/photos/merged --photos flight_0612 --recipe my.yaml\n"
    "--decision decision.json --output surveys/0612",
    "--model-path runs/photos/merged --photos s3://bucket/flight_0612 --recipe insulator\n"
    "--output s3://bucket/surveys/0612",
]


def parse_arguments(argv: Sequence[str]) -> Namespace:
    from eval.infer import add_answering_flags

    parser = CommandParser(
        "llava-inspect survey",
        "Find what is wrong in a folder of photos: a register to work through, tables and maps.",
        notes=NOTES,
        examples=EXAMPLES,
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos, with folders in it")
    parser.add_argument("--recipe", type=Path, required=True, help="what to ask: a file, or one that ships")
    parser.add_argument(
        "--set-recipe",
        action="append",
        default=[],
        metavar="key=value",
        help="replaces a field of the recipe, as for run; may be given several times",
    )
    parser.add_argument(
        "--decision", type=Path, help="decision.json of certify: sound, defect or ask, with its guarantee"
    )
    parser.add_argument("--output", type=Path, help="folder to write (default: runs/survey-PHOTOS)")
    add_answering_flags(parser)
    args = parser.parse_args(argv)
    args.output = args.output or Path("runs") / f"survey-{resolved(args.photos).stem}"
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    from eval.infer import report_truncated, save_answers
    from eval.predict import ask_photos, prepare
    from eval.survey.output import report, send_survey, write_survey
    from eval.survey.photos import read_photos
    from llava.common.destination import forget_made
    from llava_inspect.survey_parts import cut_into_parts, remove_parts

    prepare(args)
    made = args.answers_file.parent
    if not is_folder(args.photos):
        raise InputError(f"--photos {shown(args.photos)}: no such folder")
    if resolved(args.output).is_relative_to(resolved(args.photos)):
        raise InputError(f"--output {shown(args.output)} lies among the photos; name a folder elsewhere")
    args.image_folder, photos = find_photos([args.photos])
    recipe = read_recipe(args.recipe, args.set_recipe)
    # One language is enough: the others would ask the same again.
    questions = recipe_questions(recipe, args.recipe, [next(iter(recipe.language_shares))])
    check_decides(questions, args.recipe)
    check_model(args)
    decision = None if args.decision is None else read_decision(args, questions, recipe)
    parts = cut_into_parts(photos, recipe, made, args.device)
    try:
        found = ask_photos(args, {part.name: part.path for part in parts}, questions)
    except InputError:
        if not any(made.glob("answers.jsonl.partial*")):  # nothing to go on from
            remove_parts(made)
            with suppress(OSError):
                args.question_file.unlink()
                made.rmdir()
        raise
    if found is None:  # another process writes
        return 0
    asked, partial = found
    facts = read_photos(photos)
    register = make_register(args, recipe, parts, asked, facts, decision)
    write_survey(made, register, facts, args.output)
    answers = [row.answer for row in asked]
    save_answers(answers, partial, args.answers_file, lambda: send_survey(made, args.output))
    remove_parts(made)
    report(made, register, args.output)
    forget_made(made, args.output)
    report_truncated(answers)
    return 0


def check_decides(questions: Sequence[PhotoQuestion], recipe: Path) -> None:
    """Raise InputError if no question tells whether there is a defect."""
    if not any(question.family in ("presence", "kind") for question in questions):
        raise InputError(
            f"{recipe} asks neither whether there is a defect nor of what kind; add a family `presence` or "
            "`kind`, and train with it (llava-inspect predict asks whatever a recipe asks)"
        )


def check_model(args: Namespace) -> None:
    """Raise InputError if the model or the novelty bank cannot be opened: cutting up photos for it may take
    long. On a Ray cluster the model need not lie on this machine."""
    from llava.model.folder import open_model_folder  # loads transformers
    from llava.novelty.bank import read_bank

    if args.novelty:
        read_bank(args.novelty)
    if not args.endpoint and not args.ray:
        folder = open_model_folder(args.model_path)
        if folder.is_model:
            folder.open_tensors()  # reads no tensor: whether the files are there and whole


def read_decision(args: Namespace, questions: Sequence[PhotoQuestion], recipe: Recipe) -> Decision:
    """Return the decision that `--decision` names; InputError if it is for another model or question."""
    from eval.survey.certified import check_asked
    from llava.deciding.decision import load_decision

    decision = load_decision(args.decision)
    check_asked(decision, questions)
    # training's objects are crops, and here whole photos are asked about
    unit = "tile" if recipe.unit == "tile" else "picture"
    if args.endpoint:
        from eval.answering.endpoint import Endpoint

        decision.check_unit(unit)
        decision.check_model(model_id=Endpoint(args).model_id)
        return decision
    from llava.deciding.of_model import check_folder
    from llava.model.folder import open_model_folder

    check_folder(decision, open_model_folder(args.model_path), unit)
    return decision


def make_register(
    args: Namespace,
    recipe: Recipe,
    parts: Sequence[Part],
    asked: Sequence[AskedQuestion],
    photos: Sequence[PhotoFacts],
    decision: Decision | None,
) -> Findings:
    """Return the register of what was answered.

    Args:
        args: The flags of the command.
        recipe: What was asked.
        parts: What was asked about.
        asked: The questions with their answers, by part.
        photos: What is known of each photo.
    """
    from eval.survey.certified import CertifiedRule
    from eval.survey.collect import find_in
    from eval.survey.findings import Findings
    from eval.survey.output import survey_id
    from eval.survey.sightings import Likelier, Wordings
    from llava_inspect.bursts import group_bursts

    words = recipe.in_language(next(iter(recipe.language_shares)))
    wordings = Wordings({kind.word: kind.name for kind in words.defects}, words.absent_word)
    rule = Likelier() if decision is None else CertifiedRule(decision)
    groups = group_bursts(photos, recipe.group.twins)
    findings = find_in(parts, asked, photos, groups, wordings, rule)
    warnings = _warnings(recipe, decision, photos)
    if args.novelty:
        photo_of = {part.name: part.photo for part in parts}
        groups_of = {photo.name: str(group) for photo, group in zip(photos, groups, strict=True)}
        warnings += _novelty_warnings(args.novelty, asked, photo_of, groups_of)
    model = ", ".join(sorted({row.answer.model_id for row in asked}))
    return Findings(
        survey=survey_id(model, photos, findings),
        model_id=model,
        recipe=str(args.recipe),
        photos_folder=shown(args.image_folder),
        certified=rule.certified,
        warnings=warnings,
        kinds=recipe.kind_names,
        findings=findings,
    )


def _warnings(recipe: Recipe, decision: Decision | None, photos: Sequence[PhotoFacts]) -> list[str]:
    from eval.report.phrases import counted

    warnings = []
    if decision is not None:
        warnings += decision.limits if decision.certified else [decision.guarantee, *decision.limits]
    else:
        warnings.append(
            "Nothing is certified: a photo counts as defective where the model finds that likelier than not. "
            "How often it is wrong, only a scored test says."
        )
    if recipe.unit == "object":
        warnings.append("The model was trained on crops around components; here it saw whole photos.")
    if unreadable := sum(bool(photo.problem) for photo in photos):
        warnings.append(f"Left to a person: {counted(unreadable, 'photo')} that cannot be read here.")
    return warnings


def _novelty_warnings(
    bank_file: Path,
    asked: Sequence[AskedQuestion],
    photo_of: Mapping[str, str],
    groups: Mapping[str, str],
) -> list[str]:
    """Return what the novelty bank says of the survey as a whole.

    Args:
        bank_file: Of `novelty`.
        asked: The questions with their answers, by part.
        photo_of: The photo of each part.
        groups: The group of each photo: photos of one may show the same.
    """
    import numpy as np

    from llava.novelty.bank import read_bank
    from llava.novelty.drift import drift_test
    from llava.novelty.pvalue import NEVER_SEEN

    bank = read_bank(bank_file)
    warnings = []
    measured = {
        row.photo: row.answer.metadata["novelty"] for row in asked if "novelty" in row.answer.metadata
    }
    most = max(Counter(photo_of.values()).values())  # parts of a photo, which read_answers corrects for
    if most * bank.p_value.smallest > NEVER_SEEN:
        what = "Nothing" if most == 1 else f"No photo in {most} parts"
        warnings.append(
            f"{what} can be called never seen: that takes {round(most / NEVER_SEEN) - 1:,} groups of sound "
            f"calibration pictures, and {bank_file} has {bank.p_value.groups:,}."
        )
    try:
        drift = drift_test(
            np.array([novelty["projection"] for novelty in measured.values()]),
            [groups[photo_of[name]] for name in measured],
            bank.projections,
            bank.calibration_groups,
        )
        message = drift.message
    except InputError as error:  # too few groups on a side
        message = str(error)
    return [*warnings, f"Drift: {message}."]
