"""What a search finds, and what it says on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from llava.search.ranking import Map
from llava.search.windows import Box

Stage = Literal["windows", "second look", "questions", "done"]
"""All windows are asked; then the best again, each shifted four ways; then the follow-up question."""


@dataclass(frozen=True)
class Found:
    """A place that may show what was searched.

    `p_yes` is the probability of "yes" against "no", which an absent thing may reach 0.8 of. `similarity` is
    the cosine (-1 to 1) to the reference picture; `answer` is the answer to the follow-up question.
    """

    box: Box
    p_yes: float
    similarity: float | None = None
    answer: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the values as they are written to JSON, rounded."""
        similarity = None if self.similarity is None else round(self.similarity, 4)
        return {
            "box": list(self.box),
            "p_yes": round(self.p_yes, 4),
            "similarity": similarity,
            "answer": self.answer,
        }


@dataclass(frozen=True)
class SearchResult:
    """The places found, best first, and how much was looked at.

    `complete` says whether the search came to its end.
    """

    words: str
    size: tuple[int, int]
    """The photo's (width, height)."""
    side: int
    """Of the smallest windows, in pixels of the photo."""
    windows_asked: int = 0
    windows_total: int = 0
    seconds: float = 0.0
    complete: bool = False
    found: tuple[Found, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the values as they are written to JSON."""
        return {
            "words": self.words,
            "width": self.size[0],
            "height": self.size[1],
            "window_side": self.side,
            "windows_asked": self.windows_asked,
            "windows_total": self.windows_total,
            "seconds": round(self.seconds, 3),
            "complete": self.complete,
            "found": [found.as_json() for found in self.found],
        }

    def with_found(self, found: tuple[Found, ...]) -> SearchResult:
        """Return the result with other places."""
        return replace(self, found=found)


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is; the last event has the stage "done".

    `heat` is a map of the photo, (rows, columns) of probabilities 0..1; NaN where nothing was asked yet.
    `result` is what would be found if the search ended now.
    """

    stage: Stage
    done: int
    total: int
    heat: Map
    result: SearchResult
