"""gallery.html of `llava-inspect predict`: photos with what the model answered about them.

The page uses the styles and the script of the report of scores: photos enlarge, and a filter finds answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from eval.report.phrases import counted, percent
from eval.report.pictures import DrawnBox, EmbeddedImages, box_legend, filter_form, picture
from eval.scoring.schema import Corners
from llava.common.html.markup import (
    Markup,
    cut,
    first_of,
    table,
    table_row,
    tag,
    together,
)
from llava.common.html.page import Section, callout, document, read_asset
from llava.common.photo_cache import photo_at

MAX_BYTES = 20_000_000  # of embedded images, as text
_TEXT = 600  # characters of a question or an answer
_MAX_ROWS = 100  # of the table of answers
_MAX_ANSWERS = 6  # of a row of it
_MAX_PROBABILITIES = 3
_MAX_LISTED = 10  # photos that have no answer


@dataclass(frozen=True)
class PhotoAnswer:
    """A question and what the model answered.

    `error` says why there is no answer, "" where there is one. `probabilities` are those of the choices;
    `closed`: the question had choices. `box` is in 0..1 of the photo, where the answer is one.
    """

    question: str
    text: str
    error: str
    probabilities: Mapping[str, float]
    closed: bool
    box: Corners | None


@dataclass(frozen=True)
class PhotoCard:
    """A photo, by its own name, and the answers about it."""

    name: str
    path: Path
    answers: tuple[PhotoAnswer, ...]


def render_photo_page(cards: Sequence[PhotoCard], models: Sequence[str]) -> str:
    """Return the whole page; `models` are the names of what answered."""
    paths = {card.name: card.path for card in cards}
    embedded = EmbeddedImages(lambda name: photo_at(paths[name]))
    drawn = []
    console = Console(stderr=True)
    for card in track(cards, "gallery", console=console, transient=True, disable=not console.is_terminal):
        embedded.data_uri(card.name)
        drawn.append(card)
        if embedded.bytes > MAX_BYTES:
            break
    total = sum(not answer.error for card in cards for answer in card.answers)
    facts = f"{counted(len(cards), 'photo')}, {counted(total, 'answer')} by “{', '.join(models)}”. "
    note = "Nobody has checked these answers. How far to rely on this model, only a scored test says."
    failed = {card.name: answer.error for card in cards for answer in card.answers if answer.error}
    warnings = [f"{name} has no answer: {error}" for name, error in list(failed.items())[:_MAX_LISTED]]
    if len(failed) > _MAX_LISTED:
        warnings.append(f"and {counted(len(failed) - _MAX_LISTED, 'more photo')} without an answer")
    sections: list[Section] = [("What was answered", "answers", _tally(cards))] if _closed(cards) else []
    sections.append(("Photos", "photos", _photos(drawn, len(cards) - len(drawn), embedded)))
    return document(
        "What the model says of these photos",
        [tag("p", facts, tag("span", note, class_="soft")), callout(warnings) if warnings else Markup()],
        sections,
        style=read_asset("eval.report", "report.css"),
        script=read_asset("eval.report", "report.js"),
    )


def _closed(cards: Sequence[PhotoCard]) -> list[PhotoAnswer]:
    return [answer for card in cards for answer in card.answers if answer.closed and not answer.error]


def _tally(cards: Sequence[PhotoCard]) -> Markup:
    """Return how often each answer was given to each question that has choices."""
    counts: dict[str, Counter[str]] = {}
    for answer in _closed(cards):
        counts.setdefault(answer.question, Counter())[answer.text] += 1
    rows = [
        table_row(cut(question, _TEXT), _most_common(of_question)) for question, of_question in counts.items()
    ]
    caption = "Of the questions with choices: on how many photos each answer was given."
    return table(
        caption + first_of(min(len(rows), _MAX_ROWS), len(rows)), ["question", "answers"], rows[:_MAX_ROWS]
    )


def _most_common(counts: Counter[str]) -> str:
    shown = [f"{cut(text, 60)}: {number:,}" for text, number in counts.most_common(_MAX_ANSWERS)]
    more = [f"{len(counts) - len(shown):,} others"] if len(counts) > len(shown) else []
    return ", ".join([*shown, *more])


def _photos(cards: Sequence[PhotoCard], left_out: int, embedded: EmbeddedImages) -> Markup:
    answers = [answer for card in cards for answer in card.answers]
    questions = {answer.question: cut(answer.question, 60) for answer in answers}
    texts = {answer.text: answer.text for answer in answers if answer.closed and not answer.error}
    form = filter_form(
        {
            "task": ("Question", questions if len(questions) > 1 else {}),
            "label": ("Answer", dict(sorted(texts.items()))),
            "state": ("", {}),
        }
    )
    boxes = any(answer.box for answer in answers)
    more = f"{counted(left_out, 'photo')} more: answers.csv has all; this page is kept small."
    return together(
        [
            tag("p", more) if left_out else None,
            box_legend(["tuned"], {"tuned": "box that the model answered"}) if boxes else None,
            form,
            tag("div", *(_card(card, embedded) for card in cards), class_="cases"),
        ]
    )


def _card(card: PhotoCard, embedded: EmbeddedImages) -> Markup:
    data = embedded.data_uri(card.name)
    boxes = [
        DrawnBox("tuned", answer.box, answer.question) for answer in card.answers if answer.box is not None
    ]
    alt = f"Photo {card.name}" + (" with the boxes that the model answered" if boxes else "")
    shown = (
        picture(data, alt, boxes)
        if data
        else tag("div", tag("p", "This photo cannot be shown."), class_="picture")
    )
    errors = dict.fromkeys(answer.error for answer in card.answers if answer.error)
    answered = [answer for answer in card.answers if not answer.error]
    return tag(
        "figure",
        shown,
        tag("figcaption", tag("h3", cut(card.name, 200))),
        *(tag("div", tag("p", f"No answer: {cut(error, _TEXT)}"), class_="ask") for error in errors),
        *(_answer(answer) for answer in answered),
        class_="case",
        data_name=card.name,
    )


def _answer(answer: PhotoAnswer) -> Markup:
    likeliest = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:_MAX_PROBABILITIES]
    probabilities = ", ".join(f"{cut(name, 40)} {percent(value)}" for name, value in likeliest)
    return tag(
        "div",
        tag("p", cut(answer.question, _TEXT), class_="soft"),
        tag("p", tag("b", cut(answer.text, _TEXT) or "(empty)")),
        tag("p", f"probabilities: {probabilities}", class_="soft") if probabilities else None,
        class_="ask",
        data_task=answer.question,
        data_label=answer.text if answer.closed else "",
    )
