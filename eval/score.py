"""Score an answers file against the truth, beside blind guessing and, where given, the base model.

Writes scores.json (for programs) and report.html (to look at) and prints tables. An answer that is missing
or cannot be understood is wrong, and the tables say how many there are. docs/scoring.md says what each
number is. Files and folders but those of --compare may be at addresses such as s3://bucket/runs/a.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.answering.questions import beside_truth, index_questions
from eval.deciding.answered import answered_task, yes_no_task
from eval.deciding.apply import score_decision
from eval.report.cases import Cases, make_cases
from eval.report.phrases import counted
from eval.scoring.answers import AnswerFile, read_answers, read_truth
from eval.scoring.columns import join_groups
from eval.scoring.comparison import SMALL, comparison_outcome, describe_comparisons
from eval.scoring.options import ScoringOptions
from eval.scoring.schema import (
    Bootstrap,
    ComparisonOutcome,
    DecisionScore,
    Probe,
    Scores,
    Slice,
    TaskScore,
)
from eval.scoring.slices import make_slices, mean_slice, name_sources
from eval.scoring.tasks import ScoredTask, group_by_task, score_task
from eval.scoring.texts import missing_libraries
from llava.common.cli import CommandParser, add_cache_flags
from llava.common.destination import forget_made, made_at, send_folder
from llava.common.environment import how_to_install
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_path, to_json
from llava.common.photo_cache import use_cache
from llava.common.records import InputFile, Question, Truth
from llava.common.remote import address_of, is_folder, list_files, shown
from llava.deciding.decision import load_decision

EXAMPLES = [
    "--answers-file runs/a/answers.jsonl --truth-file data/truth_test.jsonl\n"
    "--baseline-answers runs/a/base_answers.jsonl --output runs/a/scores",
    "--compare runs/a/scores runs/b/scores",
]


def score(
    truth_file: InputFile,
    truths: Sequence[Truth],
    tuned: AnswerFile,
    base: AnswerFile | None,
    options: ScoringOptions,
) -> tuple[Scores, list[ScoredTask]]:
    """Score every task, in the order in which the truth file first names them.

    Args:
        truth_file: Name and hash of the truth file.
        truths: Its lines.
        tuned: The answers to score.
        base: The answers of the base model, to compare with.
        options: Resamples, seed and miss rate.

    Returns:
        The content of scores.json, and the tasks with the outcomes behind them.

    Raises:
        InputError: The truths of a task do not belong together.
    """
    files = [tuned, *([base] if base else [])]
    scored = [score_task(task, rows, files, options) for task, rows in group_by_task(truths).items()]
    tasks = [task.score for task in scored]
    scores = Scores(
        truth=truth_file,
        answers=tuned.source,
        baseline_answers=base.source if base else None,
        bootstrap=Bootstrap(resamples=options.resamples, seed=options.seed),
        verdict=describe_comparisons(tasks),
        warnings=[
            *_warn_of_files(tasks, files),
            *_warn_of_small_tests(tasks),
            *(line for task in tasks for line in _warn_of_task(task)),
        ],
        tasks=tasks,
        slices=[],
    )
    columns = [task.columns for task in scored]
    groups = join_groups(columns)
    values = [np.concatenate([task.outcomes[i].value for task in scored]) for i in range(len(files))]
    languages = [language for task in columns for language in task.languages]
    sources = name_sources([folder for task in columns for folder in task.folders])
    scores.slices += make_slices("language", languages, groups, values, options.resamples, options.seed)
    scores.slices += make_slices("source", sources, groups, values, options.resamples, options.seed)
    return scores, scored


def score_probe(
    truth_file: InputFile,
    truths: Sequence[Truth],
    tuned: AnswerFile,
    base: AnswerFile | None,
    options: ScoringOptions,
) -> Probe:
    """Score general questions that have nothing to do with the tuning: what it cost.

    The arguments are those of `score`.
    """
    scores, scored = score(truth_file, truths, tuned, base, options)
    groups = join_groups([task.columns for task in scored])
    right = [
        np.concatenate([task.outcomes[i].right for task in scored]).astype(np.float64)
        for i in range(2 if base else 1)
    ]
    rows = np.arange(len(groups))
    overall = mean_slice("all", "all", rows, groups, right, options.resamples, options.seed)
    same = len(right) == 2 and bool((right[0] == right[1]).all())
    outcome = comparison_outcome(overall.difference, same)
    return Probe(
        truth=truth_file,
        answers=tuned.source,
        baseline_answers=base.source if base else None,
        whole=overall,
        outcome=outcome,
        verdict=_describe_cost(overall, outcome),
        tasks=scores.tasks,
    )


def _describe_cost(overall: Slice, outcome: ComparisonOutcome) -> str:
    """Return in words what tuning cost."""
    text = f"tuned answers {overall.tuned.value:.0%} rightly"
    if overall.base is None or overall.difference is None:
        return text
    difference = overall.difference
    figures = f"{100 * abs(difference.value):.0f} percentage points"
    if difference.low is not None and difference.high is not None:
        figures += f" [{100 * difference.low:+.0f}, {100 * difference.high:+.0f}]"
    cost = {
        "worse": f": tuning COST {figures}",
        "better": f": tuning gained {figures}",
        "same": ": tuning cost nothing to speak of",
    }.get(outcome, f"; whether tuning cost anything, so few pictures do not tell ({figures})")
    return f"{text}, base {overall.base.value:.0%}{cost}"


# --- warnings ----------------------------------------------------------------------------------------


def _warn_of_files(tasks: Sequence[TaskScore], files: Sequence[AnswerFile]) -> list[str]:
    questions = sum(task.n for task in tasks)
    lines = []
    for file, scores in zip(
        files, ([task.tuned for task in tasks], [task.base for task in tasks if task.base]), strict=False
    ):
        missing = sum(score.missing for score in scores)
        unknown = len(file.answers) - (questions - missing)
        unreadable = sum(score.unreadable for score in scores)
        if missing:
            lines.append(
                f"{file.name}: {missing} of {questions} questions have NO ANSWER; they count as wrong"
            )
        if unreadable:
            lines.append(
                f"{file.name}: {counted(unreadable, 'question')} could not be answered, for instance of a "
                "picture that cannot be read (metadata.error says why); they count as wrong"
            )
        if unknown:
            what = counted(unknown, "answer")
            lines.append(f"{file.name}: {what} to questions that the truth does not hold; ignored")
    return lines


def _warn_of_task(task: TaskScore) -> list[str]:
    lines = []
    if task.tuned.per_class and sum(row.support > 0 for row in task.tuned.per_class) == 1:
        lines.append(f"{task.task}: only one answer occurs in the truth; any constant answer is perfect")
    for name, system in (("tuned", task.tuned), ("base", task.base)):
        if system and system.choices and system.choices.without:
            lines.append(
                f"{task.task}: {system.choices.without} of {name}'s {task.n} answers have no probabilities "
                "of the task's classes; AUROC, calibration and threshold are of the others"
            )
    return lines


def _warn_of_small_tests(tasks: Sequence[TaskScore]) -> list[str]:
    small = [task for task in tasks if task.small]
    if not small:
        return []
    smallest, largest = min(task.groups for task in small), max(task.groups for task in small)
    groups = f"{smallest} to {largest}" if smallest < largest else str(smallest)
    names = "" if len(small) == len(tasks) else f" for {', '.join(task.task for task in small)}"
    noun = "group" if largest == 1 else "groups"
    size = f"{groups} independent {noun} of pictures, under {SMALL}"
    return [f"a small test{names}: {size}; its intervals are rough"]


# --- the command -------------------------------------------------------------------------------------


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("python -m eval.score", __doc__ or "", examples=EXAMPLES)
    add = parser.add_argument
    add("--answers-file", type=Path, help="answers of the model to score")
    add("--truth-file", type=Path, help="truth JSONL, from data_prep convert")
    add("--baseline-answers", type=Path, help="answers of the base model, to compare with")
    add("--output", type=Path, help="folder to write scores.json and report.html to")
    add("--question-file", type=Path, help="for the report (default: questions_X beside a truth_X)")
    add("--image-folder", type=Path, help="for the report (default: where the questions are)")
    add("--miss-rate", type=float, default=0.05, help="what the threshold may miss (%(default)s)")
    add("--decision", type=Path, help="decision.json of certify: show what it does on these answers")
    add("--probe-truth", type=Path, help="truth of general questions: what the tuning cost")
    add("--probe-answers", type=Path, help="answers of the model to these")
    add("--probe-baseline-answers", type=Path, help="answers of the base model to these")
    add("--bootstrap", type=int, default=1000, help="resamples for the intervals (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the resamples (%(default)s)")
    add(
        "--compare",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="score nothing; a table over runs (scores.json, or the folder that holds it)",
    )
    add_cache_flags(parser)
    arguments = parser.parse_args(argv)
    _check_arguments(arguments)
    return arguments


def _check_arguments(arguments: argparse.Namespace) -> None:
    """Raise InputError for missing flags, and for values out of range."""
    if arguments.compare:
        if len(arguments.compare) < 2:
            raise InputError("--compare: name two runs or more")
        return
    for name in ("answers_file", "truth_file", "output"):
        if getattr(arguments, name) is None:
            raise InputError(f"--{name.replace('_', '-')} is needed (or --compare RUN RUN ...)")
    if (arguments.probe_truth is None) != (arguments.probe_answers is None):
        raise InputError("--probe-truth and --probe-answers go together")
    if arguments.probe_baseline_answers is not None and arguments.probe_truth is None:
        raise InputError("--probe-baseline-answers goes with --probe-truth and --probe-answers")
    if arguments.bootstrap < 100:
        raise InputError("--bootstrap: 100 resamples are the least that an interval can be read from")
    if arguments.seed < 0:
        raise InputError("--seed: a whole number from 0 up")
    if not 0 <= arguments.miss_rate < 1:
        raise InputError("--miss-rate: a share from 0 up to, but not, 1")


def _questions(arguments: argparse.Namespace, truths: Sequence[Truth]) -> Mapping[str, Question]:
    """Return the questions by id; none where no file is named and none lies beside the truth."""
    path = arguments.question_file or beside_truth(arguments.truth_file)
    if path is None:
        return {}
    questions = index_questions(path)
    if not any(str(truth.question_id) in questions for truth in truths):
        truth_file = shown(arguments.truth_file)
        raise InputError(f"{shown(path)}: none of its question ids is in {truth_file}; --question-file")
    arguments.image_folder = arguments.image_folder or path.parent
    return questions


def _read_files(
    truth_path: Path, tuned_path: Path, base_path: Path | None
) -> tuple[InputFile, Sequence[Truth], AnswerFile, AnswerFile | None]:
    truth_file, truths = read_truth(truth_path)
    tuned = read_answers(tuned_path, "tuned", truths, truth_path)
    base = None if base_path is None else read_answers(base_path, "base", truths, truth_path)
    return truth_file, truths, tuned, base


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse_arguments(argv)
    if arguments.compare:
        from eval.compare import compare_runs

        compare_runs(arguments.compare)
        return 0
    if arguments.output.exists() and not arguments.output.is_dir():
        raise InputError(f"{arguments.output} is a file; --output names a folder")
    if arguments.image_folder is not None and not is_folder(arguments.image_folder):
        raise InputError(f"{shown(arguments.image_folder)}: no such image folder")
    use_cache(arguments.cache_folder, arguments.cache_gb)
    # here, so that --help and mistyped flags answer at once
    from eval.report.console import make_console, print_scores
    from eval.report.decision import print_decision_score

    options = ScoringOptions(arguments.bootstrap, arguments.seed, arguments.miss_rate)
    main_input = _read_files(arguments.truth_file, arguments.answers_file, arguments.baseline_answers)
    _, truths, tuned, base = main_input
    decided = _score_decision(main_input, arguments) if arguments.decision else None
    questions = _questions(arguments, truths)
    probe = None
    if arguments.probe_truth is not None:
        probe_input = _read_files(
            arguments.probe_truth, arguments.probe_answers, arguments.probe_baseline_answers
        )
        probe = score_probe(*probe_input, options)
    scores, scored = score(*main_input, options)
    scores.probe = probe
    scores.decision = decided
    cases = make_cases(scored, [tuned, *([base] if base else [])], questions)
    made = made_at(arguments.output, arguments.cache_folder)
    names = _write(made, scores, cases, arguments.image_folder)
    send_folder(made, arguments.output, last=names)
    forget_made(made, arguments.output)
    print_scores(scores)
    if decided:
        print_decision_score(decided, make_console())
    _print_omissions(scores, cases, arguments.image_folder or arguments.output)
    print(f"written to {' and '.join(shown(arguments.output / name) for name in names)}")
    return 0


def _score_decision(
    files: tuple[InputFile, Sequence[Truth], AnswerFile, AnswerFile | None], arguments: argparse.Namespace
) -> DecisionScore:
    """Apply a decision to the answers to its task; InputError if it is for another model or wording."""
    decision = load_decision(arguments.decision)
    truth_file, truths, tuned, _ = files
    rows = yes_no_task(decision.task, truths, shown(arguments.truth_file))
    answered = answered_task(decision.task, rows, tuned, shown(arguments.answers_file))
    for model_id in tuned.source.model_ids:
        decision.check_model(model_id=model_id)
    for wording in dict.fromkeys(answered.wordings):
        decision.check_wording(wording)
    return score_decision(decision, answered, truth_file.sha256)


def _print_omissions(scores: Scores, cases: Cases, image_folder: Path) -> None:
    """Print which metrics and images are left out, and what adds them."""
    if any(task.type == "text" for task in scores.tasks) and (absent := missing_libraries()):
        print(
            f"ROUGE-L, BLEU and CIDEr are left out: {', '.join(absent)} not installed; "
            f"{how_to_install('text')}"
        )
    if not cases.cards:
        print("the report shows no pictures: name the --question-file that was asked")
    elif missing := _missing_images(cases, image_folder):
        print(f"the report lacks {missing}; --image-folder says where they are")


def _missing_images(cases: Cases, folder: Path) -> str:
    """Return in words how many of the images are not in `folder`; empty where all are."""
    names = cases.images
    if address_of(folder) is None:
        missing = sum(not (folder / name).is_file() for name in names)
    else:  # a few requests instead of one for each
        missing = len(set(names) - list_files(folder).keys())
    if not missing:
        return ""
    return f"{missing:,} of {counted(len(names), 'picture')}, which {shown(folder)} does not hold"


def _write(folder: Path, scores: Scores, cases: Cases, images: Path | None) -> list[str]:
    """Write scores.json and report.html, both or neither; return their names."""
    from eval.report.page import render_page

    texts = {
        "scores.json": to_json(scores, indent=1) + "\n",
        "report.html": render_page(scores, cases, images or folder),
    }
    paths = [folder / name for name in texts]
    with atomic_path(paths[0]) as first, atomic_path(paths[1]) as second:
        for temporary, text in zip((first, second), texts.values(), strict=True):
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


if __name__ == "__main__":
    run_command(main)
