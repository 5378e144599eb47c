"""What is needed of the truths of a task, beside the answers: a column each, read in one pass."""

from __future__ import annotations

import string
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from eval.scoring.boxes import truth_box
from eval.scoring.intervals import number_groups
from eval.scoring.metrics import Ints
from eval.scoring.parse import same_text
from llava.common.records import Truth

# Upper limits, as fractions of the image. 1% is a square of a tenth of each side, 2.4 patches of LLaVA-1.5.
SIZES = {"small": 0.01, "medium": 0.1, "large": np.inf}


Shown = tuple[str | None, str | None]
Folder = tuple[str, ...]


@dataclass(frozen=True)
class TruthColumns:
    """Holds of n questions what intervals, slices and baselines need. Equal texts are one object.

    `ids` are as text, `labels` what the truths say, `groups` (n,) numbers of the sorted `group_names`.
    `shown` are the true answer, of closed lists that are no letters (these stand for another answer in each
    question), and the label; `sizes` the class of the box in question; `folders` the parts of the folder that
    the photo's name has; `blind` the guesses without looking. None is what a truth does not say. `about`:
    what all questions ask for (meta `about`), where it is one thing.
    """

    ids: Sequence[str]
    labels: Sequence[str | None]
    groups: Ints
    group_names: Sequence[str]
    shown: Sequence[Shown]
    sizes: Sequence[str | None]
    folders: Sequence[Folder | None]
    languages: Sequence[str]
    blind: Sequence[str | None]
    about: str | None


def read_columns(truths: Sequence[Truth]) -> TruthColumns:
    """Go through a task's truths, one or more, once."""
    ids: list[str] = []
    labels: list[str | None] = []
    groups: list[str] = []
    shown: list[Shown] = []
    sizes: list[str | None] = []
    folders: list[Folder | None] = []
    languages: list[str] = []
    blind: list[str | None] = []
    same_shown: dict[Shown, Shown] = {}
    same_folder: dict[Folder, Folder] = {}
    same_guess: dict[str, str] = {}
    subjects: set[object] = set()
    for truth in truths:
        ids.append(sys.intern(str(truth.question_id)))
        labels.append(None if truth.label is None else sys.intern(truth.label))
        groups.append(sys.intern(truth.group))
        shows = _shown(truth)
        shown.append(same_shown.setdefault(shows, shows))
        sizes.append(_size_class(truth))
        folder = _folder(truth)
        folders.append(None if folder is None else same_folder.setdefault(folder, folder))
        languages.append(sys.intern(truth.language))
        guess = truth.meta.get("blind")
        blind.append(same_guess.setdefault(guess, guess) if isinstance(guess, str) else None)
        subjects.add(truth.meta.get("about"))
    numbers, names = number_groups(groups)
    return TruthColumns(
        ids, labels, numbers, names, shown, sizes, folders, languages, blind, _only_text(subjects)
    )


def common_subject(truths: Iterable[Truth]) -> str | None:
    """Return what all questions ask for (meta `about`), where it is one thing."""
    return _only_text({truth.meta.get("about") for truth in truths})


def _only_text(subjects: set[object]) -> str | None:
    subject = subjects.pop() if len(subjects) == 1 else None
    return subject if isinstance(subject, str) else None


def join_groups(parts: Sequence[TruthColumns]) -> Ints:
    """Return the numbers of the groups of several tasks' questions (n,), one task after the other."""
    names = sorted({name for part in parts for name in part.group_names})
    numbers = {name: number for number, name in enumerate(names)}
    joined = []
    for part in parts:
        number_of = np.array([numbers[name] for name in part.group_names], dtype=np.int64)
        joined.append(number_of[part.groups])
    return np.concatenate(joined)


def _shown(truth: Truth) -> Shown:
    letters = set(truth.classes or ()) <= set(string.ascii_uppercase)
    closed = truth.type == "yesno" or (truth.type == "class" and not letters)
    answer = truth.answer if closed else None
    return answer, None if closed and truth.label and same_text(truth.label, truth.answer) else truth.label


def _size_class(truth: Truth) -> str | None:
    """Return the size class of the box in question: the true box, or meta `area`; None without either."""
    box = truth_box(truth)
    area = truth.meta.get("area") if box is None else (box[2] - box[0]) * (box[3] - box[1])
    if not isinstance(area, (int, float)) or isinstance(area, bool) or not 0 < area <= 1:
        return None
    return next(name for name, limit in SIZES.items() if area < limit)


def _folder(truth: Truth) -> Folder | None:
    return PurePosixPath(str(truth.meta["source"])).parent.parts if "source" in truth.meta else None
