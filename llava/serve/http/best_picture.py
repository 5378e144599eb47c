"""Score how well descriptions fit a search, and find the best: by embeddings, or by the model's own word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line
from llava.common.records import YES_NO
from llava.inference.requests import Request

SIMILARITY_THAT_FITS = 0.35
"""The least cosine similarity of a description that fits. With all-MiniLM-L6-v2, right ones had 0.57 or
more (six searches among eight descriptions), and the nearest where none was right 0.18 to 0.31."""
PROBABILITY_THAT_FITS = 0.5
"""The least yes-probability of a description that fits: yes is more probable than no."""
TIE = 1e-4
"""Scores that differ by less are equal; what runs beside a request changes the sixth digit."""

FIT_QUESTION = """A picture is described as follows: {description}
Does the picture fit the search "{search}"? Answer yes or no."""


class SentenceEncoder(Protocol):
    """What is used of sentence-transformers' `SentenceTransformer`."""

    def encode_query(self, inputs: list[str], **options: Any) -> Any:
        """Return (texts, dimensions), with what the model wants before a search."""

    def encode_document(self, inputs: list[str], **options: Any) -> Any:
        """Return (texts, dimensions), with what the model wants before a text that is searched."""


class TextEncoder:
    """Compares texts by their embeddings. It can be used from any thread."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._lock = Lock()  # one call at a time already uses all cores

    @classmethod
    def load(cls, name: str) -> TextEncoder:
        """Load a sentence-transformers model onto the CPU: the graphics card's memory is the batch's.

        Args:
            name: A folder, or a model's name on the Hub, which is then downloaded.

        Raises:
            InputError: sentence-transformers is not installed, or the model cannot be loaded.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise InputError(
                f"--text-encoder needs sentence-transformers: {how_to_install('text-encoder')}"
            ) from None
        if Path(name).is_dir() and not (Path(name) / "modules.json").is_file():
            # any transformers model would load, and compare as it was never trained to
            raise InputError(f"--text-encoder {name}: not a sentence-transformers model (no modules.json)")
        try:
            return cls(SentenceTransformer(name, device="cpu"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"--text-encoder {name}: not a sentence-transformers model ({one_line(error)})"
            ) from None

    def similarities(self, search: str, descriptions: Sequence[str]) -> list[float]:
        """Return the cosine similarity of each description to the search, -1 to 1."""
        options = {"normalize_embeddings": True, "convert_to_numpy": True, "show_progress_bar": False}
        with self._lock:
            query = self._encoder.encode_query([search], **options)
            documents = self._encoder.encode_document(list(descriptions), **options)
        return [float(score) for score in documents @ query[0]]


def fit_request(number: int, search: str, description: str) -> Request:
    """Return the question whether a description fits a search; its yes-probability is the score."""
    text = FIT_QUESTION.format(description=description, search=search)
    return Request(number, text, choices=YES_NO)


@dataclass(frozen=True)
class Ranking:
    """Says which description fits a search best."""

    best: list[int]
    """The positions of the best, first to last: more than one where they tie."""
    fits: bool
    """Whether the best score is one that fits."""


def rank(scores: Sequence[float], least: float) -> Ranking:
    """Find the best scores.

    Args:
        scores: One for each description, at least one. One that is not a number is the worst.
        least: The score from which a description fits.
    """
    known = [-math.inf if math.isnan(score) else score for score in scores]
    highest = max(known)
    best = [n for n, score in enumerate(known) if score >= highest - TIE]
    return Ranking(best, highest >= least)
