"""The answers to one yes/no task, as decisions are made of them: P(yes), what is true, and the group."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from eval.scoring.answers import AnswerFile
from eval.scoring.families import ClosedFamily, family_of
from eval.scoring.probabilities import class_probabilities
from eval.scoring.tasks import group_by_task
from llava.common.errors import InputError
from llava.common.records import Truth


@dataclass(frozen=True)
class AnsweredTask:
    """Holds n answers: `p_yes` (None where there is no probability, as of a picture that cannot be read),
    whether yes is true (`defective`), the group and the wording of the question."""

    p_yes: Sequence[float | None]
    defective: Sequence[bool]
    groups: Sequence[str]
    wordings: Sequence[str]


def yes_no_task(task: str, truths: Sequence[Truth], truth_name: str) -> Sequence[Truth]:
    """Return the truths of a task; InputError where it is not there or is not a yes/no task."""
    tasks = group_by_task(truths)
    if task not in tasks:
        raise InputError(f"{truth_name}: no task {task!r}; --task is one of {', '.join(tasks)}")
    if tasks[task][0].type != "yesno":
        yes_no = [name for name, rows in tasks.items() if rows[0].type == "yesno"]
        raise InputError(
            f"{task} is not answered by yes or no, and only such a task is decided on"
            + (f"; --task is one of {', '.join(yes_no)}" if yes_no else "")
        )
    return tasks[task]


def answered_task(task: str, truths: Sequence[Truth], answers: AnswerFile, path: str) -> AnsweredTask:
    """Read the answers to a yes/no task.

    Args:
        task: Its name.
        truths: Its truths.
        answers: The answers.
        path: Their file, for messages.

    Raises:
        InputError: A question has no answer, or no answer has probabilities.
    """
    family = family_of(task, truths)
    assert isinstance(family, ClosedFamily)
    missing = [truth.question_id for truth in truths if str(truth.question_id) not in answers.answers]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of the {len(truths)} questions of {task} have no answer, for instance "
            f"{missing[0]!r}; answer them first"
        )
    p_yes: list[float | None] = []
    groups, wordings = [], []
    for truth in truths:
        answer = answers.answers[str(truth.question_id)]
        found = class_probabilities(answer.metadata.get("choices"), family.classes, family.reader)
        p_yes.append(None if found is None else found[0])
        groups.append(sys.intern(truth.group))
        wordings.append(sys.intern(answer.prompt))
    if all(value is None for value in p_yes):
        raise InputError(
            f"{path}: no answer to {task} has probabilities; ask with choices, as the question files of "
            "`convert` do"
        )
    return AnsweredTask(
        p_yes=p_yes,
        defective=(family.truth == 0).tolist(),
        groups=groups,
        wordings=wordings,
    )


def offered_choices(task: str, truths: Sequence[Truth], answers: AnswerFile, path: str) -> tuple[str, str]:
    """Return the answers that were offered to a yes/no task's questions: that for yes and that for no.

    Args:
        task: Its name.
        truths: Its truths.
        answers: The answers, all with probabilities (`answered_task`).
        path: Their file, for messages.

    Raises:
        InputError: They are more than two, or not the same everywhere.
    """
    family = family_of(task, truths)
    assert isinstance(family, ClosedFamily)
    yes = family.classes[0]
    offered = set()
    for truth in truths:
        choices = answers.answers[str(truth.question_id)].metadata["choices"]
        offered.add(tuple(sorted(choices, key=lambda choice: family.reader(choice) != yes)))
    if len(offered) > 1 or len(found := next(iter(offered))) != 2:
        shown = " and ".join(", ".join(map(repr, choices)) for choices in sorted(offered)[:2])
        raise InputError(
            f"{path}: {task} was asked with the choices {shown}; a decision is for one answer of yes and one "
            "of no, the same for all: answer again with them (`infer --overwrite`)"
        )
    return found[0], found[1]
