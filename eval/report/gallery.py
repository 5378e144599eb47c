"""The gallery of the report: images with their questions and answers, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.report.cases import CardOutline, Cases, display_text
from eval.report.phrases import counted, percent
from eval.report.pictures import DrawnBox, EmbeddedImages, box_legend, filter_form, picture
from eval.scoring.schema import Case, CaseAnswer, Corners
from llava.common.files import inside
from llava.common.html.markup import Markup, cut, tag, together
from llava.common.photo_cache import photo_at

MAX_IMAGES = 120
MAX_BYTES = 6_000_000  # of embedded images, as text
RIGHT_SHARE = 0.25  # fraction of the images shown that were answered without a mistake
_TEXT = 600  # characters of a question or an answer
_MAX_QUESTIONS = 40  # shown of one image
_MIN_PROBABILITY = 0.005  # that is worth showing
_CHOICES = 4  # probabilities shown of one answer
_GRADED = ("box", "text", "json")  # answers that may be partly right


@dataclass(frozen=True)
class Card:
    """Holds the questions about one image, or about several asked about together, or one about none.

    `images` are files of the image folder, `names` what people know them by.
    """

    images: tuple[str, ...]
    names: tuple[str, ...]
    label: str
    cases: tuple[Case, ...]

    @classmethod
    def read(cls, outline: CardOutline, cases: Cases) -> Card:
        """Read the questions of a card in full."""
        read = tuple(map(cases.load, outline.rows))
        return cls(outline.images, tuple(read[0].names), outline.label, read)


def choose_cards(cards: Sequence[CardOutline], limit: int = MAX_IMAGES) -> list[CardOutline]:
    """Return at most `limit` cards, in the order in which they should be drawn until there is no more room.

    The worst of each label come in turns, and every so often one without a mistake.
    """
    wrong = _alternate_labels([card for card in cards if not card.right])
    right = _alternate_labels([card for card in cards if card.right])
    every = round(1 / RIGHT_SHARE)
    chosen: list[CardOutline] = []
    while (wrong or right) and len(chosen) < limit:
        from_right = right and (not wrong or len(chosen) % every == every - 1)
        chosen.append((right if from_right else wrong).pop(0))
    return chosen


def _alternate_labels(cards: Sequence[CardOutline]) -> list[CardOutline]:
    """Return the first card of each label, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    ranked = []
    for number, card in enumerate(cards):
        ranked.append((seen[card.label], number, card))
        seen[card.label] += 1
    return [card for _, _, card in sorted(ranked, key=lambda item: item[:2])]


def gallery_part(cases: Cases, folder: Path) -> Markup | None:
    """Return the gallery, with images from `folder`; None without cases."""
    if not cases.cards:
        return None
    embedded = EmbeddedImages(lambda name: photo_at(inside(folder, name)))
    shown: set[int] = set()
    for outline in choose_cards(cases.cards):
        for name in outline.images:
            embedded.data_uri(name)
        shown.add(id(outline))
        if embedded.bytes > MAX_BYTES:
            break
    chosen = [outline for outline in cases.cards if id(outline) in shown]
    drawn = [Card.read(outline, cases) for outline in chosen]
    anchors: dict[str, str] = {}  # of the card that shows each image
    elements = [
        _card(card, f"picture-{number}", embedded, anchors) for number, card in enumerate(drawn, start=1)
    ]
    return together(
        [
            tag("p", _summary(cases.cards, chosen)),
            _legend(drawn),
            _filter(drawn),
            tag("div", *elements, class_="cases"),
        ]
    )


def _summary(cards: Sequence[CardOutline], drawn: Sequence[CardOutline]) -> str:
    with_mistakes = sum(not card.right for card in cards)
    all_have_images = all(card.images for card in cards)
    what = (
        counted(len(cards), "picture")
        if all_have_images
        else f"{len(cards):,} pictures or questions without one"
    )
    text = f"{what} in the test, {with_mistakes:,} with at least one answer that is not right. Worst first."
    if len(drawn) == len(cards):
        return text
    shown_mistakes = sum(not card.right for card in drawn)
    left = len(cards) - len(drawn)
    return (
        f"{text} Shown are {len(drawn):,}: {shown_mistakes:,} with mistakes, the worst of each kind, and "
        f"{len(drawn) - shown_mistakes:,} without; {left:,} are left out to keep this page small."
    )


def _legend(cards: Sequence[Card]) -> Markup | None:
    cases = [case for card in cards for case in card.cases]
    drawn = {
        "truth": any(case.truth_box for case in cases),
        "tuned": any(case.tuned.box for case in cases),
        "base": any(case.base and case.base.box for case in cases),
        "asked": any(case.asked_box for case in cases),
    }
    return box_legend([css_class for css_class, has in drawn.items() if has])


def _filter(cards: Sequence[Card]) -> Markup:
    cases = [case for card in cards for case in card.cases]
    states = {"wrong": "tuned is wrong or not understood", "partly": "tuned is partly right"}
    states |= {"unparsed": "tuned is not understood", "right": "tuned is right"}
    if any(case.base for case in cases):
        states |= {"lost": "tuned wrong, base right", "won": "tuned right, base wrong"}
    if not any(answer_state(case.type, case.tuned) == "partly" for case in cases):
        del states["partly"]
    tasks = {task: task for task in dict.fromkeys(case.task for case in cases)}
    labels = {label: label for label in sorted({case.label for case in cases if case.label})}
    return filter_form(
        {"task": ("Task", tasks), "state": ("Answers", states), "label": ("What it shows", labels)}
    )


# --- one card ----------------------------------------------------------------------------------------


def answer_state(task_type: str, answer: CaseAnswer) -> str:
    """Return right, partly, wrong or unparsed."""
    if answer.right:
        return "right"
    if not answer.parsed:
        return "unparsed"
    return "partly" if task_type in _GRADED and answer.value > 0 else "wrong"


def _card(card: Card, anchor: str, embedded: EmbeddedImages, anchors: dict[str, str]) -> Markup:
    """Return a card; an image that another card shows already is a link to that one.

    Args:
        card: The questions about one image, or several.
        anchor: The card's own anchor.
        embedded: The images of the page.
        anchors: By image, the anchor of the card that shows it; this card's are added.
    """
    numbers = _numbers(card)
    images = []
    for position, (image, name) in enumerate(zip(card.images, card.names, strict=True)):
        if (known := anchors.get(image)) is not None:
            link = tag("a", f"{name} is shown there", href=f"#{known}")
            images.append(tag("div", tag("p", link), class_="picture"))
        else:
            images.append(_image(card, position, embedded, numbers if position == 0 else {}))
            if embedded.data_uri(image):
                anchors[image] = anchor
    wrong = [case for case in card.cases if not case.tuned.right]
    right = [case for case in card.cases if case.tuned.right]
    shown = [_question_block(case, numbers) for case in wrong[:_MAX_QUESTIONS]]
    folded = [_question_block(case, numbers) for case in right[: _MAX_QUESTIONS - len(shown)]]
    more = len(card.cases) - len(shown) - len(folded)
    name = ", ".join(card.names) or "asked without a picture"
    tally = f"{len(right)} of {counted(len(card.cases), 'answer')} right"
    label = tag("span", "shows ", tag("b", card.label), "; ") if card.label else None
    return tag(
        "figure",
        *images,
        tag("figcaption", label, tally, tag("h3", cut(name, 200))),
        *shown,
        tag("details", tag("summary", counted(len(right), "right answer")), *folded) if folded else None,
        tag("p", f"and {counted(more, 'more question')}", class_="ask-more soft") if more else None,
        class_="case",
        id=anchor,
        data_name=" ".join(dict.fromkeys((*card.names, *card.images))),
    )


def _numbers(card: Card) -> dict[str, int]:
    """Return a number for each question with boxes, where there are several."""
    boxed = [case.question_id for case in card.cases if _boxes(case)]
    return {question: number for number, question in enumerate(boxed, start=1)} if len(boxed) > 1 else {}


def _boxes(case: Case) -> list[tuple[str, Corners]]:
    """Return the boxes to draw, each a CSS class and corners, what should lie on top last."""
    boxes = [
        ("asked", case.asked_box),
        ("truth", case.truth_box),
        ("base", case.base.box if case.base else None),
        ("tuned", case.tuned.box),
    ]
    return [(css_class, box) for css_class, box in boxes if box is not None]


def _image(card: Card, position: int, embedded: EmbeddedImages, numbers: dict[str, int]) -> Markup:
    """Return one of a card's images with the boxes of its questions; `numbers` are the pins' by question."""
    name = card.names[position]
    data = embedded.data_uri(card.images[position])
    if not data:
        errors = {case.tuned.error for case in card.cases if case.tuned.error}
        why = f"This picture cannot be shown: {name}. {' '.join(sorted(errors))}".strip()
        return tag("div", tag("p", cut(why, 300)), class_="picture")
    boxes: list[DrawnBox] = []
    pins: list[Markup] = []
    # Boxes of a question about several images are of the first.
    for case in card.cases if card.images[position] == card.images[0] else []:
        of_case = _boxes(case)
        boxes += [
            DrawnBox(css_class, box, f"{css_class}: {display_text(case.question)}")
            for css_class, box in of_case
        ]
        if case.question_id in numbers and of_case:
            pins.append(_pin(numbers[case.question_id], of_case[0][1]))
    alt = f"Picture {name}" + (f", which shows {card.label}" if card.label else "")
    if boxes:
        alt += " with boxes of " + " and ".join(dict.fromkeys(box.css_class for box in boxes))
    return picture(data, alt, boxes, pins)


def _pin(number: int, box: Corners) -> Markup:
    x, y, _, _ = box
    style = f"left:{100 * min(x, 0.94):.1f}%;top:{100 * min(y, 0.94):.1f}%"
    return tag("span", number, class_="pin", style=style, aria_hidden="true")


def _question_block(case: Case, numbers: dict[str, int]) -> Markup:
    number = numbers.get(case.question_id)
    pin = f"[{number}] " if number else None
    lines = [tag("dt", "truth"), tag("dd", tag("b", cut(case.truth, _TEXT)))]
    lines += [tag("dt", "tuned"), _answer(case, case.tuned)]
    if case.base is not None:
        lines += [tag("dt", "base"), _answer(case, case.base)]
    return tag(
        "div",
        tag("p", tag("span", case.task, class_="tag"), " ", pin, cut(display_text(case.question), _TEXT)),
        tag("dl", *lines),
        class_="ask",
        data_task=case.task,
        data_label=case.label or "",
        data_tuned=answer_state(case.type, case.tuned),
        data_base=answer_state(case.type, case.base) if case.base else "",
    )


_MARKS = {"right": "✓ right", "wrong": "✗ wrong", "unparsed": "? not understood"}
# Words in common do not make a text right, so none of these says "right".
_PARTLY = {"box": "≈ overlap {}", "text": "≈ {} of the words", "json": "≈ {} of the fields"}


def _answer(case: Case, answer: CaseAnswer) -> Markup:
    state = answer_state(case.type, answer)
    mark = _MARKS.get(state, "")
    if answer.error:
        mark, text = "! no answer", f"picture not read: {answer.error}"
    elif answer.text is None:
        mark, text = "! no answer", ""
    else:
        text = cut(answer.text, _TEXT) or "(empty)"
    if state == "partly":
        mark = _PARTLY.get(case.type, "≈ {}").format(percent(answer.value))
    likeliest = sorted((answer.choices or {}).items(), key=lambda item: -item[1])[:_CHOICES]
    likeliest = [item for item in likeliest if item[1] >= _MIN_PROBABILITY] or likeliest[:1]
    probabilities = ", ".join(f"{cut(name, 40)} {percent(value)}" for name, value in likeliest)
    return tag(
        "dd",
        text,
        " " if text else None,
        tag("span", mark, class_=f"mark {state}"),
        tag("div", f"probabilities: {probabilities}", class_="soft") if probabilities else None,
    )
