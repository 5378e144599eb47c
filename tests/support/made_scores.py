"""Small answered tests to score: truths and the answers of a model, as they would be read from files."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.report.cases import Cases, make_cases
from eval.score import score
from eval.scoring.answers import AnswerFile
from eval.scoring.options import ScoringOptions
from eval.scoring.schema import Scores
from llava.common.records import Answer, InputFile, Question, TaskType, Truth

OPTIONS = ScoringOptions(resamples=100)


def truths_of(task: str, kind: TaskType, answers: Sequence[str], **more: Any) -> list[Truth]:
    """Return truths, a question per image; `label` may be a list, one for each."""
    labels = more.pop("label", None)
    return [
        Truth(
            question_id=f"{task}-{number}",
            answer=answer,
            task=task,
            type=kind,
            group=f"g{number}",
            label=labels[number] if isinstance(labels, list) else labels,
            **more,
        )
        for number, answer in enumerate(answers)
    ]


def answers_of(
    name: str,
    truths: Sequence[Truth],
    texts: Sequence[str | None],
    choices: Sequence[Mapping[str, float]] | None = None,
    model: str = "",
) -> AnswerFile:
    """Return the answers file of a model, where a text of None is a missing answer."""
    answers = {}
    for number, (truth, text) in enumerate(zip(truths, texts, strict=True)):
        if text is not None:
            key = str(truth.question_id)
            answers[key] = Answer(
                question_id=key,
                prompt="?",
                text=text,
                answer_id=key,
                model_id=model or name,
                metadata={} if choices is None else {"choices": dict(choices[number])},
            )
    source = InputFile(name=f"{name}.jsonl", sha256="0" * 64, lines=len(answers), model_ids=[model or name])
    return AnswerFile(name, source, answers)


def scores_of(truths: Sequence[Truth], tuned: AnswerFile, base: AnswerFile | None = None) -> Scores:
    return scores_and_cases(truths, tuned, base)[0]


def scores_and_cases(
    truths: Sequence[Truth],
    tuned: AnswerFile,
    base: AnswerFile | None = None,
    questions: Sequence[Question] = (),
) -> tuple[Scores, Cases]:
    file = InputFile(name="truth.jsonl", sha256="1" * 64, lines=len(truths))
    scores, scored = score(file, truths, tuned, base, OPTIONS)
    by_id = {str(question.question_id): question for question in questions}
    return scores, make_cases(scored, [tuned, *([base] if base else [])], by_id)
