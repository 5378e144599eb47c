"""Suspects: annotations that a model, which was not trained on them, contradicts.

Each closed answer that an annotation gives is held against the probabilities that a model gives to the
choices. The model was trained on other photos (cross-fitted): it cannot have learned the answer by heart. The
setting is that of confident learning (C. Northcutt, L. Jiang and I. Chuang, 2021, doi 10.1613/jair.1.12125).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckedAnswer:
    """What an annotation answers to a closed question, and the model's probabilities of the choices."""

    image: str
    photo: str
    task: str
    question: str
    given: str
    probabilities: Mapping[str, float]

    @property
    def says(self) -> str:
        """The model's answer."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def margin(self) -> float:
        """By how much the model finds the given answer likelier than the likeliest other, -1 to 1."""
        others = (value for choice, value in self.probabilities.items() if choice != self.given)
        return self.probabilities[self.given] - max(others)


@dataclass(frozen=True)
class Suspect:
    """An image (a photo, or a crop or tile of one) with its answers, the most contradicted first."""

    score: float
    answers: tuple[CheckedAnswer, ...]

    @property
    def image(self) -> str:
        return self.answers[0].image

    @property
    def photo(self) -> str:
        return self.answers[0].photo


def rank_suspects(answers: Iterable[CheckedAnswer]) -> list[Suspect]:
    """Return all images, those whose annotation the model contradicts most first."""
    by_image: dict[str, list[CheckedAnswer]] = {}
    for answer in answers:
        by_image.setdefault(answer.image, []).append(answer)
    suspects = []
    for found in by_image.values():
        found.sort(key=lambda answer: answer.margin)
        suspects.append(Suspect(round(found[0].margin, 4), tuple(found)))
    return sorted(suspects, key=lambda suspect: suspect.score)
