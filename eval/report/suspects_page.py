"""suspects.html of `llava-inspect suspects`: photos whose annotation a model contradicts, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.report.phrases import counted, percent
from eval.report.pictures import EmbeddedImages, picture
from eval.scoring.suspects import CheckedAnswer, Suspect
from llava.common.files import inside
from llava.common.html.markup import Markup, cut, tag
from llava.common.html.page import document, read_asset

_SHOWN = 100
_ANSWERS = 4  # of a photo
_TEXT = 200  # characters


def render_suspects_page(suspects: Sequence[Suspect], folder: Path) -> str:
    """Return the whole page; `folder` holds the images."""
    embedded = EmbeddedImages(lambda name: inside(folder, name))
    shown = suspects[:_SHOWN]
    header = [
        tag(
            "p",
            f"{counted(len(suspects), 'image')} of the training data were checked by models that were "
            f"not trained on them. These {len(shown):,} have the annotations that they contradict most, "
            "the worst first. A contradiction is no proof: the model errs too, above all on what is rare or "
            "small.",
        ),
        tag("p", "suspects.csv has all of them.", class_="soft"),
    ]
    cards = [_card(rank, suspect, embedded) for rank, suspect in enumerate(shown, start=1)]
    return document(
        "Which annotations may be wrong?",
        header,
        [("Suspects", "suspects", tag("div", *cards, class_="cases"))],
        style=read_asset("eval.report", "report.css"),
        script=read_asset("eval.report", "report.js"),
    )


def _card(rank: int, suspect: Suspect, embedded: EmbeddedImages) -> Markup:
    data = embedded.data_uri(suspect.image)
    alt = f"Photo {suspect.photo}"
    shown = picture(data, alt, []) if data else tag("p", "This photo cannot be shown.")
    return tag(
        "figure",
        shown,
        tag("figcaption", tag("h3", f"{rank}. {cut(suspect.photo, _TEXT)}")),
        *(_answer(answer) for answer in suspect.answers[:_ANSWERS]),
        class_="case",
        data_name=suspect.photo,
    )


def _answer(answer: CheckedAnswer) -> Markup:
    agrees = answer.says == answer.given
    mark = "agrees" if agrees else "contradicts"
    return tag(
        "div",
        tag("p", cut(answer.question, _TEXT), class_="soft"),
        tag(
            "p", "annotated: ", tag("b", cut(answer.given, _TEXT)), f" ({_probability(answer, answer.given)})"
        ),
        tag(
            "p",
            "the model says: ",
            tag("b", cut(answer.says, _TEXT)),
            f" ({_probability(answer, answer.says)}) ",
            tag("span", mark, class_=f"mark {'right' if agrees else 'wrong'}"),
        ),
        class_="ask",
    )


def _probability(answer: CheckedAnswer, choice: str) -> str:
    return percent(answer.probabilities[choice])
