"""The page of a search: the heat map, and the places with their probabilities and answers."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from llava.common.html.markup import Markup, strip, tag
from llava.common.html.page import callout, document, jpeg_uri
from llava.search.result import Found, SearchResult

CAUTION = (
    "These are candidates, ranked by the model's probability of yes. A thing that is not there reaches 0.8"
    " now and then: look at each place before you believe it."
)


def search_page(
    photo: str, result: SearchResult, heat: Image.Image, crops: Sequence[Image.Image], ask: str | None
) -> str:
    """Return the page, which needs nothing beside itself.

    Args:
        photo: The photo's name.
        result: What was found.
        heat: The heat map's picture.
        crops: A picture of each place.
        ask: The follow-up question, if there was one.
    """
    warnings = [CAUTION]
    if not result.complete:
        warnings.insert(
            0,
            f"The search was stopped after {result.windows_asked:,} of {result.windows_total:,} windows.",
        )
    facts = {
        "searched": result.words,
        "photo": f"{result.size[0]:,} x {result.size[1]:,} pixels",
        "windows": f"{result.windows_asked:,}",
        "seconds": f"{result.seconds:.1f}",
    }
    header = [
        tag("p", photo, class_="soft"),
        tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in facts.items()), class_="facts"),
        callout(warnings),
    ]
    alt = f"Heat map over {photo}, {len(result.found)} places outlined"
    picture = tag("div", tag("img", src=jpeg_uri(heat), alt=alt), class_="picture")
    key = tag("figcaption", "The redder, the likelier. The numbers are those of the places below.")
    cards = [
        _card(number, place, crop, ask)
        for number, (place, crop) in enumerate(zip(result.found, crops, strict=True), start=1)
    ]
    return document(
        f"Search for {result.words}",
        header,
        [
            ("Places", "places", tag("div", *cards, class_="cards")),
            ("Heat map", "heat", tag("figure", picture, key)),
        ],
    )


def _card(number: int, place: Found, crop: Image.Image, ask: str | None) -> Markup:
    x1, y1, x2, y2 = place.box
    similar = "" if place.similarity is None else f", similarity to the reference {place.similarity:.2f}"
    talk = [tag("dt", ask), tag("dd", place.answer)] if place.answer is not None else []
    return tag(
        "figure",
        tag("div", tag("img", src=jpeg_uri(crop), alt=f"Place {number}"), class_="picture"),
        tag(
            "figcaption",
            tag("b", f"{number}. yes: {place.p_yes:.2f}"),
            similar,
            strip([("first", place.p_yes)]),
            f"{x1}, {y1} to {x2}, {y2}",
        ),
        tag("dl", *talk, class_="talk") if talk else None,
    )
