"""The gallery of the report: pictures with their questions and answers, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.report.phrases import counted, percent
from eval.scoring.schema import Case, CaseAnswer, Corners
from llava.common.errors import InputError
from llava.common.files import inside
from llava.common.html.markup import Markup, cut, tag, together
from llava.common.html.page import thumbnail
from llava.common.records import IMAGE_PLACEHOLDER

MAX_IMAGES = 120
MAX_BYTES = 3_500_000  # of embedded pictures, as text
RIGHT_SHARE = 0.25  # of the pictures shown are ones that were answered without a mistake
SIDE, QUALITY = 448, 72  # of an embedded JPEG
_TEXT = 600  # characters of a question or an answer
_ASKED = 40  # questions shown of one picture
_LEAST = 0.005  # probability that is worth showing
_CHOICES = 4  # probabilities shown of one answer
_GRADED = ("box", "text", "json")  # answers that may be partly right


@dataclass(frozen=True)
class Card:
    """The questions about one picture, or about several that are asked about together; or one about none."""

    images: tuple[str, ...]
    cases: tuple[Case, ...]

    @property
    def value(self) -> float:
        return sum(case.tuned.value for case in self.cases) / len(self.cases)

    @property
    def right(self) -> bool:
        return all(case.tuned.right for case in self.cases)

    @property
    def label(self) -> str:
        """What most of its questions say that it shows."""
        labels = Counter(case.label for case in self.cases if case.label)
        return labels.most_common(1)[0][0] if labels else ""


def make_cards(cases: Sequence[Case]) -> list[Card]:
    """All cards, worst first; among equals those that base answered better, then in the order of the file.
    Questions without a picture are a card each."""
    by_images: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        by_images.setdefault(tuple(case.images) or ("", case.question_id), []).append(case)
    cards = [Card(tuple(asked[0].images), tuple(asked)) for asked in by_images.values()]
    return sorted(cards, key=lambda card: (card.value, -_lost(card)))


def _lost(card: Card) -> int:
    return sum(bool(case.base and case.base.right and not case.tuned.right) for case in card.cases)


def choose_cards(cards: Sequence[Card], most: int = MAX_IMAGES) -> list[Card]:
    """At most `most` cards, in the order in which they should be drawn until there is no more room: the worst
    of each label in turns, and every so often one without a mistake."""
    wrong, right = (
        _alternate_labels([card for card in cards if card.right is state]) for state in (False, True)
    )
    every = round(1 / RIGHT_SHARE)
    picked: list[Card] = []
    while (wrong or right) and len(picked) < most:
        from_right = right and (not wrong or len(picked) % every == every - 1)
        picked.append((right if from_right else wrong).pop(0))
    return picked


def _alternate_labels(cards: Sequence[Card]) -> list[Card]:
    seen: Counter[str] = Counter()
    ranked = []
    for number, card in enumerate(cards):
        ranked.append((seen[card.label], number, card))
        seen[card.label] += 1
    return [card for _, _, card in sorted(ranked, key=lambda item: item[:2])]


class EmbeddedImages:
    """The embedded pictures: each once, however many cards show it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bytes = 0
        self._data: dict[str, str] = {}

    def of(self, name: str) -> str:
        """A data URI, or "" for a picture that is absent, cannot be read or is outside the folder."""
        if name not in self._data:
            try:
                self._data[name] = thumbnail(inside(self.folder, name), SIDE, QUALITY)
            except InputError:
                self._data[name] = ""
            self.bytes += len(self._data[name])
        return self._data[name]


def gallery_part(cases: Sequence[Case], folder: Path) -> Markup | None:
    if not cases:
        return None
    cards = make_cards(cases)
    embedded = EmbeddedImages(folder)
    shown: set[int] = set()
    for card in choose_cards(cards):
        for name in card.images:
            embedded.of(name)
        shown.add(id(card))
        if embedded.bytes > MAX_BYTES:
            break
    drawn = [card for card in cards if id(card) in shown]
    places: dict[str, str] = {}  # where each picture is shown
    made = [_card(card, f"picture-{number}", embedded, places) for number, card in enumerate(drawn, start=1)]
    return together(
        [
            tag("p", _about(cards, drawn)),
            _legend(drawn),
            _filter(drawn),
            tag("div", *made, class_="cases"),
        ]
    )


def _about(cards: Sequence[Card], drawn: Sequence[Card]) -> str:
    faulty = sum(not card.right for card in cards)
    imaged = all(card.images for card in cards)
    what = counted(len(cards), "picture") if imaged else f"{len(cards):,} pictures or questions without one"
    text = f"{what} in the test, {faulty:,} with at least one answer that is not right. Worst first."
    if len(drawn) == len(cards):
        return text
    faulty_shown = sum(not card.right for card in drawn)
    left = len(cards) - len(drawn)
    return (
        f"{text} Shown are {len(drawn):,}: {faulty_shown:,} with mistakes, the worst of each kind, and "
        f"{len(drawn) - faulty_shown:,} without; {left:,} are left out to keep this page small."
    )


def _legend(cards: Sequence[Card]) -> Markup | None:
    cases = [case for card in cards for case in card.cases]
    keys = [
        tag("span", tag("i", class_=f"frame {look}"), words, class_="key")
        for look, words, has in (
            ("truth", "true box", any(case.truth_box for case in cases)),
            ("tuned", "box of tuned", any(case.tuned.box for case in cases)),
            ("base", "box of base", any(case.base and case.base.box for case in cases)),
            ("asked", "box that the question names", any(case.asked_box for case in cases)),
        )
        if has
    ]
    return tag("p", *keys, class_="keys soft") if keys else None


def _filter(cards: Sequence[Card]) -> Markup:
    cases = [case for card in cards for case in card.cases]
    states = {"wrong": "tuned is wrong or not understood", "partly": "tuned is partly right"}
    states |= {"unparsed": "tuned is not understood", "right": "tuned is right"}
    if any(case.base for case in cases):
        states |= {"lost": "tuned wrong, base right", "won": "tuned right, base wrong"}
    if not any(state(case.type, case.tuned) == "partly" for case in cases):
        del states["partly"]
    tasks = {task: task for task in dict.fromkeys(case.task for case in cases)}
    labels = {label: label for label in sorted({case.label for case in cases if case.label})}
    fields = [
        _select("Task", "task", tasks),
        _select("Answers", "state", states),
        _select("What it shows", "label", labels) if labels else tag("input", type="hidden", name="label"),
        tag(
            "label",
            "Words",
            tag("input", type="search", name="words", placeholder="in questions, answers, names"),
        ),
        tag("button", "Show all", type="reset"),
        tag("output", id="count", class_="soft", aria_live="polite"),
    ]
    return tag("form", *fields, id="filter", class_="filter", hidden="", aria_label="Filter the pictures")


def _select(label: str, name: str, options: dict[str, str]) -> Markup:
    made = [tag("option", cut(words, 60), value=value) for value, words in {"": "all", **options}.items()]
    return tag("label", label, tag("select", *made, name=name))


# --- one card ----------------------------------------------------------------------------------------


def state(kind: str, answer: CaseAnswer) -> str:
    """right, partly, wrong or unparsed."""
    if answer.right:
        return "right"
    if not answer.parsed:
        return "unparsed"
    return "partly" if kind in _GRADED and answer.value > 0 else "wrong"


def _card(card: Card, anchor: str, embedded: EmbeddedImages, places: dict[str, str]) -> Markup:
    numbers = _numbers(card)
    images = []
    for place, name in enumerate(card.images):
        if (known := places.get(name)) is not None:
            link = tag("a", f"{name} is shown there", href=f"#{known}")
            images.append(tag("div", tag("p", link), class_="picture"))
        else:
            images.append(_image(card, name, embedded, numbers if place == 0 else {}))
            if embedded.of(name):
                places[name] = anchor
    wrong = [case for case in card.cases if not case.tuned.right]
    right = [case for case in card.cases if case.tuned.right]
    shown = [_ask(case, numbers) for case in wrong[:_ASKED]]
    folded = [_ask(case, numbers) for case in right[: _ASKED - len(shown)]]
    more = len(card.cases) - len(shown) - len(folded)
    name = ", ".join(card.images) or "asked without a picture"
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
        data_name=name,
    )


def asked(case: Case) -> str:
    """The question without the marks of its pictures."""
    lines = case.question.replace(IMAGE_PLACEHOLDER, " ").split("\n")
    return "\n".join(line for line in map(str.strip, lines) if line)


def _numbers(card: Card) -> dict[str, int]:
    """A number for each question with boxes, where there are several."""
    boxed = [case.question_id for case in card.cases if _boxes(case)]
    return {question: number for number, question in enumerate(boxed, start=1)} if len(boxed) > 1 else {}


def _boxes(case: Case) -> list[tuple[str, Corners]]:
    """Boxes to draw: look and corners, what should lie on top last."""
    found = [
        ("asked", case.asked_box),
        ("truth", case.truth_box),
        ("base", case.base.box if case.base else None),
        ("tuned", case.tuned.box),
    ]
    return [(look, box) for look, box in found if box is not None]


def _image(card: Card, name: str, embedded: EmbeddedImages, numbers: dict[str, int]) -> Markup:
    data = embedded.of(name)
    if not data:
        errors = {case.tuned.error for case in card.cases if case.tuned.error}
        why = f"This picture cannot be shown: {name}. {' '.join(sorted(errors))}".strip()
        return tag("div", tag("p", cut(why, 300)), class_="picture")
    rectangles, pins, said = [], [], []
    # Boxes of a question about several pictures are of the first.
    for case in card.cases if name == card.images[0] else []:
        for look, (x1, y1, x2, y2) in _boxes(case):
            place = {
                "x": f"{x1:.4f}",
                "y": f"{y1:.4f}",
                "width": f"{x2 - x1:.4f}",
                "height": f"{y2 - y1:.4f}",
            }
            rectangles.append(tag("rect", class_="under", **place))
            rectangles.append(tag("rect", tag("title", f"{look}: {asked(case)}"), class_=look, **place))
        if case.question_id in numbers and (boxes := _boxes(case)):
            _, (x, y, _, _) = boxes[0]
            style = f"left:{100 * min(x, 0.94):.1f}%;top:{100 * min(y, 0.94):.1f}%"
            pins.append(tag("span", numbers[case.question_id], class_="pin", style=style, aria_hidden="true"))
        said += [look for look, _ in _boxes(case)]
    alt = f"Picture {name}" + (f", which shows {card.label}" if card.label else "")
    if said:
        alt += " with boxes of " + " and ".join(dict.fromkeys(said))
    drawn = (
        tag("svg", *rectangles, viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
        if rectangles
        else None
    )
    return tag("div", tag("img", src=data, alt=alt, loading="lazy"), drawn, *pins, class_="picture")


def _ask(case: Case, numbers: dict[str, int]) -> Markup:
    number = numbers.get(case.question_id)
    pin = f"[{number}] " if number else None
    lines = [tag("dt", "truth"), tag("dd", tag("b", cut(case.truth, _TEXT)))]
    lines += [tag("dt", "tuned"), _answer(case, case.tuned)]
    if case.base is not None:
        lines += [tag("dt", "base"), _answer(case, case.base)]
    return tag(
        "div",
        tag("p", tag("span", case.task, class_="tag"), " ", pin, cut(asked(case), _TEXT)),
        tag("dl", *lines),
        class_="ask",
        data_task=case.task,
        data_label=case.label or "",
        data_tuned=state(case.type, case.tuned),
        data_base=state(case.type, case.base) if case.base else "",
    )


_MARKS = {"right": "✓ right", "wrong": "✗ wrong", "unparsed": "? not understood"}
# Words in common do not make a text right, so none of these says "right".
_PARTLY = {"box": "≈ overlap {}", "text": "≈ {} of the words", "json": "≈ {} of the fields"}


def _answer(case: Case, answer: CaseAnswer) -> Markup:
    found = state(case.type, answer)
    mark = _MARKS.get(found, "")
    if answer.error:
        mark, said = "! no answer", f"picture not read: {answer.error}"
    elif answer.text is None:
        mark, said = "! no answer", ""
    else:
        said = cut(answer.text, _TEXT) or "(empty)"
    if found == "partly":
        mark = _PARTLY.get(case.type, "≈ {}").format(percent(answer.value))
    shares = sorted((answer.choices or {}).items(), key=lambda item: -item[1])[:_CHOICES]
    known = [(name, share) for name, share in shares if share >= _LEAST] or shares[:1]
    sure = ", ".join(f"{cut(name, 40)} {percent(share)}" for name, share in known)
    return tag(
        "dd",
        said,
        " " if said else None,
        tag("span", mark, class_=f"mark {found}"),
        tag("div", f"probabilities: {sure}", class_="soft") if sure else None,
    )
