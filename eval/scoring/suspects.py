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
    def probability(self) -> float:
        """That of the given answer, by the model."""
        return self.probabilities[self.given]


@dataclass(frozen=True)
class Suspect:
    """An image (a photo, or a crop or tile of one) with its answers, the least probable first."""

    answers: tuple[CheckedAnswer, ...]

    @property
    def image(self) -> str:
        return self.answers[0].image

    @property
    def photo(self) -> str:
        return self.answers[0].photo


def rank_suspects(answers: Iterable[CheckedAnswer]) -> list[Suspect]:
    """Return all images, in the order of the probability of their least probable answer.

    One wrong label makes one or two of a photo's answers improbable and leaves the others as they were: the
    mean over all answers, and margins to the likeliest answer, find fewer (docs/more_photos.md).
    """
    by_image: dict[str, list[CheckedAnswer]] = {}
    for answer in answers:
        by_image.setdefault(answer.image, []).append(answer)
    suspects = [
        Suspect(tuple(sorted(found, key=lambda answer: answer.probability))) for found in by_image.values()
    ]
    return sorted(suspects, key=lambda suspect: suspect.answers[0].probability)
