"""Certify a decision: `python -m eval.certify`.

Finds from the answers about calibration pictures, which no training has seen, the two thresholds of P(yes)
between which a person is asked, and writes decision.json, which says what is promised. docs/certify.md says
what that means.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from eval.answering.questions import beside_truth, read_questions
from eval.deciding.answered import AnsweredTask, answered_task, offered_choices, yes_no_task
from eval.deciding.certificate import LIMITS, Promise, certify
from eval.deciding.trained import picture_hashes, refuse_trained
from eval.report.console import make_console
from eval.report.decision import calls_table
from eval.report.phrases import counted, probability
from eval.scoring.answers import AnswerFile, read_answers, read_truth
from eval.scoring.columns import common_subject
from llava.common.cli import CommandParser
from llava.common.errors import InputError, run_command
from llava.common.files import read_json, write_json
from llava.common.records import Truth
from llava.deciding.decision import Decision
from llava.model.run_dir import is_run_dir

_UNCHECKED = "Whether the model was trained on these pictures was not checked"
NOTES = """The pictures must be ones that the model was not trained on, drawn as those that it is for:
`convert` makes them with splits.calibration=0.2 (questions_calibration.jsonl, truth_calibration.jsonl).
--model-path binds the decision to the model's weights; without it, only to its name. --run names the run
directory that a merged model comes from: pictures that it was trained on are refused.

Exit code 0 even where too few pictures certify nothing: decision.json then calls nothing sound."""
EXAMPLES = [
    "--answers-file answers_calibration.jsonl --truth-file data/truth_calibration.jsonl\n"
    "--model-path runs/first/merged --run runs/first/adapter --output decision.json",
    "--answers-file a.jsonl --truth-file t.jsonl --miss 0.02 --false-alarm 0.2 --output decision.json",
]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse_arguments(argv)
    if args.output.exists():
        raise InputError(f"{args.output} exists already: name another file, or remove that decision first")
    truth_file, truths = read_truth(args.truth_file)
    truths = yes_no_task(args.task, truths, str(args.truth_file))
    answers = read_answers(args.answers_file, "tuned", truths, args.truth_file)
    answered = answered_task(args.task, truths, answers, str(args.answers_file))
    _require_probabilities(args, truths, answered, answers)
    choices = offered_choices(args.task, truths, answers, str(args.answers_file))
    pictures = _find_pictures(args, truths)
    model_id, fingerprint = _find_model(args, answers)
    unchecked = _refuse_trained(args, pictures)
    certificate = certify(answered, Promise(args.miss, args.confidence, args.false_alarm))
    recipe, unit = _find_recipe(args.truth_file.parent)
    decision = Decision(
        **dict(certificate),
        task=args.task,
        about=common_subject(truths),
        wordings=sorted(set(answered.wordings)),
        choices=choices,
        recipe=recipe,
        unit=unit,
        model_id=model_id,
        fingerprint=fingerprint,
        limits=[*LIMITS, *unchecked],
        answers=answers.source,
        truth=truth_file,
        pictures=sorted(set(pictures.values())),
    )
    write_json(args.output, decision)
    print_decision(decision, answered, make_console())
    print(f"written to {args.output}")
    return 0


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        "python -m eval.certify",
        "Certify a decision on yes/no answers: sound, defect, or ask a person.",
        notes=NOTES,
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("--answers-file", type=Path, required=True, help="answers about the calibration pictures")
    add("--truth-file", type=Path, required=True, help="their truth, from data_prep convert")
    add("--output", type=Path, required=True, help="decision.json to write")
    add("--task", default="presence", help="a yes/no task in which yes is a defect (default: presence)")
    add("--miss", type=float, default=0.05, help="share of the defects that may be missed (%(default)s)")
    add("--confidence", type=float, default=0.95, help="probability that the promise holds (%(default)s)")
    add("--false-alarm", type=float, metavar="SHARE", help="promise this of false alarms too")
    add("--model-path", help="the model that answered: a folder or Hub name, or a run directory")
    add("--run", type=Path, help="the run directory of its training (default: --model-path, if it is one)")
    add("--question-file", type=Path, help="(default: questions_X beside a truth_X)")
    add("--image-folder", type=Path, help="where the pictures are (default: where the questions are)")
    args = parser.parse_args(argv)
    for name in ("miss", "confidence", "false_alarm"):
        value = getattr(args, name)
        if value is not None and not 0 < value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value:g}: a share between 0 and 1, such as 0.05")
    return args


def _require_probabilities(
    args: argparse.Namespace, truths: Sequence[Truth], answered: AnsweredTask, answers: AnswerFile
) -> None:
    """Raise InputError if an answer has no probability: such a picture counts as one that is left to a
    person, which nothing says of the pictures that the decision is for."""
    ids = [
        str(truth.question_id) for truth, p_yes in zip(truths, answered.p_yes, strict=True) if p_yes is None
    ]
    if ids:
        why = answers.error(ids[0]) or "it was asked without choices"
        raise InputError(
            f"{args.answers_file}: {len(ids)} of the {len(truths)} answers to {args.task} have no "
            f"probability, for instance {ids[0]!r} ({why}); put that right and answer again "
            "(`infer --overwrite`)"
        )


def _find_pictures(args: argparse.Namespace, truths: Sequence[Truth]) -> dict[str, str]:
    """Return the hash of each picture that the task's questions are about, by its name."""
    path = args.question_file or beside_truth(args.truth_file)
    if path is None:
        raise InputError(f"no question file lies beside {args.truth_file}; name the --question-file")
    questions = {str(question.question_id): question for question in read_questions(path)}
    ids = [str(truth.question_id) for truth in truths]
    if missing := next((question for question in ids if question not in questions), None):
        raise InputError(
            f"{path} does not hold the question {missing!r} of {args.truth_file}; --question-file"
        )
    names = (name for question in ids for name in questions[question].images)
    return picture_hashes(names, args.image_folder or path.parent)


def _find_model(args: argparse.Namespace, answers: AnswerFile) -> tuple[str, str | None]:
    """Return the name and the fingerprint of the model that answered, None without --model-path."""
    names = answers.source.model_ids
    if len(names) > 1:
        raise InputError(f"{args.answers_file} has answers of several models: {', '.join(names)}")
    if args.model_path is None:
        return names[0], None
    # here, as they load transformers and torch
    from llava.mm_utils import get_model_name_from_path
    from llava.model.folder import open_model_folder

    folder = open_model_folder(args.model_path)
    if (name := get_model_name_from_path(folder.name)) != names[0]:
        raise InputError(f"{args.answers_file} is of the model {names[0]!r}, --model-path is {name!r}")
    return name, folder.fingerprint


def _refuse_trained(args: argparse.Namespace, pictures: dict[str, str]) -> list[str]:
    """Raise InputError if a picture was trained on; return what could not be checked, in sentences."""
    run = args.run
    if run is None and args.model_path is not None and is_run_dir(Path(args.model_path)):
        run = Path(args.model_path)
    if run is None:
        return [f"{_UNCHECKED}: --run was not given."]
    if not is_run_dir(run):
        raise InputError(f"--run {run} is not a run directory: it has no run.json")
    unknown = refuse_trained(run, pictures, args.truth_file.parent)
    if not unknown:
        return []
    return [f"{_UNCHECKED} for {' and '.join(unknown)}, which {run} read and which changed or went since."]


def _find_recipe(folder: Path) -> tuple[str | None, str | None]:
    """Return the recipe and the unit of the conversion in `folder`, None where it is none."""
    if not (folder / "manifest.json").is_file():
        return None, None
    manifest = read_json(folder / "manifest.json")
    try:
        return Path(manifest["recipe_file"]).name, str(manifest["recipe"]["unit"])
    except (KeyError, TypeError):
        return None, None


def print_decision(decision: Decision, answered: AnsweredTask, console: Console) -> None:
    """Print what the decision makes of the calibration pictures, what it promises and what not."""
    groups = counted(len(set(answered.groups)), "group")
    pictures = counted(len(decision.pictures), "picture")
    answers = counted(len(answered.groups), "answer")
    console.print(f"[bold]{escape(decision.task)}[/]: {answers} about {pictures} in {groups}")
    console.print(calls_table(decision.defective, decision.sound))
    rules = []
    if decision.sound_below is not None:
        rules.append(f"under {probability(decision.sound_below)} it is called sound")
    if decision.defect_from is not None:
        rules.append(f"from {decision.defect_from:.6f} on a defect")
    rules.append("else a person is asked" if rules else "a person is always asked")
    console.print(
        f"\nBy the model's P(yes) of a picture: {', '.join(rules)}. Of these answers "
        f"{decision.to_person:.0%} go to a person."
    )
    console.print(f"\n[bold {'green' if decision.certified else 'yellow'}]{escape(decision.guarantee)}[/]")
    console.print("\nWhat it cannot promise:")
    for line in decision.limits:
        console.print(f"  - {escape(line)}")


if __name__ == "__main__":
    run_command(main)
