"""Score an answers file against the truth, beside blind guessing and, where given, the base model.

An answer that is missing or cannot be understood is wrong, and the tables say how many there are.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval import metrics as m
from eval.families import ClosedFamily, Family, Outcome, family_of
from eval.parse import same_text
from eval.schema import (
    Bootstrap,
    ClassScore,
    Estimate,
    InputFile,
    Scores,
    Slice,
    SystemScore,
    TaskScore,
)
from eval.tables import print_scores
from llava.errors import InputError, run_command
from llava.files import read_jsonl, sha256, write_json
from llava.records import Answer, Truth

SMALL = 20  # groups; below this a percentile interval is rough, and usually too narrow
NEGLIGIBLE = 0.02  # a difference whose whole interval is nearer to zero than this is none to speak of


@dataclass(frozen=True)
class AnswerFile:
    """An answers file, by question id (as text: 7 and "7" are one question)."""

    name: str
    source: InputFile
    answers: Mapping[str, Answer]

    def text(self, question: str) -> str | None:
        answer = self.answers.get(question)
        return None if answer is None else answer.text

    def unreadable(self, question: str) -> bool:
        answer = self.answers.get(question)
        return answer is not None and bool(answer.metadata.get("error"))


def read_truth(path: Path) -> tuple[InputFile, list[Truth]]:
    truths = read_jsonl(path, Truth)
    if not truths:
        raise InputError(f"{path}: no line in it, nothing to score against")
    _refuse_repeats(path, [str(truth.question_id) for truth in truths])
    return InputFile(name=path.name, sha256=sha256(path), lines=len(truths)), truths


def read_answers(path: Path, name: str, truths: Sequence[Truth], truth_path: Path) -> AnswerFile:
    """`name` is "tuned" or "base". InputError where an id repeats or none is in the truth."""
    answers = read_jsonl(path, Answer)
    ids = [str(answer.question_id) for answer in answers]
    _refuse_repeats(path, ids)
    if not {str(truth.question_id) for truth in truths} & set(ids):
        example = f" (for instance {ids[0]!r})" if ids else ""
        raise InputError(f"{path}: none of its {len(ids)} question ids{example} is in {truth_path}")
    source = InputFile(
        name=path.name,
        sha256=sha256(path),
        lines=len(answers),
        model_ids=sorted({answer.model_id for answer in answers}),
    )
    return AnswerFile(name, source, dict(zip(ids, answers, strict=True)))


def _refuse_repeats(path: Path, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for question in ids:
        if question in seen:
            raise InputError(f"{path}: question id {question!r} stands there twice")
        seen.add(question)


def score(
    truth_file: InputFile,
    truths: Sequence[Truth],
    tuned: AnswerFile,
    base: AnswerFile | None,
    *,
    resamples: int,
    seed: int,
) -> Scores:
    """Every task's scores, tasks in the order in which the truth file first names them; each language apart
    where there are several."""
    by_task: dict[str, dict[str, list[Truth]]] = {}
    several = len({truth.language for truth in truths}) > 1
    for truth in truths:
        by_task.setdefault(truth.task, {}).setdefault(truth.language, []).append(truth)
    tasks = [
        score_task(f"{task} ({language})" if several else task, rows, tuned, base, resamples, seed)
        for task, languages in by_task.items()
        for language, rows in sorted(languages.items())
    ]
    return Scores(
        truth=truth_file,
        answers=tuned.source,
        baseline_answers=base.source if base else None,
        bootstrap=Bootstrap(resamples=resamples, seed=seed),
        verdict="",
        warnings=_warnings(truths, [tuned, *([base] if base else [])], tasks),
        tasks=tasks,
        slices=[],
    )


def score_task(
    task: str, truths: Sequence[Truth], tuned: AnswerFile, base: AnswerFile | None, resamples: int, seed: int
) -> TaskScore:
    family = family_of(task, truths)
    groups = [truth.group for truth in truths]
    files = [tuned, *([base] if base else [])]
    outcomes = [family.read([file.text(str(truth.question_id)) for truth in truths]) for file in files]

    sums = [m.group_sums(outcome.rows, groups) for outcome in outcomes]
    # A seed per task: adding a task to the truth leaves the others' intervals as they are.
    drawn = m.bootstrap_sums(np.hstack(sums), resamples, [seed, zlib.crc32(task.encode())])
    draws = [family.metrics(part) for part in np.split(drawn, len(sums), axis=1)]
    points = [_points(family, part) for part in sums]
    estimates = [
        _estimates(point, draw, family.spread(point, part))
        for point, draw, part in zip(points, draws, sums, strict=True)
    ]
    systems = [
        _system(file, family, truths, outcome, part, estimate)
        for file, outcome, part, estimate in zip(files, outcomes, sums, estimates, strict=True)
    ]

    difference = None
    verdict = f"no base answers were given to compare with {tuned.name}"
    if base is not None:
        same = bool((outcomes[0].rows == outcomes[1].rows).all())
        difference = _differences(estimates, draws, same)
        verdict = _verdict(difference[family.headline], same)
    return TaskScore(
        task=task,
        type=truths[0].type,
        n=len(truths),
        groups=len(sums[0]),
        small=len(sums[0]) < SMALL,
        headline=family.headline,
        classes=list(family.classes) if isinstance(family, ClosedFamily) else None,
        tuned=systems[0],
        base=systems[1] if base else None,
        majority=_rounded(family.majority()),
        random=_rounded(family.random()),
        difference=difference,
        verdict=verdict,
        outcome="alone",
        slices=_slices(truths, outcomes),
    )


def _points(family: Family, sums: m.Array) -> dict[str, float]:
    """The values that exist of the whole test."""
    values = family.metrics(sums.sum(axis=0))
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}


def _estimates(
    points: Mapping[str, float], draws: m.Metrics, spread: Mapping[str, tuple[float, float]]
) -> dict[str, Estimate]:
    """Values with bootstrap intervals, or those of `spread` where every resample gives the same value."""
    return {
        name: _estimate(value, m.percentile_interval(draws[name]) or spread.get(name))
        for name, value in points.items()
    }


def _differences(
    estimates: Sequence[Mapping[str, Estimate]], draws: Sequence[m.Metrics], same: bool
) -> dict[str, Estimate]:
    """Tuned minus base for every metric that both have; intervals from the paired resamples."""
    found = {}
    for name, first in estimates[0].items():
        second = estimates[1].get(name)
        if second is None:
            continue
        interval = (0.0, 0.0) if same else m.percentile_interval(draws[0][name] - draws[1][name])
        if interval is None:
            sides = (first.low, first.high, second.low, second.high)
            low_1, high_1, low_2, high_2 = (side if side is not None else math.nan for side in sides)
            combined = m.combined_interval(first.value, (low_1, high_1), second.value, (low_2, high_2))
            interval = None if any(map(math.isnan, combined)) else combined
        found[name] = _estimate(first.value - second.value, interval)
    return found


def _verdict(difference: Estimate, same: bool) -> str:
    if same:
        return "the same: tuned and base give the same answers"
    if difference.low is None or difference.high is None:
        return "too few pictures to decide"
    figures = f"{difference.value:+.2f} [{difference.low:.2f}, {difference.high:.2f}]"
    if difference.low > 0:
        return f"tuned is better: {figures}"
    if difference.high < 0:
        return f"tuned is worse: {figures}"
    if max(-difference.low, difference.high) < NEGLIGIBLE:
        return f"no difference to speak of: {figures}"
    return f"too few pictures to decide: {figures}"


def _system(
    file: AnswerFile,
    family: Family,
    truths: Sequence[Truth],
    outcome: Outcome,
    sums: m.Array,
    estimates: dict[str, Estimate],
) -> SystemScore:
    ids = [str(truth.question_id) for truth in truths]
    missing = sum(question not in file.answers for question in ids)
    result = SystemScore(
        missing=missing,
        unreadable=sum(map(file.unreadable, ids)),
        unparsed=int((~outcome.parsed).sum()) - missing,
        metrics=estimates,
    )
    if isinstance(family, ClosedFamily):
        confusion = family.confusion(sums.sum(axis=0))
        trials = (sums.reshape(len(sums), len(family.classes), -1).sum(axis=2) > 0).sum(axis=0)
        counts = m.class_counts(confusion)
        result.confusion = confusion.astype(int).tolist()
        result.per_class = [
            ClassScore(
                name=name,
                support=int(counts.support[index]),
                answered=int(counts.answered[index]),
                recall=_share(counts.recall[index], int(trials[index])),
                precision=_maybe(counts.precision[index]),
                f1=_maybe(counts.f1[index]),
            )
            for index, name in enumerate(family.classes)
        ]
    return result


def _slices(truths: Sequence[Truth], outcomes: Sequence[Outcome]) -> list[Slice]:
    """Shares of right answers by what is true: the answer (closed lists) and the label (where given)."""
    members: dict[tuple[str | None, str | None], list[int]] = {}
    for index, truth in enumerate(truths):
        closed = truth.type in ("yesno", "class")
        answer = truth.answer if closed else None
        label = None if closed and truth.label and same_text(truth.label, truth.answer) else truth.label
        if answer is not None or label is not None:
            members.setdefault((answer, label), []).append(index)
    slices = []
    for (answer, label), rows in sorted(members.items(), key=lambda item: [text or "" for text in item[0]]):
        groups = len({truths[row].group for row in rows})
        shares = [_share(float(outcome.right[rows].mean()), groups) for outcome in outcomes]
        slices.append(
            Slice(
                name=": ".join(filter(None, (answer, label))),
                answer=answer,
                label=label,
                n=len(rows),
                groups=groups,
                tuned=shares[0] or Estimate(value=0),
                base=shares[1] if len(shares) > 1 else None,
            )
        )
    return slices


def _warnings(truths: Sequence[Truth], files: Sequence[AnswerFile], tasks: Sequence[TaskScore]) -> list[str]:
    known = {str(truth.question_id) for truth in truths}
    lines = []
    for file in files:
        missing = sum(question not in file.answers for question in known)
        unknown = sum(question not in known for question in file.answers)
        unreadable = sum(file.unreadable(question) for question in known)
        if missing:
            lines.append(
                f"{file.name}: {missing} of {len(known)} questions have NO ANSWER; they count as wrong"
            )
        if unreadable:
            lines.append(f"{file.name}: {unreadable} pictures could not be read; they count as wrong")
        if unknown:
            lines.append(
                f"{file.name}: {unknown} answers are to questions that the truth does not hold; ignored"
            )
    for task in tasks:
        if task.small:
            lines.append(
                f"{task.task}: a small test, {task.groups} independent groups of pictures (under {SMALL}); "
                "its intervals are rough"
            )
        if task.tuned.per_class and sum(row.support > 0 for row in task.tuned.per_class) == 1:
            lines.append(f"{task.task}: only one answer occurs in the truth; any constant answer is perfect")
    return lines


def _estimate(value: float, interval: tuple[float, float] | None) -> Estimate:
    """A rounded estimate. A skewed bootstrap may leave the value outside its percentiles: it is kept in."""
    if interval is None:
        return Estimate(value=round(value, 6))
    low, high = interval
    return Estimate(value=round(value, 6), low=round(min(low, value), 6), high=round(max(high, value), 6))


def _share(value: float, trials: int) -> Estimate | None:
    return None if math.isnan(value) else _estimate(float(value), m.wilson(float(value), trials))


def _maybe(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items() if not math.isnan(value)}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m eval.score --answers-file runs/a/answers.jsonl --truth-file "
        "data/truth_test.jsonl \\\n      --baseline-answers runs/a/base_answers.jsonl --output runs/a/scores",
    )
    parser.add_argument("--answers-file", type=Path, required=True, help="answers of the model to score")
    parser.add_argument("--truth-file", type=Path, required=True, help="truth JSONL, from data_prep convert")
    parser.add_argument("--baseline-answers", type=Path, help="answers of the base model, to compare with")
    parser.add_argument("--output", type=Path, required=True, help="folder to write scores.json to")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="resamples for the intervals (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.bootstrap < 100:
        parser.error("--bootstrap: 100 resamples are the least that an interval can be read from")
    if arguments.seed < 0:
        parser.error("--seed: a whole number from 0 up")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    if arguments.output.exists() and not arguments.output.is_dir():
        raise InputError(f"{arguments.output} is a file; --output names a folder")
    truth_file, truths = read_truth(arguments.truth_file)
    tuned = read_answers(arguments.answers_file, "tuned", truths, arguments.truth_file)
    base = None
    if arguments.baseline_answers is not None:
        base = read_answers(arguments.baseline_answers, "base", truths, arguments.truth_file)
    scores = score(truth_file, truths, tuned, base, resamples=arguments.bootstrap, seed=arguments.seed)
    path = arguments.output / "scores.json"
    write_json(path, scores)
    print_scores(scores)
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    run_command(main)
