"""Guesses answers without looking: from the words and boxes of the questions alone.

What such a guess gets right a model can get right without seeing. The guesser is naive Bayes: it adds up how
much likelier each word, wording and bin of a box's numbers is with an answer than without. Of the letters of
a multiple choice it takes the option that is most often right where it is shown.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from llava.common.boxes import parse_boxes
from llava.common.records import IMAGE_PLACEHOLDER

MOST = 20_000  # questions that are learned from
_FOLDS = 5
_FEWEST_GROUPS = 20
_FEWEST = 10  # questions with an answer, for it to count in a test
_BINS = 8  # of each number of a box, equally filled
_PRIOR = 2.0  # questions' worth of doubt in what a feature says
_CLEAR = 4  # standard deviations: hardly one test in 10,000 gets there by chance
_EXCESS = 0.05  # of the average share of right answers; less is no matter
_NUMBERS = re.compile(r"\[[\d\s.,-]+\]")
_OPTION = re.compile(r"(?:^|(?<=[?.:!] ))\(?([A-Z])[.):]\s+(.+?)\s*$", re.MULTILINE)  # a line, or its end
_BOX = "[box]"
NONE = "none"  # the label of what has no defect, in every language


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question and its answer; questions about images that are not independent share a group."""

    text: str
    answer: str
    group: str


@dataclass(frozen=True)
class BlindTest:
    """How often a guess without looking is right, on average over the possible answers, and how often a
    constant answer is."""

    guess: float
    constant: float

    def __str__(self) -> str:
        return f"{self.guess:.0%} (a constant answer: {self.constant:.0%})"


def guess_blindly(known: Sequence[tuple[str, str]], texts: Sequence[str], common: bool = False) -> list[str]:
    """Answer questions without looking, as questions and answers that are `known` suggest; all answers count
    as equally likely beforehand, or, with `common`, as likely as they are in `known`."""
    if len(known) > MOST:
        known = random.Random(0).sample(known, MOST)
    answers = [answer for _, answer in known]
    learned = np.arange(len(known) + len(texts)) < len(known)
    return _guesses([*(text for text, _ in known), *texts], answers, learned, ~learned, common)


def blind_test(questions: Sequence[AskedQuestion]) -> BlindTest | None:
    """Test whether the answers of one task can be guessed without looking; None where they cannot beyond
    chance, or where too little is asked to say. Each question is guessed by what other groups teach."""
    if len(questions) > MOST:
        questions = random.Random(0).sample(questions, MOST)
    answers = [_BOX if parse_boxes(question.answer) else question.answer for question in questions]
    counts = Counter(answers)
    kept = [index for index, answer in enumerate(answers) if counts[answer] >= _FEWEST]
    answers = [answers[index] for index in kept]
    groups = [questions[index].group for index in kept]
    possible = len(set(answers))
    if possible < 2 or len(set(groups)) < _FEWEST_GROUPS:
        return None
    texts = [questions[index].text for index in kept]
    fold = np.array([zlib.crc32(group.encode()) % _FOLDS for group in groups])
    right = np.zeros(len(kept))
    for number in set(fold.tolist()):
        held_out = fold == number
        guesses = _guesses(texts, answers, ~held_out, held_out)
        for index, guess in zip(np.flatnonzero(held_out), guesses, strict=True):
            right[index] = guess == answers[index]
    constant = 1 / possible
    weights = np.array([1 / (possible * counts[answer]) for answer in answers])
    numbers = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    # Of one group, answers hang together: it is the groups' sums that are independent.
    sums = np.bincount([numbers[group] for group in groups], weights * (right - constant))
    excess, spread = float(sums.sum()), float(np.sqrt((sums**2).sum()))
    if excess < _EXCESS or excess < _CLEAR * spread:
        return None
    return BlindTest(constant + excess, constant)


def blind_tests(tasks: Mapping[str, Sequence[AskedQuestion]]) -> dict[str, BlindTest]:
    """Return the tests of those tasks with closed answers that can be guessed without looking."""
    closed = {
        task: questions
        for task, questions in tasks.items()
        if is_closed([question.answer for question in questions])
    }
    return {task: test for task, questions in closed.items() if (test := blind_test(questions))}


def without_kinds(question: AskedQuestion, label: str) -> AskedQuestion:
    """Return a question about a box with an answer of whether anything is there, others as they are.

    That kinds of defect differ in shape and place lies in the things; that boxes of nothing differ from those
    of defects is the questions' fault. `label` is the kind that the question is about, or `NONE`.
    """
    if not label or not parse_boxes(question.text):
        return question
    return replace(question, answer=NONE if label == NONE else "something")


def is_closed(answers: Sequence[str]) -> bool:
    """Whether answers are of a closed kind: short, and few different ones."""
    different = {_BOX if parse_boxes(answer) else answer for answer in answers}
    return len(different) <= 30 and all(len(answer.split()) <= 4 for answer in different)


# --- the guesser ---------------------------------------------------------------------------------------


def _guesses(
    texts: Sequence[str],
    answers: Sequence[str],
    learned: npt.NDArray[np.bool_],
    asked: npt.NDArray[np.bool_],
    common: bool = False,
) -> list[str]:
    """Guess the answers to the texts that are `asked`; those `learned` are a part of the first texts, which
    the `answers` belong to."""
    options = [dict(_OPTION.findall(text)) for text in texts]
    train, test = np.flatnonzero(learned).tolist(), np.flatnonzero(asked).tolist()
    if all(answers[index] in options[index] for index in train) and all(options[index] for index in test):
        return _guess_options([(options[i], answers[i]) for i in train], [options[i] for i in test])
    counts = Counter(answers[index] for index in train)
    classes = sorted(counts, key=lambda answer: (-counts[answer], answer))
    number = {answer: index for index, answer in enumerate(classes)}
    rows, columns = _features(texts)
    truth = np.array([number[answers[i]] if learned[i] else 0 for i in range(len(texts))])
    of_learned = learned[rows]
    width = int(columns.max(initial=0)) + 1
    cells = columns[of_learned] * len(classes) + truth[rows[of_learned]]
    seen = np.bincount(cells, minlength=width * len(classes)).reshape(width, len(classes))
    sizes = np.array([counts[answer] for answer in classes])
    share = (seen.sum(axis=1, keepdims=True) + 1e-9) / len(train)
    evidence = np.log((seen + _PRIOR * share) / ((sizes + _PRIOR) * share))
    evidence[seen.sum(axis=1) == 0] = 0
    scores = np.zeros((len(texts), len(classes)))
    for index in range(len(classes)):
        scores[:, index] = np.bincount(rows, evidence[columns, index], minlength=len(texts))
    if common:
        scores += np.log(sizes)
    # Rounded, so that ties are ties on every machine; the commonest answer wins them.
    return [classes[index] for index in np.round(scores[test], 9).argmax(axis=1).tolist()]


def _guess_options(known: Sequence[tuple[dict[str, str], str]], asked: Sequence[dict[str, str]]) -> list[str]:
    shown, right = Counter[str](), Counter[str]()
    for options, answer in known:
        shown.update(options.values())
        right[options[answer]] += 1
    rate = {text: (right[text] + _PRIOR / 4) / (shown[text] + _PRIOR) for text in shown}
    return [max(options, key=lambda letter: rate.get(options[letter], 0.25)) for options in asked]


def _features(texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the features of texts as (rows, columns): their words, wordings, and bins of their boxes."""
    columns: dict[str, int] = {}
    pairs = [
        (row, columns.setdefault(feature, len(columns)))
        for row, text in enumerate(texts)
        for feature in _words(text)
    ]
    found = [(row, boxes[0]) for row, text in enumerate(texts) if (boxes := parse_boxes(text))]
    if found:
        numbers = _box_numbers(np.array([box for _, box in found]))
        edges = np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1], axis=0)
        for index in range(numbers.shape[1]):
            bins = np.searchsorted(edges[:, index], numbers[:, index], side="right")
            pairs += [
                (row, columns.setdefault(f"{index} {number}", len(columns)))
                for (row, _), number in zip(found, bins.tolist(), strict=True)
            ]
    rows, ids = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return rows, ids


def _words(text: str) -> Iterator[str]:
    wording = _NUMBERS.sub(" ", text.replace(IMAGE_PLACEHOLDER, " ")).casefold()
    words = re.findall(r"\w+", wording)
    yield from {f"word {word}" for word in words}
    yield " ".join(words)


def _box_numbers(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x1, y1, x2, y2 = boxes.T
    width, height = x2 - x1, y2 - y1
    touches = (boxes <= 0.003).sum(axis=1) + (boxes >= 0.997).sum(axis=1)
    sums = [x1 + x2, y1 + y2, width * height, width / (height + 1e-6)]
    return np.stack([x1, y1, x2, y2, width, height, *sums, touches], axis=1)
