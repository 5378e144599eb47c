"""Pictures of a report's page: akin pictures side by side, samples with their boxes and conversations."""

from __future__ import annotations

from collections import Counter

from data_prep.report.model import SHAPE_ROLES, AkinImages, AkinPair, Report, Sample
from data_prep.report.survey import SAMPLE_SIDE
from data_prep.splits.twins import ALL_PAIRS
from llava.common.html.markup import Markup, cut, tag, together
from llava.common.records import IMAGE_PLACEHOLDER

_TURNS = 4  # of one conversation
_BOXES = 200  # drawn on one sample
_TEXT = 400  # characters of a question or an answer
_COLOURS = ("#ff4d4f", "#18b6f6", "#ffc233", "#3ecf6e", "#c77dff", "#ff8a3d", "#5b8cff", "#f06ab8")


def akin_part(akin: AkinImages | None) -> Markup | None:
    if akin is None:
        return None
    leaks = akin.leaks
    least = "at least " if akin.some_pairs else ""
    lines = [f"Looked for pictures that are not independent. {akin.summary[:1].upper()}{akin.summary[1:]}."]
    if akin.pairs:
        lines.append(
            "A model that is trained on one picture and tested on one akin to it remembers, it does not look."
        )
    if leaks and leaks.akin:
        lines.append(
            f"{leaks.akin:,} pairs of pictures are in one group, for these or other reasons. A naive split, "
            f"picture by picture at random, would divide about {leaks.random_akin:,g} of them "
            f"({least}{leaks.random_twins:,g} that look alike)."
        )
    if leaks and leaks.given_akin is not None:
        lines.append(
            f"The splits that the source itself states divide {leaks.given_akin:,} of these pairs "
            f"({least}{leaks.given_twins or 0:,} that look alike)."
        )
    if akin.crossing is not None and akin.pairs:
        lines.append(
            f"As the pictures are split here, {akin.crossing or 'none'} of the pairs found are divided."
        )
    if akin.some_pairs:
        lines.append(
            f"Where more than {ALL_PAIRS} pictures hang together, only as many of their pairs were looked "
            "for as join them."
        )
    parts = [tag("p", line) for line in lines]
    if akin.pairs > len(akin.shown):
        parts.append(tag("p", f"{len(akin.shown)} of {akin.pairs:,} pairs:", class_="soft"))
    return together([*parts, tag("div", *(_pair(pair) for pair in akin.shown), class_="cards")])


def _pair(pair: AkinPair) -> Markup:
    one, two = pair.first, pair.second
    if pair.crossing:
        state = tag("span", f"on two sides: {one.split} and {two.split}", class_="warn")
    elif one.split and two.split:
        state = tag("span", f"both in {one.split}", class_="ok")
    elif one.split or two.split:
        state = tag("span", f"one in {one.split or two.split}, the other left out", class_="ok")
    else:
        state = None
    thumbnails = [_thumbnail(data, seen.name) for data, seen in zip(pair.images, (one, two), strict=True)]
    return tag(
        "figure",
        tag("div", *thumbnails, class_="pair"),
        tag(
            "figcaption",
            tag("b", pair.likeness),
            "; " if state else None,
            state,
            tag("div", one.name),
            tag("div", two.name),
        ),
    )


def _thumbnail(data: str, name: str) -> Markup:
    shown = tag("img", src=data, alt=f"Picture {name}") if data else tag("p", "cannot be read")
    return tag("div", shown, class_="picture")


def samples_part(report: Report) -> Markup | None:
    if not report.samples:
        return None
    colours = _colours(report)
    model_input = report.model_inputs[0]
    about = f"{len(report.samples)} of {report.view_count:,} {report.unit}s that show every split and class, "
    if model_input.side <= SAMPLE_SIDE:
        about += f"as large as {model_input.name} sees them: what you cannot make out here, it cannot either."
    else:
        about += f"at most {SAMPLE_SIDE} pixels wide or high; {model_input.name} sees {model_input.side}."
    return together(
        [
            tag("p", f"{about} A click enlarges a {report.unit}."),
            tag(
                "div",
                *(_sample(sample, number, colours) for number, sample in enumerate(report.samples)),
                class_="cards",
            ),
        ]
    )


def _colours(report: Report) -> dict[str, str]:
    """Red first, for defects, and where nothing says what is one, for the rarest class."""
    rows = sorted(report.classes, key=lambda row: (SHAPE_ROLES.index(row.role), row.boxes.total(), row.name))
    return {row.name: _COLOURS[number % len(_COLOURS)] for number, row in enumerate(rows)}


def _sample(sample: Sample, number: int, colours: dict[str, str]) -> Markup:
    view = sample.view
    boxes = Counter(shape.name for shape in view.shapes)
    keys = [
        tag(
            "span",
            tag("i", class_="swatch", style=f"background:{colours[name]}"),
            f"{name} ({count})" if count > 1 else name,
            class_="key",
        )
        for name, count in sorted(boxes.items())
    ]
    labels = [tag("span", f"labelled {name}", class_="key") for name in view.labels]
    if not keys and not labels:
        keys = [tag("span", "nothing annotated", class_="key")]
    boxes_in_words = ", ".join(f"{count} {name}" for name, count in sorted(boxes.items())) or "no boxes"
    split = [tag("span", view.split, class_="tag"), " "] if view.split else []
    # A link to the figure itself enlarges it, by the style's :target, and one to its caption ends that.
    anchor, alt = f"sample-{number}", f"{view.name} with {boxes_in_words}"
    image = [
        tag("a", tag("img", src=sample.image, alt=alt), href=f"#{anchor}", title="enlarge"),
        tag("a", tag("img", src=sample.large, alt=alt), href=f"#{anchor}-name", class_="large", title="back"),
        _outlines(sample, colours),
    ]
    return tag(
        "figure",
        tag("div", *(image if sample.image else [tag("p", "cannot be read")]), class_="picture"),
        tag("figcaption", *split, tag("b", view.name), tag("div", *keys, *labels), id=f"{anchor}-name"),
        _conversation(sample),
        id=anchor,
    )


def _outlines(sample: Sample, colours: dict[str, str]) -> Markup:
    """The boxes over the picture, each a dark line under a bright one, to be seen on any ground."""
    width, height = sample.view.size
    rectangles = []
    for shape in sample.view.shapes[:_BOXES]:
        x1, y1, x2, y2 = shape.box
        place = {"x": f"{x1:.1f}", "y": f"{y1:.1f}", "width": f"{x2 - x1:.1f}", "height": f"{y2 - y1:.1f}"}
        rectangles.append(tag("rect", class_="under", **place))
        rectangles.append(tag("rect", tag("title", shape.name), stroke=colours[shape.name], **place))
    return tag(
        "svg",
        *rectangles,
        viewBox=f"0 0 {width:g} {height:g}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _conversation(sample: Sample) -> Markup | None:
    if not sample.conversations:
        return None
    lines = []
    for conversation in sample.conversations:
        for number, (question, answer) in enumerate(conversation.turns[:_TURNS]):
            chip = tag("span", conversation.task if number == 0 else "then", class_="tag")
            asked = question.replace(IMAGE_PLACEHOLDER, "").strip()
            lines.append(tag("dt", chip, " ", cut(asked, _TEXT)))
            lines.append(tag("dd", cut(answer, _TEXT)))
    if sample.more:
        lines.append(tag("dt", f"and {sample.more:,} more", class_="soft"))
    return tag("dl", *lines, class_="talk")
