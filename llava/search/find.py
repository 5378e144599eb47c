"""Find something in a photo far larger than the model's input.

for progress in search(engine, image, "a red star", ask="Where is it?"):
    print(progress.stage, progress.done, progress.total)
progress.result.found
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
from PIL import Image

from llava.common.errors import InputError
from llava.inference.live import LiveEngine
from llava.inference.requests import Request
from llava.inference.sampling import SamplingOptions
from llava.search.asking import ENOUGH_DETAIL, WORDINGS, WindowAsker, cut, model_side
from llava.search.ranking import log_odds
from llava.search.reference import Likeness
from llava.search.result import Found, SearchProgress, SearchResult
from llava.search.scan import SECOND_LOOK, scan
from llava.search.windows import DEFAULT_SMALLEST, around, window_side

CONTEXT = 1.25
"""The follow-up question is asked of the place so much larger, to show what is around the thing."""
ANSWER_OPTIONS = SamplingOptions(max_new_tokens=64)


def search(
    engine: LiveEngine,
    image: Image.Image,
    words: str,
    *,
    smallest: int = DEFAULT_SMALLEST,
    top: int = 5,
    ask: str | None = None,
    reference: Image.Image | None = None,
) -> Generator[SearchProgress]:
    """Search a photo, and yield how far the search is.

    To stop, just close the iterator: every event has the result so far.

    Args:
        engine: Answers the questions; others may use it at the same time.
        image: The photo, RGB, of any size.
        words: What to search, with its article, as in "Is there ...?".
        smallest: About how many pixels of the photo the thing has at least.
        top: How many places are wanted.
        ask: A question about each place, such as "What is he doing?".
        reference: A picture of the thing; the places are compared with it (`reference.describe` gives words).

    Raises:
        InputError: there are no words, a number is out of range, or a question cannot be asked.
        EngineClosedError: the engine is closed.
    """
    words = words.strip().rstrip(".?!")
    if not words:
        raise InputError("nothing to find: give words, such as 'a red star'")
    if smallest < 1:
        raise InputError(f"smallest is {smallest}; it must be at least 1 pixel")
    if top < 1:
        raise InputError(f"top is {top}; it must be at least 1")
    ask = (ask or "").strip()
    side = ENOUGH_DETAIL * model_side(engine)
    blank = [Image.new("RGB", (side, side))]
    longest = max(WORDINGS, key=len).format(words)
    engine.check(Request("words", longest, blank), SamplingOptions(max_new_tokens=1))
    if ask:  # an error after the search would lose it
        engine.check(Request("ask", ask, blank), ANSWER_OPTIONS)
    return _search(engine, image, words, smallest, top, ask, reference)


def _search(
    engine: LiveEngine,
    image: Image.Image,
    words: str,
    smallest: int,
    top: int,
    ask: str,
    reference: Image.Image | None,
) -> Generator[SearchProgress]:
    started = time.monotonic()
    side = min(window_side(model_side(engine), smallest), max(image.size))
    result = SearchResult(words, image.size, side)
    asker = WindowAsker(engine, image, words)
    places = top if reference is None else max(top, SECOND_LOOK)  # those that are compared
    first_look = 0
    with closing(scan(image.size, side, asker.ask, places)) as scanning:
        for at in scanning:
            first_look = at.total if at.stage == "windows" else first_look
            before = 0 if at.stage == "windows" else first_look
            result = replace(
                result,
                windows_asked=before + at.done,
                windows_total=before + at.total,
                seconds=time.monotonic() - started,
                found=tuple(Found(place.box, place.p_yes) for place in at.places),
            )
            yield SearchProgress(at.stage, at.done, at.total, at.heat, _best(result, top))
    found = result.found
    if reference is not None:
        found = _by_likeness(engine, image, found, reference)
    found = found[:top]
    for number in range(len(found) if ask else 0):
        place = found[number]
        answer = _follow_up(engine, image, place, ask)
        found = (*found[:number], replace(place, answer=answer), *found[number + 1 :])
        result = replace(result, seconds=time.monotonic() - started, found=found)
        yield SearchProgress("questions", number + 1, len(found), at.heat, result)
    result = replace(result, seconds=time.monotonic() - started, found=found, complete=True)
    yield SearchProgress("done", result.windows_asked, result.windows_asked, at.heat, result)


def _best(result: SearchResult, top: int) -> SearchResult:
    return replace(result, found=result.found[:top])


def _by_likeness(
    engine: LiveEngine, image: Image.Image, found: Sequence[Found], reference: Image.Image
) -> tuple[Found, ...]:
    """Return the places with their similarity, by the log-odds of yes plus the similarity in standard
    deviations: similarities have no scale of their own."""
    side = model_side(engine)
    similar = Likeness(engine, reference).of([cut(image, place.box, side) for place in found])
    mean, deviation = np.mean(similar), np.std(similar) or 1.0
    places = [replace(place, similarity=value) for place, value in zip(found, similar, strict=True)]
    scores = [
        log_odds(place.p_yes) + (value - mean) / deviation
        for place, value in zip(places, similar, strict=True)
    ]
    best_first = sorted(range(len(places)), key=lambda index: -scores[index])
    return tuple(places[index] for index in best_first)


def _follow_up(engine: LiveEngine, image: Image.Image, place: Found, question: str) -> str:
    crop = cut(image, around(place.box, CONTEXT, image.size), model_side(engine))
    answer = engine.submit(Request(f"{place.box}", question, [crop]), ANSWER_OPTIONS).result()
    if answer.error is not None:
        raise InputError(answer.error)
    return answer.text
