"""Asks a LLaVA what a picture looks like, in keywords: its mood, materials, weather and surroundings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from PIL.Image import Image, Resampling

from llava.common.errors import InputError
from llava.inference.engine import Engine
from llava.inference.live import LiveEngine
from llava.inference.requests import Request, Result
from llava.inference.sampling import SamplingOptions

Asker = Callable[[Image, Sequence[str]], list[str]]
"""A model that sees: gets a picture and questions about it, returns an answer each."""

QUESTIONS: Final = (
    "Please express the mood of the image in keywords.",
    "Which materials does the image show? Answer in keywords.",
    "What are the weather and the light in the image? Answer in keywords.",
    "What are the surroundings in the image? Answer in keywords.",
)
PER_QUESTION: Final = 3
"""Keywords of an answer that are kept: a prompt has 77 tokens."""

_SIDE = 1024  # pixels of a picture's longer side that is asked about
_MAX_WORDS = 4  # of a keyword: more is a sentence
_MAX_TOKENS = 48  # of an answer
_REFUSAL = re.compile(r"\W*(i'm|i am|i can|sorry|as an ai|unfortunately|there (is|are) no)\b", re.IGNORECASE)
_UNKNOWN = frozenset(("none", "unknown", "unclear", "not visible", "not applicable", "n/a", "na", "keywords"))
_LEAD = re.compile(  # "The mood of the image can be described as ", "Keywords: "
    r"\s*[^,;:\n]*?\b(?:is|are|includes?|shows?|expressed|described|keywords)\b"
    r"(?: (?:as|a|an|the)\b)*\W*[:\s]\W*",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"(?:^|\s)(?:[-*–—]|\d{1,2}[.)])\s|[,;\n、，；。|•·]|\.(?:\s|$)")
_EDGES = " \t.!:\"'`*#-–—“”()[]{}"


def engine_asker(engine: Engine) -> Asker:
    """Return an asker that a loaded model answers; the picture is read once for all questions."""

    def ask(picture: Image, questions: Sequence[str]) -> list[str]:
        requests = [Request(number, text, [picture]) for number, text in enumerate(questions)]
        return _texts(engine.answer(requests, max_new_tokens=_MAX_TOKENS))

    return ask


def live_asker(live: LiveEngine) -> Asker:
    """Return an asker that a live engine answers, beside what else it is asked."""

    def ask(picture: Image, questions: Sequence[str]) -> list[str]:
        options = SamplingOptions(max_new_tokens=_MAX_TOKENS)
        requests = [Request(number, text, [picture]) for number, text in enumerate(questions)]
        handles = live.submit_together(requests, options)
        return _texts([handle.result() for handle in handles])

    return ask


def _texts(results: Sequence[Result]) -> list[str]:
    for result in results:
        if result.error is not None:
            raise InputError(f"keywords of a picture: {result.error}")
    return [result.text for result in results]


def find_keywords(picture: Image, ask: Asker, questions: Sequence[str] = QUESTIONS) -> list[str]:
    """Return keywords of a picture, no two alike, in the order of the questions.

    It is asked about at 1024 pixels: its mood needs no more.
    """
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE), Resampling.LANCZOS)
    found: dict[str, None] = {}
    for answer in ask(small, questions):
        new = [word for word in parse_keywords(answer) if word not in found]
        found.update(dict.fromkeys(new[:PER_QUESTION]))
    return list(found)


def parse_keywords(answer: str) -> list[str]:
    """Return the keywords in an answer: a list of any form, or a sentence ("The mood is calm and serene.").

    In small letters, no two alike. Empty for a refusal, and without what is longer than a keyword.
    """
    if _REFUSAL.match(answer):
        return []
    found: dict[str, None] = {}
    lead = _LEAD.match(answer)
    for piece in _SEPARATORS.split(answer[lead.end() if lead else 0 :]):
        for words in re.split(r"\band\b", piece):
            keyword = " ".join(words.strip(_EDGES).split()).casefold()
            if keyword and len(keyword.split()) <= _MAX_WORDS and keyword not in _UNKNOWN:
                found[keyword] = None
    return list(found)
